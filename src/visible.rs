//! The names that others choose, such as those of models, as people see them: no part of a name can look like another
//! line, hide, turn the text around it, or control a terminal. Pure.

use std::borrow::Cow;

use crate::swar::is_printable_ascii;

/// True for a character that can't be seen, changes the order of those around it, or ends a line without being a control
/// character.
pub(crate) fn is_unseen(one: char) -> bool {
    matches!(
        one,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// `text` with control characters, and those that can't be seen, escaped: `\n`, `\u{202e}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_odd = |one: char| one.is_control() || is_unseen(one);
    // Most texts are ASCII.
    if is_printable_ascii(text.as_bytes()) || !text.contains(is_odd) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for one in text.chars() {
        if is_odd(one) { shown.extend(one.escape_default()) } else { shown.push(one) }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_t_be_seen_is_escaped_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            ("claude-sonnet-4-5[1m] ~\"'\\", "claude-sonnet-4-5[1m] ~\"'\\"),
            ("模型 é 👍", "模型 é 👍"),
            ("a\nb\r\t\0", "a\\nb\\r\\t\\u{0}"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            ("gpt\u{202e}4-", "gpt\\u{202e}4-"),
            ("\u{2066}a\u{2069}\u{61c}", "\\u{2066}a\\u{2069}\\u{61c}"),
            ("a\u{200b}b\u{feff}\u{ad}\u{2028}", "a\\u{200b}b\\u{feff}\\u{ad}\\u{2028}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(visible(text), expected);
        }
    }
}
