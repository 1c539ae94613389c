//! The rate-limit fields of an answer, as windows: how much of each is left, and when it is full again. Pure.
//!
//! Whatever a field says that can't be right (a negative number, a time in the past, another unit) is passed over,
//! and leaves the window without that value.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::http::message::Headers;

mod draft;
pub(crate) mod glance;
mod part;
mod values;

use part::{Part, UNNAMED};
pub(crate) use values::RESET_MAX;
pub(super) use values::parse_duration;
use values::{Reset, count, percent, reset_after, reset_at};

/// The most windows of one answer, and of one provider; further ones are passed over.
pub(crate) const WINDOWS_MAX: usize = 12;
/// The longest name of a window, because names become labels of metrics; longer ones are passed over.
pub(crate) const NAME_MAX_BYTES: usize = 32;
/// Anthropic's summary of its 5-hour and weekly windows, if it does not say which of them it is about.
const UNIFIED: &[u8] = b"unified";
/// Anthropic's extra usage, which is paid for and often turned off.
const OVERAGE: &[u8] = b"overage";
/// Parts of the names of windows that an API has for each model: `requests`, `input-tokens`, `tokens-minute`.
const OF_MODEL: [&[u8]; 4] = [b"requests", b"tokens", b"images", b"audio"];
/// The windows of a `ChatGPT` subscription that limit all of its requests.
const CODEX_MAIN: [&[u8]; 2] = [b"primary", b"secondary"];

/// The requests that a window limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// All requests of the account.
    Account,
    /// Those for a family of models, which the window's name has after its `_`: `7d_opus`.
    Family,
    /// Those for the model that was asked for, because an API has limits for each of its models.
    Model,
    /// Some requests, but evertoken does not know which: the window is shown, and decides nothing.
    Unknown,
}

/// One window, as an answer states it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading<'a> {
    /// Its name, with the case of the field.
    pub name: &'a [u8],
    /// The requests that it limits.
    pub scope: Scope,
    /// The share that is left, from 0 to 1, if the answer says it.
    pub remaining_ratio: Option<f64>,
    /// The time of its reset, if the answer says a usable one.
    pub reset_at: Option<Timestamp>,
    /// The time until which the window, which is used up, has nothing for further requests; None if something is
    /// left, or its reset has passed.
    pub used_up_until: Option<Timestamp>,
}

impl Reading<'_> {
    /// True if it says no more than that something is left.
    pub(crate) fn is_bare(&self) -> bool {
        self.remaining_ratio.is_none() && self.reset_at.is_none() && self.used_up_until.is_none()
    }
}

/// The time for which a window without a reset counts as used up.
const UNKNOWN_RESET_MS: i64 = 60_000;

/// The windows that an answer states.
pub(crate) fn read(headers: &Headers, now: Timestamp) -> Vec<Reading<'_>> {
    let mut draft = Draft::new(now);
    let fields = headers.iter().filter_map(|(name, value)| Some((kind(name)?, value)));
    fields.for_each(|field| draft.add(field));
    draft.finish()
}

/// The time until the latest reset of a window that is used up, of a provider that refused a request. Extra usage
/// adds to the other windows, so its end is none of theirs.
pub(crate) fn reset(headers: &Headers, now: Timestamp) -> Option<Duration> {
    let readings = read(headers, now);
    let used_up = readings.iter().filter(|one| one.used_up_until.is_some() && one.name != OVERAGE);
    let until = used_up.filter_map(|one| one.reset_at).max()?;
    u64::try_from(until.millis_since(now)).ok().map(Duration::from_millis)
}

/// True if the fields of a refusal say which limit it was, and that limit is one of the model that was asked for.
pub(crate) fn is_of_model(headers: &Headers, now: Timestamp) -> bool {
    let readings = read(headers, now);
    let mut used_up = readings.iter().filter(|one| one.used_up_until.is_some()).peekable();
    used_up.peek().is_some() && used_up.all(|one| one.scope == Scope::Model)
}

/// True if Anthropic says that the account of a subscription may go on.
pub(crate) fn is_allowed(headers: &Headers) -> bool {
    let status = headers.first("anthropic-ratelimit-unified-status");
    status.is_some_and(|status| status.starts_with(b"allowed"))
}

