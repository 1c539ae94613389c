//! A file with variables, one `NAME=value` per line, in the format of systemd's `EnvironmentFile=`. Pure.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// The name of the default file beside the configuration.
pub(crate) const USUAL_NAME: &str = "environment";

/// The variables in the file, and the numbers of unclear lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvironmentFile {
    /// By name; the last value counts for a name that is set twice.
    pub values: HashMap<String, String>,
    /// From 1. Their text is not shown, because it may be a secret.
    pub unclear_lines: Vec<usize>,
}

/// Parses the file's text.
///
/// Comments begin with `#` or `;`. A quoted value may span several lines; a backslash takes the next character
/// literally, and joins two lines. `export` before the name is skipped, so that a file for shells works too.
pub(crate) fn parse(text: &str) -> EnvironmentFile {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = EnvironmentFile::default();
    let mut input = Cursor { chars: text.chars().peekable(), line: 1 };
    while input.chars.peek().is_some() {
        let line = input.line;
        let name = input.name();
        match name {
            LineStart::None => {}
            LineStart::Unclear => found.unclear_lines.push(line),
            LineStart::Of(name) => {
                let value = input.value();
                found.values.insert(name, value);
            }
        }
    }
    found
}

/// The beginning of a line.
enum LineStart {
    /// Empty, or a comment; the line is over.
    None,
    /// Not a variable; the line is over.
    Unclear,
    /// This name and an equals sign.
    Of(String),
}

struct Cursor<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    /// Reads up to the first equals sign, or to the end of the line.
    fn name(&mut self) -> LineStart {
        let mut name = String::new();
        loop {
            match self.next() {
                Some('=') if !name.trim_start().starts_with(['#', ';']) => break,
                None | Some('\n') => {
                    let name = name.trim();
                    let is_nothing = name.is_empty() || name.starts_with(['#', ';']);
                    return if is_nothing { LineStart::None } else { LineStart::Unclear };
                }
                Some(other) => name.push(other),
            }
        }
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) || name.as_bytes()[0].is_ascii_digit() {
            while !matches!(self.next(), None | Some('\n')) {}
            return LineStart::Unclear;
        }
        LineStart::Of(name.to_owned())
    }

    /// Reads to the end of the value's last line.
    fn value(&mut self) -> String {
        let mut value = String::new();
        // The end of the value so far: white space at the end of a line is not part of it.
        let mut kept = 0;
        loop {
            match self.next() {
                None | Some('\n') => break,
                Some('\\') => {
                    match self.next() {
                        Some('\n') | None => {}
                        Some(other) => value.push(other),
                    }
                    kept = value.len();
                }
                Some(quote @ ('"' | '\'')) => {
                    self.quoted(quote, &mut value);
                    kept = value.len();
                }
                Some(blank) if blank.is_whitespace() => {
                    if !value.is_empty() {
                        value.push(blank);
                    }
                }
                Some(other) => {
                    value.push(other);
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        value
    }

    fn quoted(&mut self, quote: char, value: &mut String) {
        while let Some(next) = self.next() {
            match next {
                _ if next == quote => return,
                '\\' if quote == '"' => match self.next() {
                    Some(special @ ('"' | '\\' | '`' | '$')) => value.push(special),
                    Some('\n') | None => {}
                    Some(other) => value.extend(['\\', other]),
                },
                other => value.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_systemd_and_shells_write_them() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("  A = b c  \r\n", "b c"),
            ("export A=b", "b"),
            ("\u{feff}A=b", "b"),
            ("A=b=c#d", "b=c#d"),
            ("A=\"b c \"", "b c "),
            ("A='b \\n $c'", "b \\n $c"),
            ("A=\"b \\\" \\\\ \\$ \\n\"", "b \" \\ $ \\n"),
            ("A=\"b\nc\"", "b\nc"),
            ("A=b\\\nc", "bc"),
            ("A=b\\ ", "b "),
            ("A=x\nA=b", "b"),
            ("# A=x\n; A=y\n\nA=b\n#", "b"),
            ("A=\"never closed", "never closed"),
            ("A='b'\"c\"d", "bcd"),
            ("A=克劳德", "克劳德"),
        ] {
            let found = parse(text);
            assert_eq!(found.values.get("A").map(String::as_str), Some(value), "{text:?}");
            assert_eq!(found.unclear_lines, [0; 0], "{text:?}");
        }
    }

    #[test]
    fn lines_that_set_nothing_are_counted_and_never_shown() {
        let found = parse("A=\"one\ntwo\"\nrubbish\n1A=x\nB C=y\n=z\nD=d");
        assert_eq!(found.unclear_lines, [3, 4, 5, 6]);
        let mut names: Vec<_> = found.values.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["A", "D"]);
        assert_eq!(parse(""), EnvironmentFile::default());
    }
}
