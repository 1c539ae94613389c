//! Worker threads: made when needed up to a limit, reclaimed when idle, unharmed by a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select, unbounded};

use crate::thread;

/// The longest wait of a worker for its next job, after which it ends.
pub(crate) const WORKER_IDLE_MAX: Duration = Duration::from_secs(10);

/// A worker's job.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A pool of workers.
#[derive(Clone)]
pub(crate) struct Pool {
    // A channel without room: a job is taken only by a worker that waits for one.
    hand_over: Sender<Job>,
    waiting: Receiver<Job>,
    // Jobs for workers that are about to be free; they come before all others.
    promise: Sender<Job>,
    promised: Receiver<Job>,
    workers: Arc<AtomicUsize>,
    workers_max: usize,
    idle_max: Duration,
}

/// Counts a worker while it lives, however it ends, or a connection that has left its worker.
pub(crate) struct Seat(Option<Arc<AtomicUsize>>);

/// Makes seats for connections that leave their workers, and yet count among those of the pool.
#[derive(Clone)]
pub(crate) struct Seats(Arc<AtomicUsize>);

impl Seats {
    pub(crate) fn take(&self) -> Seat {
        self.0.fetch_add(1, Ordering::SeqCst);
        Seat(Some(self.0.clone()))
    }
}

