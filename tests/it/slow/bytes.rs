//! Every case of `tests/data/hostile`, cut at every position, over real sockets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::subject::Subject;
use crate::support::cases::{self, Case, play};

/// Up to here every position is cut; of longer inputs some positions beyond it.
const EVERY_POSITION_MAX: usize = 300;
const POSITIONS_BEYOND: usize = 40;
const THREADS: usize = 4;

fn cuts(case: &Case) -> Vec<usize> {
    let length = case.input.len();
    let step = (length.saturating_sub(EVERY_POSITION_MAX) / POSITIONS_BEYOND).max(1);
    let beyond = (EVERY_POSITION_MAX..length).step_by(step);
    (1..length.min(EVERY_POSITION_MAX)).chain(beyond).collect()
}

#[test]
fn every_case_is_answered_the_same_however_it_is_cut() {
    let subject = Subject::start("");
    let address = subject.address;
    let cases = cases::all();
    let next = AtomicUsize::new(0);
    let played = AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            for cut in cuts(case) {
                let came = catch_unwind(AssertUnwindSafe(|| play(address, case, &[cut], pause)));
                assert_eq!(came.ok().as_ref(), Some(&case.expected), "{} cut at {cut}", case.name);
                played.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            assert!(thread.join().is_ok(), "see above");
        }
    });
    let played = played.into_inner();
    assert!(played > 10_000, "{played}");
    subject.is_unharmed();
}

/// Long enough that the proxy mostly sees the cut. The answer must be the same in either case.
#[expect(clippy::disallowed_methods, reason = "nothing depends on how long it takes")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(100));
}
