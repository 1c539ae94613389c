//! The times at which records are saved, with timers that the tests end.

use std::sync::atomic::AtomicU32;

use crossbeam_channel::RecvTimeoutError;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// The time in which changes gather.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// A bookkeeper whose timers a test ends: each wait arrives at the test with the sender that ends it.
fn start() -> (Bookkeeper, Receiver<(Duration, Sender<Instant>)>) {
    let (waits, waiting) = unbounded();
    let timer = move |length| {
        let (end, ended) = bounded(1);
        waits.send((length, end)).unwrap();
        ended
    };
    (Bookkeeper::start(timer, SAVE_EVERY).unwrap(), waiting)
}

fn end(wait: &Sender<Instant>) {
    let (now, at) = bounded(1);
    crossbeam_channel::after(Duration::ZERO)
        .recv()
        .map(|instant| now.send(instant))
        .unwrap()
        .unwrap();
    wait.send(at.recv().unwrap()).unwrap();
}

/// A closure that counts its calls, and fails while `fails` holds.
fn counting(
    fails: &Arc<AtomicBool>,
) -> (Receiver<bool>, impl FnMut() -> io::Result<()> + Send + use<>) {
    let (told, calls) = unbounded();
    let fails = fails.clone();
    let save = move || {
        let fails = fails.load(Ordering::SeqCst);
        told.send(fails).unwrap();
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    };
    (calls, save)
}

#[test]
fn many_changes_are_one_save_and_an_unchanged_record_is_none() {
    let (bookkeeper, waiting) = start();
    let fine = Arc::default();
    let (calls, save) = counting(&fine);
    let (other_calls, other_save) = counting(&fine);
    let reminder = bookkeeper.registrar().add("usage", save);
    let _other = bookkeeper.registrar().add("other", other_save);
    for _ in 0..3 {
        reminder.changed();
    }
    let (length, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!((length, calls.len()), (SAVE_EVERY, 0));
    reminder.changed();
    end(&wait);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(false));
    reminder.changed();
    let (length, _wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, SAVE_EVERY);
    drop(bookkeeper);
    assert_eq!((calls.len(), other_calls.len()), (1, 0), "the stop saves a last time");
}

#[test]
fn another_interval_holds_from_the_next_change_on() {
    const OTHER: Duration = Duration::from_hours(1);
    let (bookkeeper, waiting) = start();
    let (calls, save) = counting(&Arc::default());
    let reminder = bookkeeper.registrar().add("usage", save);
    reminder.changed();
    let (length, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    bookkeeper.registrar().save_every(OTHER);
    end(&wait);
    assert_eq!((length, calls.recv_timeout(PATIENCE)), (SAVE_EVERY, Ok(false)));
    reminder.changed();
    let (length, _wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, OTHER);
    drop(bookkeeper);
    assert_eq!(calls.len(), 1, "the stop does not wait for it");
}

#[test]
fn a_change_that_must_not_be_lost_is_saved_soon() {
    let (bookkeeper, waiting) = start();
    let (calls, save) = counting(&Arc::default());
    let reminder = bookkeeper.registrar().add("quota", save);
    reminder.changed();
    let (length, _late) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, SAVE_EVERY);
    reminder.changed_much();
    let (length, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, SAVE_SOON);
    reminder.changed_much();
    end(&wait);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(false));
    reminder.changed_much();
    let (length, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, SAVE_SOON, "the wait is not begun anew meanwhile");
    end(&wait);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(false));
}

#[test]
fn a_full_disk_is_tried_again_and_at_the_stop() {
    let (mut bookkeeper, waiting) = start();
    let full = Arc::new(AtomicBool::new(true));
    let (calls, save) = counting(&full);
    let reminder = bookkeeper.registrar().add("usage", save);
    reminder.changed();
    let (_, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    end(&wait);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(true));
    let (length, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, RETRY);
    reminder.changed();
    end(&wait);
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(true));
    full.store(false, Ordering::SeqCst);
    let (length, _wait) = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!(length, RETRY);
    bookkeeper.stop(Deadline::after(PATIENCE));
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [false]);
}

#[test]
fn a_disk_that_hangs_holds_up_neither_changes_nor_the_stop() {
    let (mut bookkeeper, waiting) = start();
    let (release, held) = bounded::<()>(0);
    let (begun, beginning) = bounded(1);
    let reminder = bookkeeper.registrar().add("usage", move || {
        begun.send(()).unwrap();
        let _ = held.recv();
        Ok(())
    });
    reminder.changed();
    let (_, wait) = waiting.recv_timeout(PATIENCE).unwrap();
    end(&wait);
    beginning.recv_timeout(PATIENCE).unwrap();
    reminder.changed();
    let another = bookkeeper.registrar().add("other", || Ok(()));
    another.changed();
    bookkeeper.stop(Deadline::after(Duration::from_millis(1)));
    drop(release);
}

#[test]
fn a_record_is_forgotten_with_its_reminder_after_a_last_save() {
    let (mut bookkeeper, waiting) = start();
    let saved = Arc::new(AtomicU32::new(0));
    // Its sender lives as long as the record.
    let (life, end_of_life) = bounded::<()>(0);
    let count = saved.clone();
    let reminder = bookkeeper.registrar().add("usage", move || {
        let _ = &life;
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    reminder.changed();
    drop(reminder);
    end(&waiting.recv_timeout(PATIENCE).unwrap().1);
    assert_eq!(end_of_life.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(saved.load(Ordering::SeqCst), 1);
    bookkeeper.stop(Deadline::after(PATIENCE));
}
