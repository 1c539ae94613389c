//! The one door to time: a wall clock for expiry and a steady clock for waits, both injectable.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

mod rfc3339;

/// A wall-clock time before which this program did not exist, in seconds since 1970. A clock that shows an earlier
/// time is wrong (a router without a clock battery starts in 1970). Moved at each release.
pub const RELEASED_AT: Timestamp = Timestamp::from_secs(1_795_910_400); // 2026-11-29T00:00:00Z

/// A wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since 1970.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time plus `millis` (which may be negative), saturating.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; negative if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time as a `SystemTime`, for libraries.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// From a library's `SystemTime`; times before 1970 become 1970.
    pub fn from_system_time(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// The time that `Display` writes for this one: it covers the years from 1970 to 9999.
    pub(crate) fn shown(self) -> Self {
        const LAST_MILLIS: i64 = 253_402_300_799_000;
        Self(self.0.clamp(0, LAST_MILLIS))
    }

    /// Parses the output of `Display`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        rfc3339::parse(text).map(Self)
    }
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-24T08:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc3339::write(self.shown().0, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse_rfc3339(&text).ok_or_else(|| de::Error::custom("not an RFC 3339 time"))
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, for comparison with expiry times. It may be stepped in either direction.
    pub wall: Timestamp,
    /// Milliseconds on the steady clock, which never goes back and stands still while the machine sleeps.
    pub steady_ms: u64,
}

/// A point in time on both clocks, which has come once either clock has reached it. So neither a suspended machine
/// (its steady clock stood still) nor a wall clock that was stepped back appears to have time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// On the wall clock.
    pub wall: Timestamp,
    /// On the steady clock, in milliseconds.
    pub steady_ms: u64,
}

impl Due {
    /// The point `millis` after `from`.
    pub fn after(from: Moment, millis: u64) -> Self {
        Self { wall: from.wall, steady_ms: from.steady_ms }.plus(millis)
    }

    /// The point at which the wall clock shows `wall`, seen from `now`.
    pub fn at(wall: Timestamp, now: Moment) -> Self {
        let left = u64::try_from(wall.millis_since(now.wall)).unwrap_or(0);
        Self { wall, steady_ms: now.steady_ms.saturating_add(left) }
    }

    /// The point `millis` after this one.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        let wall = self.wall.plus_millis(i64::try_from(millis).unwrap_or(i64::MAX));
        Self { wall, steady_ms: self.steady_ms.saturating_add(millis) }
    }

    /// The earlier of the two, on each clock.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        let (wall, steady_ms) = (self.wall.min(other.wall), self.steady_ms.min(other.steady_ms));
        Self { wall, steady_ms }
    }

    /// The later of the two, on each clock.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        let (wall, steady_ms) = (self.wall.max(other.wall), self.steady_ms.max(other.steady_ms));
        Self { wall, steady_ms }
    }

    /// True once it has come.
    pub fn reached(self, now: Moment) -> bool {
        self.left_ms(now) == 0
    }

    /// The milliseconds until it comes.
    pub fn left_ms(self, now: Moment) -> u64 {
        let by_wall = u64::try_from(self.wall.millis_since(now.wall)).unwrap_or(0);
        by_wall.min(self.steady_ms.saturating_sub(now.steady_ms))
    }
}

/// Hands out [`Moment`]s. Cloning shares the source.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// The system's clocks; the steady one counts from here.
    System(Instant),
    Other(Arc<dyn Fn() -> Moment + Send + Sync>),
}

impl Clock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the system's clocks")]
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that reads `source`, for tests.
    pub fn from_fn(source: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self(Source::Other(Arc::new(source)))
    }

    /// Both clocks now.
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System(origin) => Moment {
                wall: system_wall(),
                steady_ms: u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            Source::Other(source) => source(),
        }
    }

    /// The wall clock now.
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System(_) => system_wall(),
            Source::Other(source) => source().wall,
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(..)")
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one door to the system's clocks")]
fn system_wall() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

/// A deadline on the system's steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The point `allowed` from now.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the system's clocks")]
    pub fn after(allowed: Duration) -> Self {
        let now = Instant::now();
        // A time too far away for `Instant` becomes about a year.
        Self(now.checked_add(allowed).unwrap_or(now + Duration::from_hours(24 * 365)))
    }

    /// The time left, zero once it has passed.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the system's clocks")]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// True if no time is left.
    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Measures a duration, for the log and for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a measurement.
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the system's clocks")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The second of its start on the steady clock, from an arbitrary base.
    pub fn second(self) -> u64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one door to the system's clocks"
        )]
        static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.0.saturating_duration_since(*BASE).as_secs()
    }

    /// The lead of the wall clock over this point on the steady clock, which must be now, from an arbitrary base. It
    /// changes when one of them jumps: the steady clock stands still while the machine sleeps.
    pub fn wall_lead_ms(self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one door to the system's clocks"
        )]
        static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
        let wall = system_wall();
        let steady = self.0.saturating_duration_since(*BASE).as_millis();
        wall.as_millis().saturating_sub(i64::try_from(steady).unwrap_or(i64::MAX))
    }

    /// A stopwatch that started so much later.
    #[cfg(test)]
    pub fn later(self, by: Duration) -> Self {
        Self(self.0 + by)
    }

    /// The time from its start to that of `later`.
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_duration_since(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_and_read_back() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_478_400_123, "2026-11-24T00:00:00.123Z"),
            (-5, "1970-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.000Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
        assert_eq!(
            Timestamp::parse_rfc3339("2026-11-24T00:00:00.123Z"),
            Some(Timestamp::from_millis(1_795_478_400_123))
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_deadline_of_ages_does_not_overflow() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
        assert!(Deadline::after(Duration::ZERO).has_passed());
    }
}
