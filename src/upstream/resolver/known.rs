//! The knowledge about a name: the addresses of each family, their age, and the questions in progress. Pure.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Stopwatch;

/// The time for which an answer is used without asking again.
pub(super) const FRESH_FOR: Duration = Duration::from_mins(1);
/// The time for which an answer is used while there is no newer one.
pub(super) const OLD_MAX: Duration = Duration::from_hours(1);
/// The time between a failed try and the next, if an old answer serves meanwhile.
pub(super) const RETRY_GAP: Duration = Duration::from_secs(5);
/// The longest wait of an IPv4 answer for the IPv6 one (RFC 8305 §3).
pub(super) const SECOND_ANSWER_MAX: Duration = Duration::from_millis(50);
/// The time for which the last working family is tried first.
pub(super) const FAMILY_FOR: Duration = Duration::from_mins(10);
/// The most addresses of a name and family that are kept.
const ADDRESSES_MAX: usize = 8;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`.
    pub(in crate::upstream) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn other(self) -> Self {
        if self == Self::V4 { Self::V6 } else { Self::V4 }
    }
}

/// The system resolver's answer for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupReply {
    /// The addresses, at least one.
    Addresses(Vec<IpAddr>),
    /// The name has no address of this family, or does not exist.
    Nothing,
    /// No server answered, or the name server failed.
    Failed,
}

/// The next step for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Use these.
    Use(Vec<IpAddr>),
    /// Wait for an answer, within a limit if there is one.
    Wait(Option<Duration>),
    /// The name has no addresses.
    Unknown,
    /// No server answered.
    Unanswered,
}

/// A name.
#[derive(Debug, Default)]
pub(super) struct Name {
    v4: Half,
    v6: Half,
    /// The family of the last connection, and its time.
    worked: Option<(Family, Stopwatch)>,
    /// True if none of the addresses could be connected to, so that they may be outdated.
    is_doubted: bool,
}

/// The knowledge about one family.
#[derive(Debug, Default)]
struct Half {
    addresses: Vec<IpAddr>,
    /// The time when the resolver last confirmed `addresses`.
    answered: Option<Stopwatch>,
    /// The time of the last try, with or without an answer.
    tried: Option<Stopwatch>,
    is_asked: bool,
    /// True if the last try brought no answer.
    has_failed: bool,
}

impl Name {
    fn half(&self, family: Family) -> &Half {
        if family == Family::V4 { &self.v4 } else { &self.v6 }
    }

    fn half_mut(&mut self, family: Family) -> &mut Half {
        if family == Family::V4 { &mut self.v4 } else { &mut self.v6 }
    }

    /// The families to ask for, which from now on count as being asked for.
    pub(super) fn ask(&mut self, now: Stopwatch) -> Vec<Family> {
        let serves = !self.addresses(now).is_empty();
        // While one family is still being asked for, the answer that the other has none stands.
        let is_suspect = self.is_doubted || !serves && !self.is_asked();
        let mut wanted = Vec::new();
        for family in Family::BOTH {
            let half = self.half_mut(family);
            if half.is_due(now, serves, is_suspect) {
                half.is_asked = true;
                wanted.push(family);
            }
        }
        self.is_doubted &= wanted.is_empty();
        wanted
    }

    /// Takes the resolver's answer for `family`.
    pub(super) fn answer(&mut self, family: Family, reply: LookupReply, now: Stopwatch) {
        let other_serves = !self.half(family.other()).addresses.is_empty();
        let half = self.half_mut(family);
        half.is_asked = false;
        half.tried = Some(now);
        half.has_failed = reply == LookupReply::Failed;
        match reply {
            LookupReply::Addresses(mut addresses) => {
                addresses.truncate(ADDRESSES_MAX);
                half.addresses = addresses;
                half.answered = Some(now);
            }
            // If a name vanishes altogether, the name server is mostly cut off itself.
            LookupReply::Nothing if other_serves || half.addresses.is_empty() => {
                half.addresses.clear();
                half.answered = Some(now);
            }
            LookupReply::Nothing | LookupReply::Failed => {}
        }
    }

    /// The next step.
    pub(super) fn verdict(&self, now: Stopwatch) -> Verdict {
        let addresses = self.addresses(now);
        if addresses.is_empty() {
            return match self.v4.has_failed || self.v6.has_failed {
                _ if self.is_asked() => Verdict::Wait(None),
                true => Verdict::Unanswered,
                false => Verdict::Unknown,
            };
        }
        let waits = self.v6.is_asked && self.v6.tried.is_none();
        let since = self.v4.answered.filter(|_| waits && self.v6.addresses.is_empty());
        match since.map(|since| SECOND_ANSWER_MAX.saturating_sub(since.until(now))) {
            Some(left) if !left.is_zero() => Verdict::Wait(Some(left)),
            _ => Verdict::Use(addresses),
        }
    }

    /// The usable addresses.
    pub(super) fn addresses(&self, now: Stopwatch) -> Vec<IpAddr> {
        let young = |half: &&Half| half.answered.is_some_and(|at| at.until(now) < OLD_MAX);
        let halves = [&self.v6, &self.v4].into_iter().filter(young);
        halves.flat_map(|half| half.addresses.iter().copied()).collect()
    }

    /// True if an answer is on its way.
    pub(super) fn is_asked(&self) -> bool {
        self.v4.is_asked || self.v6.is_asked
    }

    /// A connection was made to an address of `family`.
    pub(super) fn note_success(&mut self, family: Family, now: Stopwatch) {
        self.worked = Some((family, now));
    }

    /// No connection could be made: the next request for one asks the resolver, whatever the age of the answer.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
        self.worked = None;
    }

    /// The family to begin with.
    pub(super) fn first_family(&self, now: Stopwatch) -> Option<Family> {
        let (family, since) = self.worked?;
        (since.until(now) < FAMILY_FOR).then_some(family)
    }

    /// True if nothing of it is useful any more.
    pub(super) fn is_over(&self, now: Stopwatch) -> bool {
        !self.is_asked() && self.addresses(now).is_empty()
    }
}

impl Half {
    /// True if the resolver should be asked, where `serves` says that the name has an answer; if it `is_suspect`,
    /// whatever the answer's age.
    fn is_due(&self, now: Stopwatch, serves: bool, is_suspect: bool) -> bool {
        let older = |at: Option<Stopwatch>, age| at.is_none_or(|at| at.until(now) >= age);
        let is_old = is_suspect || older(self.answered, FRESH_FOR);
        !self.is_asked && is_old && (!serves || older(self.tried, RETRY_GAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn list(texts: &str) -> Vec<IpAddr> {
        texts.split(' ').map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &str) -> LookupReply {
        LookupReply::Addresses(list(texts))
    }

    fn usable(texts: &str) -> Verdict {
        Verdict::Use(list(texts))
    }

    /// A name with an IPv4 address and no IPv6 one, both answered just now.
    fn known(now: Stopwatch) -> Name {
        let mut name = Name::default();
        assert_eq!(name.ask(now), [V4, V6]);
        name.answer(V4, addresses("192.0.2.1"), now);
        name.answer(V6, LookupReply::Nothing, now);
        name
    }

    #[test]
    fn an_ipv4_answer_waits_for_the_ipv6_one_for_a_moment() {
        let start = Stopwatch::start();
        let mut name = Name::default();
        name.ask(start);
        assert_eq!(name.verdict(start), Verdict::Wait(None));
        name.answer(V4, addresses("192.0.2.1"), start);
        assert_eq!(name.verdict(start), Verdict::Wait(Some(SECOND_ANSWER_MAX)));
        let late = start.later(SECOND_ANSWER_MAX.saturating_sub(NANOSECOND));
        assert_eq!(name.verdict(late), Verdict::Wait(Some(NANOSECOND)));
        assert_eq!(name.verdict(start.later(SECOND_ANSWER_MAX)), usable("192.0.2.1"));
        name.answer(V6, addresses("2001:db8::1"), start);
        assert_eq!(name.verdict(start), usable("2001:db8::1 192.0.2.1"));
    }

    #[test]
    fn an_ipv6_answer_waits_for_nobody_and_a_missing_one_holds_nobody_up() {
        let start = Stopwatch::start();
        let mut name = Name::default();
        name.ask(start);
        name.answer(V6, addresses("2001:db8::1"), start);
        assert_eq!(name.verdict(start), usable("2001:db8::1"));
        assert_eq!(known(start).verdict(start), usable("192.0.2.1"));
    }

    #[test]
    fn an_answer_is_fresh_then_old_and_then_none() {
        let start = Stopwatch::start();
        for (age, asks, serves) in [
            (FRESH_FOR.saturating_sub(NANOSECOND), false, true),
            (FRESH_FOR, true, true),
            (OLD_MAX.saturating_sub(NANOSECOND), true, true),
            (OLD_MAX, true, false),
        ] {
            let mut name = known(start);
            let now = start.later(age);
            assert_eq!(!name.ask(now).is_empty(), asks, "{age:?}");
            let expected = if serves { usable("192.0.2.1") } else { Verdict::Wait(None) };
            assert_eq!(name.verdict(now), expected, "{age:?}");
            assert!(name.ask(now).is_empty(), "it is being asked for");
        }
    }

    #[test]
    fn a_silent_resolver_is_asked_again_after_a_while_and_at_once_where_nothing_serves() {
        let start = Stopwatch::start();
        let mut name = known(start);
        let mut now = start.later(FRESH_FOR);
        for family in name.ask(now) {
            name.answer(family, LookupReply::Failed, now);
        }
        assert_eq!(name.verdict(now), usable("192.0.2.1"));
        now = now.later(RETRY_GAP.saturating_sub(NANOSECOND));
        assert!(name.ask(now).is_empty());
        assert_eq!(name.ask(now.later(NANOSECOND)), [V4, V6]);
        let mut unknown = Name::default();
        for _ in 0..2 {
            for family in unknown.ask(start) {
                unknown.answer(family, LookupReply::Failed, start);
            }
            assert_eq!(unknown.verdict(start), Verdict::Unanswered);
        }
        assert_eq!(unknown.ask(start), [V4, V6]);
        unknown.answer(V4, LookupReply::Nothing, start);
        unknown.answer(V6, LookupReply::Failed, start);
        assert_eq!(unknown.verdict(start), Verdict::Unanswered, "it may have an IPv6 address");
        unknown.answer(V6, LookupReply::Nothing, start);
        assert_eq!(unknown.verdict(start), Verdict::Unknown);
    }

    #[test]
    fn a_family_without_addresses_is_not_asked_for_again_while_the_other_is() {
        let start = Stopwatch::start();
        let mut name = Name::default();
        name.ask(start);
        name.answer(V6, LookupReply::Nothing, start);
        assert!(name.ask(start).is_empty());
        assert_eq!(name.ask(start.later(FRESH_FOR)), [V6]);
        name.answer(V6, LookupReply::Failed, start.later(FRESH_FOR));
        assert_eq!(name.ask(start.later(FRESH_FOR)), [V6], "nobody has told");
        name.answer(V6, LookupReply::Nothing, start);
        name.answer(V4, LookupReply::Nothing, start);
        assert_eq!(name.ask(start), [V4, V6], "the next request asks anew");
    }

    #[test]
    fn one_family_may_vanish_but_a_name_that_vanishes_is_not_believed() {
        let start = Stopwatch::start();
        let mut both = known(start);
        both.answer(V6, addresses("2001:db8::1"), start);
        both.answer(V4, LookupReply::Nothing, start);
        assert_eq!(both.verdict(start), usable("2001:db8::1"));
        both.answer(V6, LookupReply::Nothing, start);
        assert_eq!(both.verdict(start), usable("2001:db8::1"));
        assert_eq!(both.verdict(start.later(OLD_MAX)), Verdict::Unknown);
    }

    #[test]
    fn addresses_that_nobody_could_connect_to_are_asked_for_again_however_fresh() {
        let start = Stopwatch::start();
        let mut name = known(start);
        name.note_success(V4, start);
        let now = start.later(RETRY_GAP);
        assert!(name.ask(now).is_empty());
        name.doubt();
        assert_eq!(name.first_family(now), None);
        assert_eq!(name.ask(now), [V4, V6]);
        assert_eq!(name.verdict(now), usable("192.0.2.1"), "they serve meanwhile");
        name.answer(V4, addresses("192.0.2.2"), now);
        name.answer(V6, LookupReply::Nothing, now);
        assert_eq!(name.verdict(now), usable("192.0.2.2"));
        assert!(name.ask(now.later(RETRY_GAP)).is_empty());
    }

    #[test]
    fn the_family_that_worked_is_remembered_for_a_while() {
        let start = Stopwatch::start();
        let mut name = known(start);
        assert_eq!(name.first_family(start), None);
        name.note_success(V4, start);
        let almost = start.later(FAMILY_FOR.saturating_sub(NANOSECOND));
        assert_eq!(name.first_family(almost), Some(V4));
        assert_eq!(name.first_family(start.later(FAMILY_FOR)), None);
    }

    #[test]
    fn a_few_addresses_of_each_family_are_kept() {
        let start = Stopwatch::start();
        let mut name = known(start);
        let many = |count: usize| {
            LookupReply::Addresses((0..count).map(|_| IpAddr::from([192, 0, 2, 7])).collect())
        };
        for (told, kept) in [(ADDRESSES_MAX, ADDRESSES_MAX), (ADDRESSES_MAX + 1, ADDRESSES_MAX)] {
            name.answer(V4, many(told), start);
            assert_eq!(name.addresses(start).len(), kept);
        }
    }
}
