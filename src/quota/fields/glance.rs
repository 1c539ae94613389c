//! A first look at the fields of an answer, so that most answers need no closer one. Pure.

use crate::http::message::Headers;

/// The length of `anthropic-ratelimit-unified-`, after which `overage` may follow.
const UNIFIED_BYTES: usize = 28;

/// The result of a first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glance {
    /// The answer states no window.
    Nothing,
    /// It may state windows, all of which have something left.
    SomethingLeft,
    /// A window may be used up.
    MayBeUsedUp,
}

/// Looks at the first bytes of names and values alone, because every answer of a large provider has such fields.
#[inline]
pub(crate) fn glance(headers: &Headers) -> Glance {
    let mut found = Glance::Nothing;
    for (name, value) in headers.iter().filter(|(name, _)| is_about_limits(name)) {
        if may_be_used_up(name, value) {
            return Glance::MayBeUsedUp;
        }
        found = Glance::SomethingLeft;
    }
    found
}

/// True for every field about limits, and few others.
#[inline]
fn is_about_limits(name: &[u8]) -> bool {
    let lower = |index: usize| name[index] | 0x20;
    if name.len() < 9 {
        return false;
    }
    match lower(0) {
        // `anthropic-ratelimit-…`.
        b'a' => name.len() > 20 && lower(10) == b'r' && lower(14) == b'l',
        // `x-rat…`, `x-cod…`.
        b'x' => matches!((lower(2), lower(3), lower(4)), (b'r', b'a', b't') | (b'c', b'o', b'd')),
        // `ratelimit…`.
        b'r' => lower(1) == b'a' && lower(4) == b'l',
        _ => false,
    }
}

/// False if the field certainly does not say that a window is used up.
fn may_be_used_up(name: &[u8], value: &[u8]) -> bool {
    let is_of_anthropic = name[0] | 0x20 == b'a';
    if is_of_anthropic && name.get(UNIFIED_BYTES).is_some_and(|byte| byte | 0x20 == b'o') {
        // Extra usage says nothing about the other windows.
        return false;
    }
    let is_of_codex = name[2] | 0x20 == b'c';
    let end = [name[name.len() - 2] | 0x20, name[name.len() - 1] | 0x20];
    match value.first() {
        // A `utilization` of 1 and more, or a `percent` of 100 and more.
        Some(b'1'..=b'9') => end == *b"on" || end == *b"nt" && value.len() >= 3,
        // Less than one of a number is nothing; a share and percent are told by their fields.
        Some(b'0') => {
            let is_none = || value.iter().all(|byte| matches!(byte, b'0' | b'.'));
            let is_number = || value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
            let counts = end == *b"ng" || !is_of_anthropic && end != *b"nt";
            end != *b"on" && (is_none() || counts && is_number())
        }
        // Its plan and its credits; windows and resets are numbers.
        _ if is_of_codex && name[0] | 0x20 == b'x' => false,
        // `allowed`, and the window that Anthropic's summary is about.
        Some(b'a' | b'f' | b's') => !is_of_anthropic,
        _ => true,
    }
}
