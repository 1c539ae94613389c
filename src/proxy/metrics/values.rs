//! Values of metrics in their units. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

pub(super) fn as_float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) fn as_flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

pub(super) fn seconds_since_1970(at: Timestamp) -> f64 {
    Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0)).as_secs_f64()
}
