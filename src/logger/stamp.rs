//! The time of a line. Its part up to the second is made once a second. Pure.

use std::fmt::Write;

use crate::clock::Timestamp;

/// The length of `.123Z`.
const FRACTION_BYTES: usize = 5;

/// The text of the second in which the last line was made.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    /// Before the first line.
    pub(super) const NEW: Self = Self { second: None, text: String::new() };

    /// Appends `now` to `line`, as its `Display` writes it.
    pub(super) fn append(&mut self, now: Timestamp, line: &mut String) {
        let millis = now.shown().as_millis();
        let second = millis / 1000;
        if self.second != Some(second) {
            self.text.clear();
            let _ = write!(self.text, "{now}");
            self.text.truncate(self.text.len() - FRACTION_BYTES);
            self.second = Some(second);
        }
        line.push_str(&self.text);
        push_fraction(line, u32::try_from(millis % 1000).unwrap_or(0));
        line.push('Z');
    }
}

/// Appends `.007` for 7 milliseconds.
pub(crate) fn push_fraction(text: &mut String, millis: u32) {
    text.push('.');
    // With a digit before them, they are three.
    text.push_str(&itoa::Buffer::new().format(1000 + millis % 1000)[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_written_as_by_display() {
        let mut stamp = Stamp::default();
        for millis in [
            1_795_478_400_123,
            1_795_478_400_999,
            1_795_478_401_000,
            1_795_478_400_007,
            0,
            -1,
            i64::MIN,
            253_402_300_798_999,
            253_402_300_799_000,
            253_402_300_799_500,
            i64::MAX,
        ] {
            let (now, mut line) = (Timestamp::from_millis(millis), String::new());
            stamp.append(now, &mut line);
            assert_eq!(line, now.to_string(), "{millis}");
        }
    }
}
