//! The fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers, in its later form
//! (`"default";r=50;t=30`, `"default";q=100;w=60`) and its earlier one (`limit=100, remaining=50, reset=30`). Pure.

use crate::clock::Timestamp;
use crate::quota::fields::part::{Part, UNNAMED};
use crate::quota::fields::values::{count, reset_after};

/// Calls `put` with the name and each part of the windows in `value`.
pub(super) fn parse<'a>(value: &'a [u8], now: Timestamp, put: &mut dyn FnMut(&'a [u8], Part)) {
    for member in split(value, b',') {
        let mut pieces = split(member, b';');
        let Some(head) = pieces.next() else { continue };
        if let Some((key, number)) = pair(head) {
            let part = match key {
                b"limit" => Part::Limit(count(number)),
                b"remaining" => Part::Remaining(count(number)),
                b"reset" => Part::Reset(reset_after(number, now)),
                _ => continue,
            };
            put(UNNAMED, part);
            continue;
        }
        let name = head.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let name = name.unwrap_or(head);
        for (key, number) in pieces.filter_map(pair) {
            match key {
                b"q" => put(name, Part::Limit(count(number))),
                b"r" => put(name, Part::Remaining(count(number))),
                b"t" => put(name, Part::Reset(reset_after(number, now))),
                _ => {}
            }
        }
    }
}

/// `key=value`.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'=').filter(|_| !text.starts_with(b"\""))?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

/// The parts of `text` between the separators that stand outside quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let parts = text.split(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == separator && !is_quoted
    });
    parts.map(<[u8]>::trim_ascii)
}
