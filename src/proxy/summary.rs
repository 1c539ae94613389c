//! The one log line of an exchange, made only of safe fields.

use std::time::Duration;

use log::{Level, log, log_enabled};
use memchr::memchr3;

use crate::logger::{self, push_fraction, with_text};
use crate::swar::is_printable_ascii;

/// The facts about an exchange that can't hold a secret (no query, no header).
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The provider's name; None for the proxy's own answers.
    pub provider: Option<&'a str>,
    /// The name of the client's key; None without one.
    pub key: Option<&'a str>,
    /// The status that was sent; None if the client had gone before.
    pub status: Option<u16>,
    /// Body bytes from the client.
    pub received_bytes: u64,
    /// Body bytes sent to the client.
    pub sent_bytes: u64,
    /// From the request head to the response head.
    pub first_byte: Option<Duration>,
    /// From the request head to the end.
    pub total: Duration,
    /// The number of times that the request was sent.
    pub attempts: u32,
    /// The reason for evertoken's own answer, if it answered instead of the provider.
    pub refused: Option<&'a str>,
    /// The reason for an early end, if there was one.
    pub cut: Option<&'a str>,
}

impl Summary<'_> {
    /// Writes the line, with its facts as fields beside it.
    pub(crate) fn log(&self, level: Level) {
        if !log_enabled!(level) || logger::write_text(level, |text| self.write(text)) {
            return;
        }
        with_text(|text| {
            self.write(text);
            log!(
                level,
                method = self.method,
                path = self.path,
                provider = self.provider,
                key = self.key,
                status = self.status,
                received_bytes = self.received_bytes,
                sent_bytes = self.sent_bytes,
                time_to_first_byte_seconds = self.first_byte.map(seconds),
                duration_seconds = seconds(self.total),
                attempts = self.attempts,
                refused = self.refused,
                cut = self.cut;
                "{text}"
            );
        });
    }

    /// Appends the text of the line. Its parts are joined here instead of by a `Display`, whose machinery takes three
    /// times the instructions.
    fn write(&self, text: &mut String) {
        let mut number = itoa::Buffer::new();
        escape(text, self.method);
        text.push(' ');
        escape(text, self.path);
        text.push_str(" -> ");
        text.push_str(self.status.map_or("nothing", |status| number.format(status)));
        // Part by part rather than by a closure: a copy of a known length is no call.
        if let Some(provider) = self.provider {
            text.push_str(" from ");
            text.push_str(provider);
        }
        if let Some(key) = self.key {
            text.push_str(", key ");
            text.push_str(key);
        }
        text.push_str(", ");
        text.push_str(number.format(self.received_bytes));
        text.push_str(" B in, ");
        text.push_str(number.format(self.sent_bytes));
        text.push_str(" B out");
        if let Some(first_byte) = self.first_byte {
            text.push_str(", head after ");
            push_seconds(text, first_byte);
            text.push_str(" s");
        }
        text.push_str(", ");
        push_seconds(text, self.total);
        text.push_str(" s in all");
        if self.attempts > 1 {
            text.push_str(", sent ");
            text.push_str(number.format(self.attempts));
            text.push_str(" times");
        }
        let mut add = |before: &str, reason: Option<&str>| {
            if let Some(reason) = reason {
                text.push_str(before);
                text.push_str(reason);
            }
        };
        add(", refused here: ", self.refused);
        add(", cut off: ", self.cut);
    }
}

/// In whole milliseconds, as in the text: more would be noise.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// Appends `part` with control characters, quotes and what is not ASCII escaped. Most texts hold none, and are appended at
/// once instead of by character.
fn escape(text: &mut String, part: &str) {
    let bytes = part.as_bytes();
    if is_printable_ascii(bytes) && memchr3(b'"', b'\'', b'\\', bytes).is_none() {
        text.push_str(part);
    } else {
        text.extend(part.escape_default());
    }
}

/// Appends seconds, rounded to milliseconds, such as `0.012`.
fn push_seconds(text: &mut String, time: Duration) {
    let rounded = time.saturating_add(Duration::from_micros(500));
    text.push_str(itoa::Buffer::new().format(rounded.as_secs()));
    push_fraction(text, rounded.subsec_millis());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(summary: &Summary<'_>) -> String {
        let mut text = String::new();
        summary.write(&mut text);
        text
    }

    #[test]
    fn lines() {
        let summary = Summary {
            method: "POST",
            path: "/v1/messages",
            provider: Some("P"),
            key: None,
            status: Some(200),
            received_bytes: 345,
            sent_bytes: 12,
            first_byte: Some(Duration::from_millis(5)),
            total: Duration::from_millis(1500),
            attempts: 2,
            refused: None,
            cut: Some("the client went away"),
        };
        assert_eq!(
            text(&summary),
            "POST /v1/messages -> 200 from P, 345 B in, 12 B out, head after 0.005 s, 1.500 s in all, \
             sent 2 times, cut off: the client went away"
        );
        let mut refused = Summary {
            provider: None,
            key: Some("ci"),
            status: Some(403),
            first_byte: None,
            attempts: 0,
            refused: Some("login_needed"),
            cut: None,
            ..summary
        };
        assert_eq!(
            text(&refused),
            "POST /v1/messages -> 403, key ci, 345 B in, 12 B out, 1.500 s in all, refused here: login_needed"
        );
        (refused.status, refused.refused, refused.key) = (None, None, None);
        assert_eq!(
            text(&refused),
            "POST /v1/messages -> nothing, 345 B in, 12 B out, 1.500 s in all"
        );
    }

    #[test]
    fn each_character_is_escaped_as_by_the_library() {
        for character in (0..0x300).filter_map(char::from_u32) {
            for part in [format!("/a{character}b"), character.to_string()] {
                let mut text = "x".to_owned();
                escape(&mut text, &part);
                assert_eq!(text, format!("x{}", part.escape_default()));
            }
        }
    }

    #[test]
    fn times_are_rounded_to_milliseconds() {
        for (time, expected) in [
            (Duration::ZERO, "0.000"),
            (Duration::from_nanos(499_999), "0.000"),
            (Duration::from_micros(500), "0.001"),
            (Duration::from_micros(1_234_567), "1.235"),
            (Duration::from_micros(999_499), "0.999"),
            (Duration::from_micros(999_500), "1.000"),
            (Duration::from_millis(3_600_050), "3600.050"),
        ] {
            let mut text = String::new();
            push_seconds(&mut text, time);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn times_as_fields() {
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.234).abs() < 1e-9);
        assert!(seconds(Duration::MAX) > 0.0);
    }
}
