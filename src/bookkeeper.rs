//! The thread that saves counts and the like to disk, so that no request and no page waits for a disk.
//!
//! A part of the program registers a [`Record`]: a name for the log, and a closure that saves. It gets a [`Reminder`],
//! which it calls after each change. The bookkeeper saves all changed records together, at most every
//! `settings.save_interval`, and once more at the stop. A disk that is full is tried again; a disk that hangs holds up
//! only this thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use log::{info, warn};

use crate::clock::Deadline;
use crate::thread::{self, Thread, on_watched_thread};

/// The time from a change that a restart must not lose to the write.
pub(crate) const SAVE_SOON: Duration = Duration::from_secs(1);
/// The wait before the next try after a failure.
pub(crate) const RETRY: Duration = Duration::from_secs(30);
/// The time between two looks at a write, and the number of looks after which it counts as hanging.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const HANGING_LOOKS: u32 = 10;
/// The time that the last write gets if the bookkeeper is dropped without a stop.
const DROP_MAX: Duration = Duration::from_secs(2);
/// The stack of the thread, and of the one that writes.
const STACK_BYTES: usize = 128 * 1024;

/// Makes a channel that yields after so long.
type Timer = Box<dyn Fn(Duration) -> Receiver<Instant> + Send>;
type Save = Box<dyn FnMut() -> io::Result<()> + Send>;
/// Says how much is not saved, such as `3 answers with 120 tokens`; None if nothing is.
type Unsaved = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// One thing to save.
struct Record {
    /// Its name in the log: `usage`.
    name: String,
    save: Save,
    unsaved: Unsaved,
    reminder: Reminder,
    /// The last try failed, and the log says so.
    has_failed: bool,
}

/// Tells the bookkeeper that a record has changed. Once all clones are dropped, the bookkeeper forgets the record,
/// after a last save if it has changed.
#[derive(Clone, Debug)]
pub(crate) struct Reminder {
    is_changed: Arc<AtomicBool>,
    /// The bookkeeper's, for all records.
    is_urgent: Arc<AtomicBool>,
    wake: Sender<()>,
}

impl Reminder {
    /// The record has changed. Never blocks, and is cheap when called again before the record is saved.
    pub(crate) fn changed(&self) {
        if self.is_changed.load(Ordering::Relaxed) {
            return;
        }
        if !self.is_changed.swap(true, Ordering::AcqRel) {
            // A full channel means that the bookkeeper is about to look.
            let _ = self.wake.try_send(());
        }
    }

    /// The record has changed in a way that a restart must not lose. Never blocks.
    pub(crate) fn changed_much(&self) {
        self.is_changed.store(true, Ordering::Release);
        if !self.is_urgent.swap(true, Ordering::AcqRel) {
            let _ = self.wake.try_send(());
        }
    }
}

/// Registers records. Cloning shares the bookkeeper.
#[derive(Clone)]
pub(crate) struct Registrar {
    records: Sender<Record>,
    /// Those of all records, for a stop while the disk hangs.
    unsaved: Arc<Mutex<Vec<Unsaved>>>,
    is_urgent: Arc<AtomicBool>,
    wake: Sender<()>,
    save_every: SaveEvery,
}

/// The time from a change to the write, in which further changes gather.
type SaveEvery = Arc<RwLock<Duration>>;

impl Registrar {
    /// Saves at most every `interval` from the next change on.
    pub(crate) fn save_every(&self, interval: Duration) {
        *self.save_every.write().unwrap_or_else(PoisonError::into_inner) = interval;
    }

    /// Registers the record called `name`, which `save` writes to disk. `save` runs on the bookkeeper's thread, one record
    /// after another; it must not hold a lock that a request needs while it writes.
    pub(crate) fn add(
        &self,
        name: impl Into<String>,
        save: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> Reminder {
        self.add_counted(name, save, || None)
    }

    /// The same; `unsaved` says how much a stop would lose.
    pub(crate) fn add_counted(
        &self,
        name: impl Into<String>,
        save: impl FnMut() -> io::Result<()> + Send + 'static,
        unsaved: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Reminder {
        let (is_urgent, wake) = (self.is_urgent.clone(), self.wake.clone());
        let reminder = Reminder { is_changed: Arc::default(), is_urgent, wake };
        let (name, save, unsaved): (_, _, Unsaved) =
            (name.into(), Box::new(save), Arc::new(unsaved));
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner).push(unsaved.clone());
        let record = Record { name, save, unsaved, reminder: reminder.clone(), has_failed: false };
        // Without the thread there is nothing to register with: the process is stopping.
        let _ = self.records.send(record);
        reminder
    }
}

/// The running bookkeeper.
pub(crate) struct Bookkeeper {
    registrar: Registrar,
    stop: Option<Sender<()>>,
    /// Disconnected at the end of the thread.
    ended: Receiver<()>,
    thread: Option<Thread>,
}

impl Bookkeeper {
    /// Starts the thread, which saves at most every `interval`; `timer` makes the channels on which it waits.
    pub(crate) fn start(
        timer: impl Fn(Duration) -> Receiver<Instant> + Send + 'static,
        interval: Duration,
    ) -> io::Result<Self> {
        let save_every = Arc::new(RwLock::new(interval));
        let (registered, arrivals) = unbounded();
        let (wake, woken) = bounded(1);
        let (stop, stopped) = bounded(0);
        let (running, ended) = bounded::<()>(0);
        let is_urgent = Arc::<AtomicBool>::default();
        let work = Work {
            arrivals,
            woken,
            stopped,
            timer: Box::new(timer),
            records: Vec::new(),
            is_urgent: is_urgent.clone(),
            save_every: save_every.clone(),
        };
        let body = move || {
            let _running = running;
            work.run();
        };
        let thread = Some(thread::spawn("bookkeeper", STACK_BYTES, body)?);
        let (records, unsaved) = (registered, Arc::default());
        let registrar = Registrar { records, unsaved, is_urgent, wake, save_every };
        Ok(Self { registrar, stop: Some(stop), ended, thread })
    }