/// A field about rate limits, by the family of its name; the rest of the name goes with it.
#[derive(Clone, Copy)]
enum Kind<'a> {
    /// `anthropic-ratelimit-…`.
    Anthropic(&'a [u8]),
    /// `x-ratelimit-…`, `x-rate-limit-…` and `ratelimit-…`.
    Plain(&'a [u8]),
    /// `x-codex-…`.
    Codex(&'a [u8]),
    /// `ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers).
    Draft,
}

/// The kind of the field called `name`; None for the others, which are most.
#[inline]
fn kind(name: &[u8]) -> Option<Kind<'_>> {
    match name.first()? | 0x20 {
        b'a' => strip(name, b"anthropic-ratelimit-").map(Kind::Anthropic),
        b'x' => of_x(name.get(2..)?),
        b'r' => {
            let rest = strip(name, b"ratelimit")?;
            if rest.is_empty() || rest.eq_ignore_ascii_case(b"-policy") {
                return Some(Kind::Draft);
            }
            strip(rest, b"-").map(Kind::Plain)
        }
        _ => None,
    }
}

fn of_x(name: &[u8]) -> Option<Kind<'_>> {
    let plain = strip(name, b"ratelimit-").or_else(|| strip(name, b"rate-limit-"));
    plain.map(Kind::Plain).or_else(|| strip(name, b"codex-").map(Kind::Codex))
}

/// The rest of `name` after `prefix`, whatever its case.
#[inline]
fn strip<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The rest of `name` before `suffix`, whatever its case.
fn strip_end<'a>(name: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let (rest, end) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    end.eq_ignore_ascii_case(suffix).then_some(rest)
}

/// The requests that a window called `name` of an API limits.
fn scope_of(name: &[u8]) -> Scope {
    let holds = |part: &&[u8]| name.windows(part.len()).any(|here| here.eq_ignore_ascii_case(part));
    if OF_MODEL.iter().any(holds) { Scope::Model } else { Scope::Account }
}

/// A window whose fields are still being read.
struct Partial<'a> {
    name: &'a [u8],
    scope: Scope,
    limit: Option<f64>,
    remaining: Option<f64>,
    ratio: Option<f64>,
    reset: Reset,
    is_rejected: Option<bool>,
    /// Credits pay for requests once it is used up.
    is_extended: bool,
}

/// The fields read so far.
struct Draft<'a> {
    now: Timestamp,
    windows: Vec<Partial<'a>>,
    /// The window that Anthropic's summary is about.
    claim: Option<&'a [u8]>,
    is_rejected: Option<bool>,
    unified_reset: Reset,
    /// The part of its API that GitHub counts in the unnamed window.
    resource: Option<&'a [u8]>,
    credits: Credits,
}

/// The credits of a `ChatGPT` account, which pay for requests beyond its subscription.
#[derive(Default)]
struct Credits {
    are_there: bool,
    are_unlimited: bool,
    are_spent: bool,
}

