//! The thread that writes log lines, so that a blocked stderr delays nobody else.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::logger::backlog::{Backlog, Pushed};
use crate::thread;

/// The longest wait of a line that is not urgent for others, so that a busy proxy writes in bursts.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// The stack of the writing thread.
const STACK_BYTES: usize = 64 * 1024;

/// Takes lines from any thread, and never blocks one.
#[derive(Clone)]
pub(super) struct Writer(Arc<LineQueue>);

struct LineQueue {
    state: Mutex<LineQueueState>,
    /// There is something to write.
    came: Condvar,
    /// Everything was written.
    written: Condvar,
    /// Lines that were dropped since the start.
    dropped_lines: AtomicU64,
}

#[derive(Default)]
struct LineQueueState {
    backlog: Backlog,
    is_writing: bool,
}

impl Writer {
    /// Writes to `out` on its own thread. `notice` makes the line about dropped lines.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        notice: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(LineQueue {
            state: Mutex::default(),
            came: Condvar::new(),
            written: Condvar::new(),
            dropped_lines: AtomicU64::new(0),
        });
        let own = queue.clone();
        // The thread ends with the process: a stop waits for its lines, within a limit.
        thread::spawn("log", STACK_BYTES, move || own.run(out, &notice))?.detach();
        Ok(Self(queue))
    }

    /// Queues `line`; an urgent one is written at once.
    pub(super) fn push(&self, line: &str, is_urgent: bool) {
        let pushed = self.0.state().backlog.push(line, is_urgent);
        match pushed {
            Pushed::Taken => {}
            Pushed::News => self.0.came.notify_one(),
            Pushed::Dropped => {
                self.0.dropped_lines.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all lines are written, at most for `time_max`.
    pub(super) fn flush(&self, time_max: Duration) {
        let mut state = self.0.state();
        state.backlog.hurry();
        self.0.came.notify_one();
        let is_busy = |state: &mut LineQueueState| state.is_writing || !state.backlog.is_empty();
        drop(self.0.written.wait_timeout_while(state, time_max, is_busy));
    }

    /// The number of lines dropped since the start.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.0.dropped_lines.load(Ordering::Relaxed)
    }
}

impl LineQueue {
    fn state(&self) -> MutexGuard<'_, LineQueueState> {
        // Each change of the state is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write, notice: &impl Fn(u64) -> String) {
        let mut lines = Vec::new();
        // Lines that could not be written, and are not reported yet.
        let mut lost = 0;
        loop {
            lines = self.next_burst(lines);
            let is_taken = out.write_all(&lines).is_ok();
            if !is_taken {
                let count = lines.split_inclusive(|byte| *byte == b'\n').count() as u64;
                self.dropped_lines.fetch_add(count, Ordering::Relaxed);
                lost += count;
            }
            let mut state = self.state();
            state.is_writing = false;
            if is_taken {
                let count = std::mem::take(&mut lost) + state.backlog.take_dropped();
                if count > 0 {
                    state.backlog.push(&notice(count), true);
                }
            }
            self.written.notify_all();
        }
    }

    /// Waits for lines, and for others that follow at once.
    fn next_burst(&self, written: Vec<u8>) -> Vec<u8> {
        let unwrap = PoisonError::into_inner;
        let mut state = self.state();
        while state.backlog.is_empty() {
            state = self.came.wait(state).unwrap_or_else(unwrap);
        }
        let is_early = |state: &mut LineQueueState| !state.backlog.is_due();
        let waited = self.came.wait_timeout_while(state, GATHER_MAX, is_early);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_writing = true;
        state.backlog.take(written)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;
    use crate::logger::backlog::BACKLOG_MAX_BYTES;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Accepts a write only when a test lets one through.
    struct Gate {
        open: Receiver<()>,
        wrote: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.wrote.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Writer, Sender<()>, Receiver<String>) {
        let (open, opened) = bounded(0);
        let (wrote, written) = unbounded();
        let notice = |count| format!("{count} dropped");
        let writer = Writer::start(Gate { open: opened, wrote }, notice).unwrap();
        (writer, open, written)
    }

    #[test]
    fn who_logs_does_not_wait_and_lines_that_found_no_room_are_counted_and_said() {
        let (writer, open, written) = gated();
        writer.push("first", true);
        open.send_timeout((), PATIENCE).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), "first\n");
        // From here on nothing is accepted, and this thread continues anyway.
        let long = "x".repeat(BACKLOG_MAX_BYTES / 8);
        for _ in 0..20 {
            writer.push(&long, false);
        }
        let dropped = writer.dropped_lines();
        assert!((4..=13).contains(&dropped), "{dropped}");
        let mut all = String::new();
        while !all.contains("dropped") {
            open.send_timeout((), PATIENCE).unwrap();
            all.push_str(&written.recv_timeout(PATIENCE).unwrap());
        }
        assert!(all.ends_with(&format!("{dropped} dropped\n")));
        assert_eq!(all.matches(&long).count() as u64, 20 - dropped);
    }

    /// Accepts nothing while it is full, like a disk or a file at its size limit.
    struct Full(Arc<AtomicBool>, Sender<String>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            if self.0.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.send(text).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_did_not_take_are_said_once_it_takes_others() {
        let (is_full, (wrote, written)) = (Arc::new(AtomicBool::new(true)), unbounded());
        let notice = |count| format!("{count} dropped");
        let writer = Writer::start(Full(is_full.clone(), wrote), notice).unwrap();
        for line in ["one", "two", "three"] {
            writer.push(line, true);
            writer.flush(PATIENCE);
        }
        assert_eq!(writer.dropped_lines(), 3);
        is_full.store(false, Ordering::SeqCst);
        writer.push("four", true);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), "four\n");
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), "3 dropped\n");
    }

    #[test]
    fn a_flush_returns_once_everything_is_written_or_its_time_is_over() {
        let (writer, open, written) = gated();
        writer.push("stuck", false);
        writer.flush(Duration::from_millis(1));
        assert!(written.is_empty());
        drop(open);
        writer.flush(PATIENCE);
        assert_eq!(writer.dropped_lines(), 1, "nobody takes it");
    }
}
