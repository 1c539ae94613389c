//! One value of a window, from one field. Pure.

use crate::clock::Timestamp;
use crate::quota::fields::values::{Reset, count, leading_count, reset_at};

/// A utilization is a share of 1. A larger one than this is in another unit.
const UTILIZATION_MAX: f64 = 10.0;
/// The window of fields that name none.
pub(super) const UNNAMED: &[u8] = b"default";

/// One value of a window.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Limit(Option<f64>),
    Remaining(Option<f64>),
    /// The share that is left.
    Ratio(Option<f64>),
    Reset(Reset),
    Rejected(bool),
}

impl Part {
    /// The part in a field whose name ends with `word`.
    pub(super) fn of(word: &[u8], value: &[u8], now: Timestamp) -> Option<Self> {
        let is = |own: &[u8]| word.eq_ignore_ascii_case(own);
        Some(if is(b"remaining") {
            Self::Remaining(count(value))
        } else if is(b"limit") {
            Self::Limit(leading_count(value))
        } else if is(b"reset") {
            Self::Reset(reset_at(value, now))
        } else if is(b"utilization") {
            let used = count(value).filter(|used| *used <= UTILIZATION_MAX);
            Self::Ratio(used.map(|used| 1.0 - used))
        } else if is(b"status") {
            Self::Rejected(value.eq_ignore_ascii_case(b"rejected"))
        } else {
            return None;
        })
    }
}