impl<'a> Draft<'a> {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            windows: Vec::new(),
            claim: None,
            is_rejected: None,
            unified_reset: Reset::Unstated,
            resource: None,
            credits: Credits::default(),
        }
    }

    fn add(&mut self, (kind, value): (Kind<'a>, &'a [u8])) {
        let value = value.trim_ascii();
        match kind {
            Kind::Anthropic(rest) => match strip(rest, b"unified-") {
                Some(rest) => self.unified(rest, value),
                None => self.ending(rest, scope_of(rest), value),
            },
            Kind::Plain(rest) => self.plain(rest, value),
            Kind::Codex(rest) => self.codex(rest, value),
            Kind::Draft => {
                let now = self.now;
                draft::parse(value, now, &mut |name, part| self.put(name, Scope::Account, part));
            }
        }
    }

    /// `<window>-<part>`.
    fn ending(&mut self, rest: &'a [u8], scope: Scope, value: &[u8]) {
        let Some(dash) = rest.iter().rposition(|byte| *byte == b'-') else { return };
        if let Some(part) = Part::of(&rest[dash + 1..], value, self.now) {
            self.put(&rest[..dash], scope, part);
        }
    }

    /// Anthropic's limits of a subscription.
    fn unified(&mut self, rest: &'a [u8], value: &'a [u8]) {
        if rest.eq_ignore_ascii_case(b"representative-claim") {
            self.claim = claimed(value);
        } else if !rest.contains(&b'-') {
            match Part::of(rest, value, self.now) {
                Some(Part::Rejected(is_rejected)) => self.is_rejected = Some(is_rejected),
                Some(Part::Remaining(Some(left))) => self.is_rejected = Some(left <= 0.0),
                Some(Part::Reset(at)) => self.unified_reset = at,
                _ => {}
            }
        } else if let Some(part) = strip(rest, OVERAGE) {
            // It is rejected wherever it is turned off, which says nothing about the other windows.
            if !part.eq_ignore_ascii_case(b"-status") {
                self.ending(rest, Scope::Unknown, value);
            }
        } else {
            let scope = if rest.contains(&b'_') { Scope::Family } else { Scope::Account };
            self.ending(rest, scope, value);
        }
    }

    /// `<part>`, `<part>-<window>` or `<window>-<part>`.
    fn plain(&mut self, rest: &'a [u8], value: &'a [u8]) {
        if rest.eq_ignore_ascii_case(b"resource") {
            self.resource = Some(value);
            return;
        }
        if rest.eq_ignore_ascii_case(b"reset-after") {
            return self.put(UNNAMED, Scope::Account, Part::Reset(reset_after(value, self.now)));
        }
        let dash = rest.iter().position(|byte| *byte == b'-').unwrap_or(rest.len());
        let (word, name) = (&rest[..dash], rest.get(dash + 1..).unwrap_or(UNNAMED));
        match Part::of(word, value, self.now) {
            Some(part @ (Part::Limit(_) | Part::Remaining(_) | Part::Reset(_))) => {
                self.put(name, scope_of(name), part);
            }
            _ => self.ending(rest, scope_of(rest), value),
        }
    }

    /// The limits of a `ChatGPT` subscription. Further windows, with a prefix, are those of some models.
    fn codex(&mut self, rest: &'a [u8], value: &[u8]) {
        let found = [&b"-used-percent"[..], b"-reset-at", b"-reset-after-seconds"];
        let found = found.iter().find_map(|end| Some((*end, strip_end(rest, end)?)));
        let Some((end, name)) = found else { return self.credits.add(rest, value) };
        let part = match end {
            b"-used-percent" => Part::Ratio(percent(value).map(|used| 1.0 - used / 100.0)),
            b"-reset-at" => Part::Reset(reset_at(value, self.now)),
            _ => Part::Reset(reset_after(value, self.now)),
        };
        self.put(name, if is_main(name) { Scope::Account } else { Scope::Unknown }, part);
    }

    fn put(&mut self, name: &'a [u8], scope: Scope, part: Part) {
        let Some(window) = self.window(name, scope) else { return };
        match part {
            Part::Limit(limit) => window.limit = limit.or(window.limit),
            Part::Remaining(left) => window.remaining = left.or(window.remaining),
            Part::Ratio(ratio) => window.ratio = ratio.or(window.ratio),
            Part::Reset(reset) => window.reset = window.reset.or(reset),
            Part::Rejected(is_rejected) => window.is_rejected = Some(is_rejected),
        }
    }

    /// The window called `name`; None if its name can't be one, or there are too many.
    fn window(&mut self, name: &'a [u8], scope: Scope) -> Option<&mut Partial<'a>> {
        let known = self.windows.iter().position(|one| one.name.eq_ignore_ascii_case(name));
        if let Some(known) = known {
            return self.windows.get_mut(known);
        }
        if self.windows.len() == WINDOWS_MAX || !is_name(name) {
            return None;
        }
        self.windows.push(Partial {
            name,
            scope,
            limit: None,
            remaining: None,
            ratio: None,
            reset: Reset::Unstated,
            is_rejected: None,
            is_extended: false,
        });
        self.windows.last_mut()
    }

    fn finish(mut self) -> Vec<Reading<'a>> {
        self.apply_summary();
        if let Some(resource) = self.resource.filter(|resource| is_name(resource)) {
            let is_core = resource.eq_ignore_ascii_case(b"core");
            let unnamed = self.windows.iter_mut().filter(|one| one.name == UNNAMED);
            unnamed.for_each(|one| {
                (one.name, one.scope) =
                    (resource, if is_core { Scope::Account } else { Scope::Unknown });
            });
        }
        if self.credits.pay() {
            let main = self.windows.iter_mut().filter(|window| is_main(window.name));
            main.for_each(|window| window.is_extended = true);
        }
        self.windows.iter().filter_map(|window| window.reading(self.now)).collect()
    }

    /// Anthropic's summary counts for the window that it names, unless that window has a status of its own.
    fn apply_summary(&mut self) {
        let Some(is_rejected) = self.is_rejected else { return };
        self.summarize(self.claim.unwrap_or(UNIFIED), is_rejected, self.unified_reset);
        if !is_rejected {
            // An earlier summary may have rejected the account without naming a window.
            self.summarize(UNIFIED, false, Reset::Unstated);
        }
    }

    fn summarize(&mut self, name: &'a [u8], is_rejected: bool, reset: Reset) {
        let scope = if name.contains(&b'_') { Scope::Family } else { Scope::Account };
        if let Some(window) = self.window(name, scope) {
            window.is_rejected = window.is_rejected.or(Some(is_rejected));
            window.reset = window.reset.or(reset);
        }
    }
}