    /// Registers records with it.
    pub(crate) fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// Saves all changed records a last time and ends the thread; leaves a write behind that hangs until `deadline`.
    pub(crate) fn stop(&mut self, deadline: Deadline) {
        if self.stop.take().is_none() {
            return;
        }
        // It yields only by the thread's end.
        let _ = self.ended.recv_timeout(deadline.left());
        let Some(thread) = self.thread.take() else { return };
        if !matches!(self.ended.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected)) {
            let all = self.registrar.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
            let lost: Vec<String> = all.iter().filter_map(|unsaved| unsaved()).collect();
            warn!(
                "The disk hangs, and evertoken stops; what was not saved is lost{}",
                listed(&lost)
            );
            thread.detach();
        }
    }
}

impl Drop for Bookkeeper {
    fn drop(&mut self) {
        self.stop(Deadline::after(DROP_MAX));
    }
}

/// The thread's inputs and its records.
struct Work {
    arrivals: Receiver<Record>,
    woken: Receiver<()>,
    stopped: Receiver<()>,
    timer: Timer,
    records: Vec<Record>,
    is_urgent: Arc<AtomicBool>,
    save_every: SaveEvery,
}

impl Work {
    fn run(mut self) {
        let mut due = never();
        let (mut is_waiting, mut is_soon) = (false, false);
        loop {
            select! {
                recv(self.stopped) -> _ => {
                    self.save_changed(true);
                    return;
                }
                recv(self.woken) -> _ => {
                    // Only once, because changes that go on would move the save away.
                    if self.is_urgent.swap(false, Ordering::AcqRel) && !is_soon {
                        (due, is_waiting, is_soon) = ((self.timer)(SAVE_SOON), true, true);
                    } else if !is_waiting {
                        let interval = *self.save_every.read().unwrap_or_else(PoisonError::into_inner);
                        (due, is_waiting) = ((self.timer)(interval), true);
                    }
                }
                recv(due) -> _ => {
                    let is_well = self.save_changed(false);
                    (is_waiting, is_soon) = (!is_well, false);
                    due = if is_well { never() } else { (self.timer)(RETRY) };
                }
            }
        }
    }

    /// Saves the changed records, `for_good` if this is the last time; true if none failed.
    fn save_changed(&mut self, for_good: bool) -> bool {
        self.records.extend(self.arrivals.try_iter());
        let records = &mut self.records;
        let mut looks = 0;
        let mut tell = || {
            looks += 1;
            if looks == HANGING_LOOKS {
                warn!("The disk hangs: usage and the like are not saved until it answers");
            }
        };
        let save_all = || {
            records.iter_mut().filter_map(|one| one.save_if_changed(for_good).err()).count() == 0
        };
        let is_well = on_watched_thread("disk", STACK_BYTES, LOOK_EVERY, &mut tell, save_all);
        if looks >= HANGING_LOOKS {
            info!("The disk that hung has answered after {looks} s");
        }
        self.records.retain(Record::is_in_use);
        is_well
    }
}

impl Record {
    fn save_if_changed(&mut self, for_good: bool) -> io::Result<()> {
        // Before the save, because a change during it is for the next one.
        if !self.reminder.is_changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = (self.save)();
        match &outcome {
            Ok(()) if self.has_failed => info!("The {} can be saved again", self.name),
            Err(why) if for_good => {
                let lost: Vec<String> = (self.unsaved)().into_iter().collect();
                warn!(
                    "The {} can't be saved ({why}), and evertoken stops; what was not saved is lost{}",
                    self.name,
                    listed(&lost)
                );
            }
            Err(why) if !self.has_failed => warn!(
                "The {} can't be saved ({why}); it stays in memory, and the next try is in {} s",
                self.name,
                RETRY.as_secs()
            ),
            _ => {}
        }
        self.has_failed = outcome.is_err();
        if self.has_failed {
            self.reminder.is_changed.store(true, Ordering::Release);
        }
        outcome
    }

    /// True if it may still change, or is not yet saved.
    fn is_in_use(&self) -> bool {
        let is_changed = &self.reminder.is_changed;
        Arc::strong_count(is_changed) > 1 || is_changed.load(Ordering::Acquire)
    }
}

/// `: 3 answers with 120 tokens`, or nothing.
fn listed(lost: &[String]) -> String {
    if lost.is_empty() { String::new() } else { format!(": {}", lost.join(", ")) }
}

#[cfg(test)]
mod tests;
