//! Reads a JSON text from left to right, with just enough of RFC 8259 to find members and skip values. Pure.

use std::ops::Range;

/// A place in a JSON text, which may be only the beginning of one. Each method returns None where the text is cut or
/// is no JSON.
pub(crate) struct Skimmer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Skimmer<'a> {
    /// The start of a text.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The place in the text, for [`Skimmer::back_to`].
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    /// Goes back to an earlier place.
    pub(crate) fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    /// The rest of the text.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Passes `wanted`, if it is the next byte.
    pub(crate) fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Passes a string, and returns its place, including its quotes.
    pub(crate) fn string(&mut self) -> Option<Range<usize>> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at;
        self.at += 1;
        loop {
            self.at += plain_prefix(self.bytes.get(self.at..)?);
            match self.bytes.get(self.at)? {
                b'"' => break,
                _ => self.at += 2,
            }
        }
        self.at += 1;
        Some(start..self.at)
    }

    /// The key of the next member of an object, with the colon passed.
    pub(crate) fn key(&mut self) -> Option<Range<usize>> {
        let key = self.string()?;
        self.expect(b':')?;
        Some(key)
    }

    /// The bytes between the quotes of the string at `place`, escapes as they are.
    pub(crate) fn raw(&self, place: &Range<usize>) -> &'a [u8] {
        &self.bytes[place.start + 1..place.end - 1]
    }

    /// The string at `place`; None if it is no valid one.
    pub(crate) fn text(&self, place: &Range<usize>) -> Option<String> {
        serde_json::from_slice(&self.bytes[place.clone()]).ok()
    }

    /// True if the string at `place` is `wanted`, however it is escaped.
    pub(crate) fn is(&self, place: &Range<usize>, wanted: &str) -> bool {
        let raw = self.raw(place);
        raw == wanted.as_bytes()
            || (raw.contains(&b'\\') && self.text(place).as_deref() == Some(wanted))
    }

    /// Passes a value of any kind.
    pub(crate) fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => self.skip_word()?,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Passes a number, `true`, `false` or `null`.
    pub(crate) fn skip_word(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.bytes.get(self.at)?, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')
        {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// The number of bytes at the start of `bytes` that neither end a string nor escape a character.
fn plain_prefix(bytes: &[u8]) -> usize {
    // A step that the compiler checks at once: the strings of large bodies are long.
    const STEP: usize = 32;
    let is_special = |byte: &u8| *byte == b'"' || *byte == b'\\';
    let (steps, _) = bytes.as_chunks::<STEP>();
    let is_plain =
        |step: &&[u8; STEP]| !step.iter().fold(false, |found, byte| found | is_special(byte));
    let start = steps.iter().take_while(is_plain).count() * STEP;
    let rest = &bytes[start..];
    start + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_and_escape() {
        for length in 0..100 {
            let plain = "x".repeat(length);
            for (text, end) in [
                (format!("\"{plain}\","), length + 2),
                (format!("\"{plain}\\\"y\","), length + 5),
                (format!("\"{plain}\\\\\","), length + 4),
            ] {
                let mut skim = Skimmer::new(text.as_bytes());
                let place = skim.string().unwrap();
                assert_eq!(place, 0..end, "{text}");
                assert_eq!(
                    (skim.raw(&place), skim.rest()),
                    (&text.as_bytes()[1..end - 1], &b","[..])
                );
                for cut in 0..end {
                    assert_eq!(
                        Skimmer::new(&text.as_bytes()[..cut]).string(),
                        None,
                        "{text} {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_string_is_known_however_it_is_escaped() {
        for (text, expected) in
            [(r#""role""#, true), (r#""r\u006fle""#, true), (r#""rolE""#, false)]
        {
            let mut skim = Skimmer::new(text.as_bytes());
            let place = skim.string().unwrap();
            assert_eq!(skim.is(&place, "role"), expected, "{text}");
        }
    }

    #[test]
    fn values_are_skipped_and_deep_ones_need_no_stack() {
        let deep = format!("{}1{},", "[".repeat(100_000), "]".repeat(100_000));
        for text in
            ["1,", "-1.5e+3,", "null,", r#""a]\"",,"#, r#"{"a":[{"b":"}"},[]],"c":{}},"#, &deep]
        {
            let mut skim = Skimmer::new(text.as_bytes());
            assert_eq!(skim.skip_value(), Some(()), "{text:.50}");
            assert_eq!(skim.peek(), Some(b','), "{text:.50}");
        }
        for text in ["", "]", ":", "{", r#"{"a":"#, "1"] {
            assert_eq!(Skimmer::new(text.as_bytes()).skip_value(), None, "{text}");
        }
    }
}