impl Credits {
    /// `credits-<part>`.
    fn add(&mut self, rest: &[u8], value: &[u8]) {
        let is_true = || value.eq_ignore_ascii_case(b"true") || value == b"1";
        match strip(rest, b"credits-") {
            Some(part) if part.eq_ignore_ascii_case(b"has-credits") => self.are_there = is_true(),
            Some(part) if part.eq_ignore_ascii_case(b"unlimited") => self.are_unlimited = is_true(),
            Some(part) if part.eq_ignore_ascii_case(b"balance") => {
                self.are_spent = count(value).is_some_and(|balance| balance <= 0.0);
            }
            _ => {}
        }
    }

    /// True if they pay for the next request.
    fn pay(&self) -> bool {
        self.are_unlimited || self.are_there && !self.are_spent
    }
}

impl<'a> Partial<'a> {
    /// None if its fields say nothing, or there is no such limit.
    fn reading(&self, now: Timestamp) -> Option<Reading<'a>> {
        if self.limit == Some(0.0) {
            return None;
        }
        let counted = self.remaining.map(|left| {
            // Less than one token or request serves nobody; of a limit of one it is a share.
            let is_count = self.limit.is_none_or(|limit| limit > 1.0);
            let is_nothing = left <= 0.0 || is_count && left < 1.0;
            if is_nothing { Some(0.0) } else { self.limit.map(|limit| left / limit) }
        });
        let ratio = counted.flatten().or(self.ratio).map(|ratio| ratio.clamp(0.0, 1.0));
        let says_anything =
            self.remaining.is_some() || ratio.is_some() || self.is_rejected.is_some();
        if !says_anything {
            return None;
        }
        let is_used_up = ratio.is_some_and(|ratio| ratio <= 0.0) || self.is_rejected == Some(true);
        let (reset_at, until) = match self.reset {
            Reset::At(at) => (Some(at), Some(at)),
            Reset::Unstated | Reset::Unusable => (None, Some(now.plus_millis(UNKNOWN_RESET_MS))),
            Reset::Past => (None, None),
        };
        let remaining_ratio = match (is_used_up, self.reset) {
            // A share from before the reset says nothing about the time after it.
            (true, Reset::Past) => None,
            (true, _) => Some(0.0),
            (false, _) => ratio,
        };
        Some(Reading {
            name: self.name,
            scope: self.scope,
            remaining_ratio,
            reset_at,
            used_up_until: until.filter(|_| is_used_up && !self.is_extended),
        })
    }
}

/// True if the window of a `ChatGPT` subscription called `name` limits all of its requests.
fn is_main(name: &[u8]) -> bool {
    CODEX_MAIN.iter().any(|main| name.eq_ignore_ascii_case(main))
}

/// True if a window may be called `name`.
pub(crate) fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.iter().all(is_plain)
}

/// The window that Anthropic's summary names: `five_hour`, `seven_day_opus`.
fn claimed(value: &[u8]) -> Option<&'static [u8]> {
    match value {
        b"five_hour" => Some(b"5h"),
        b"seven_day" => Some(b"7d"),
        b"seven_day_opus" => Some(b"7d_opus"),
        b"seven_day_sonnet" => Some(b"7d_sonnet"),
        b"seven_day_haiku" => Some(b"7d_haiku"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
