//! The one log line of an exchange, made only of safe fields.

use std::fmt;
use std::time::Duration;

use log::{Level, log};

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
            "{self}"
        );
    }
}

/// In whole milliseconds, as in the text: more would be noise.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// Writes `text` with control characters, quotes and what is not ASCII escaped. Most texts hold none, and are written at
/// once instead of by character.
fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    if text.bytes().all(is_plain) {
        return f.write_str(text);
    }
    write!(f, "{}", text.escape_default())
}

/// Writes seconds, rounded to milliseconds, in whole numbers: a fraction takes three times the instructions.
fn to_milliseconds(f: &mut fmt::Formatter<'_>, time: Duration) -> fmt::Result {
    let rounded = time.saturating_add(Duration::from_micros(500));
    write!(f, "{}.{:03}", rounded.as_secs(), rounded.subsec_millis())
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(f, self.method)?;
        f.write_str(" ")?;
        escaped(f, self.path)?;
        f.write_str(" -> ")?;
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("nothing")?,
        }
        if let Some(provider) = self.provider {
            write!(f, " from {provider}")?;
        }
        if let Some(key) = self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ", {} B in, {} B out", self.received_bytes, self.sent_bytes)?;
        if let Some(first_byte) = self.first_byte {
            f.write_str(", head after ")?;
            to_milliseconds(f, first_byte)?;
            f.write_str(" s")?;
        }
        f.write_str(", ")?;
        to_milliseconds(f, self.total)?;
        f.write_str(" s in all")?;
        if self.attempts > 1 {
            write!(f, ", sent {} times", self.attempts)?;
        }
        if let Some(code) = self.refused {
            write!(f, ", refused here: {code}")?;
        }
        self.cut.map_or(Ok(()), |cut| write!(f, ", cut off: {cut}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            summary.to_string(),
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
            refused.to_string(),
            "POST /v1/messages -> 403, key ci, 345 B in, 12 B out, 1.500 s in all, refused here: login_needed"
        );
        (refused.status, refused.refused, refused.key) = (None, None, None);
        assert_eq!(
            refused.to_string(),
            "POST /v1/messages -> nothing, 345 B in, 12 B out, 1.500 s in all"
        );
    }

    /// Something that a function writes.
    struct Written<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Written<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    #[test]
    fn each_character_is_escaped_as_by_the_library() {
        for character in (0..0x300).filter_map(char::from_u32) {
            for text in [format!("/a{character}b"), character.to_string()] {
                let written = Written(|f: &mut fmt::Formatter<'_>| escaped(f, &text)).to_string();
                assert_eq!(written, text.escape_default().to_string());
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
            let written = Written(|f: &mut fmt::Formatter<'_>| to_milliseconds(f, time));
            assert_eq!(written.to_string(), expected);
        }
    }

    #[test]
    fn times_as_fields() {
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.234).abs() < 1e-9);
        assert!(seconds(Duration::MAX) > 0.0);
    }
}