impl Seat {
    /// Gives it back if more than `max` are taken; returns true if so. Of several at once, only as many do so as are
    /// too many.
    fn give_back_beyond(&mut self, max: usize) -> bool {
        let fewer = |taken: usize| (taken > max).then(|| taken - 1);
        let update = |count: &mut Arc<AtomicUsize>| {
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
        };
        self.0.take_if(update).is_some()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Pool {
    /// A pool of at most `workers_max` workers; each ends after `idle_max` without a job.
    pub(crate) fn new(workers_max: usize, idle_max: Duration) -> Self {
        let (hand_over, waiting) = bounded(0);
        let (promise, promised) = unbounded();
        Self {
            hand_over,
            waiting,
            promise,
            promised,
            workers: Arc::default(),
            workers_max,
            idle_max,
        }
    }

    /// The seats of connections without a worker.
    pub(crate) fn seats(&self) -> Seats {
        Seats(self.workers.clone())
    }

    /// Gives `job` to a waiting worker, or to a new one. With neither, the job and its values are dropped, and the
    /// error gives the reason: `WouldBlock` for a full pool.
    pub(crate) fn run(&self, job: Job) -> io::Result<()> {
        if !self.promised.is_empty() {
            // The next free worker already has a job.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let job = match self.hand_over.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        let count = self.workers.fetch_add(1, Ordering::SeqCst);
        let mut seat = Seat(Some(self.workers.clone()));
        if count >= self.workers_max {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pool = self.clone();
        let work = move || {
            let mut next = Some(job);
            while let Some(job) = next {
                // The hook printed the panic's message; only its connection is lost.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("A connection ended by a panic; please report this");
                }
                next = pool.next_job(&mut seat);
            }
        };
        thread::spawn("worker", thread::WORKER_STACK_BYTES, work).map(thread::Thread::detach)
    }

    /// Gives `job` to the next free worker.
    pub(crate) fn promise(&self, job: Job) {
        // The pool itself holds the other end.
        let _ = self.promise.send(job);
    }

    fn next_job(&self, seat: &mut Seat) -> Option<Job> {
        self.promised.try_recv().ok().or_else(|| {
            if seat.give_back_beyond(self.workers_max) {
                // A connection that left its worker has this one's place.
                return None;
            }
            select! {
                recv(self.promised) -> job => job.ok(),
                recv(self.waiting) -> job => job.ok(),
                default(self.idle_max) => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job that says when it began and ends when it is told to.
    fn held_job(began: &Sender<()>) -> (Job, Sender<()>) {
        let (release, released) = bounded::<()>(0);
        let began = began.clone();
        let job = Box::new(move || {
            began.send(()).unwrap();
            let _ = released.recv();
        });
        (job, release)
    }

    /// Gives a worker a job, once one is free to take it.
    fn run_once_free(pool: &Pool) {
        let (began, beginnings) = bounded(9);
        loop {
            let (job, _release) = held_job(&began);
            if pool.run(job).is_ok() {
                break;
            }
            std::thread::yield_now();
        }
        beginnings.recv_timeout(PATIENCE).unwrap();
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn workers_are_made_up_to_the_limit_and_used_again() {
        let pool = Pool::new(2, PATIENCE);
        let (began, beginnings) = bounded(9);
        let (first, release_first) = held_job(&began);
        let (second, _release_second) = held_job(&began);
        pool.run(first).unwrap();
        pool.run(second).unwrap();
        beginnings.recv_timeout(PATIENCE).unwrap();
        beginnings.recv_timeout(PATIENCE).unwrap();
        let (third, _release_third) = held_job(&began);
        assert_eq!(pool.run(third).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(pool.workers.load(Ordering::SeqCst), 2);
        drop(release_first);
        // The first worker is about to wait for its next job; until then the pool is full.
        run_once_free(&pool);
        assert_eq!(pool.workers.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_pool_does_not_wait_and_a_promised_job_comes_before_others() {
        let pool = Pool::new(1, PATIENCE);
        let (began, beginnings) = bounded(9);
        let (first, release_first) = held_job(&began);
        pool.run(first).unwrap();
        beginnings.recv_timeout(PATIENCE).unwrap();
        let (second, release_second) = held_job(&began);
        pool.promise(second);
        drop(release_first);
        beginnings.recv_timeout(PATIENCE).unwrap();
        let (third, _release_third) = held_job(&began);
        pool.promise(third);
        let (late, _release_late) = held_job(&began);
        assert_eq!(pool.run(late).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(release_second);
        beginnings.recv_timeout(PATIENCE).unwrap();
        assert_eq!(pool.workers.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_costs_its_job_only() {
        let pool = Pool::new(1, PATIENCE);
        pool.run(Box::new(|| panic!("on purpose"))).unwrap();
        run_once_free(&pool);
        assert_eq!(pool.workers.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_connection_that_left_its_worker_has_its_place() {
        let pool = Pool::new(2, PATIENCE);
        let (began, beginnings) = bounded(9);
        let seats = pool.seats();
        let (left, leaves) = bounded(1);
        let leave = move || left.send(seats.take()).unwrap();
        pool.run(Box::new(leave)).unwrap();
        let seat = leaves.recv_timeout(PATIENCE).unwrap();
        // Its worker is about to wait for its next job.
        let release_first = loop {
            let (first, release) = held_job(&began);
            if pool.run(first).is_ok() {
                break release;
            }
            std::thread::yield_now();
        };
        beginnings.recv_timeout(PATIENCE).unwrap();
        let (second, _release_second) = held_job(&began);
        assert_eq!(pool.run(second).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(seat);
        let (second, _release_second) = held_job(&began);
        pool.run(second).unwrap();
        beginnings.recv_timeout(PATIENCE).unwrap();
        drop(release_first);
    }

    #[test]
    fn a_worker_too_many_ends() {
        let pool = Pool::new(1, PATIENCE);
        let seats = pool.seats();
        let (done, ends) = bounded(1);
        let leave = move || done.send(seats.take()).unwrap();
        pool.run(Box::new(leave)).unwrap();
        let _seat = ends.recv_timeout(PATIENCE).unwrap();
        while pool.workers.load(Ordering::SeqCst) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn no_more_workers_end_than_are_too_many() {
        let seats = Pool::new(2, PATIENCE).seats();
        // Two workers that look at the same moment, and a connection that left a third.
        let (mut one, mut other, _left) = (seats.take(), seats.take(), seats.take());
        assert!(one.give_back_beyond(2));
        assert!(!other.give_back_beyond(2), "somebody has to be there for a promised job");
        drop(one);
        assert_eq!(seats.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn idle_workers_end() {
        let pool = Pool::new(1, Duration::ZERO);
        let (done, ends) = bounded(1);
        pool.run(Box::new(move || done.send(()).unwrap())).unwrap();
        ends.recv_timeout(PATIENCE).unwrap();
        while pool.workers.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}
