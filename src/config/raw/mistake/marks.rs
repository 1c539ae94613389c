//! Mistakes within a line: blanks of every kind, ends of keys, quotes and escapes. Pure.

use crate::config::problem::Position;

/// The place of a mistake, and its description.
pub(in crate::config::raw) type Mistake = (Position, String);

/// Nothing, or the first mistake.
pub(in crate::config::raw) type Checked = Result<(), Mistake>;

/// The description of a tab.
pub(super) const TAB: &str = "a tab; YAML wants spaces";

/// A line of otherwise valid YAML that begins with a character which looks like a space but is part of a key.
pub(in crate::config::raw) fn odd_blank(text: &str) -> Option<Mistake> {
    text.lines().enumerate().find_map(|(index, line)| {
        let chars: Vec<char> = line.chars().collect();
        let indent = chars.iter().take_while(|character| **character == ' ').count();
        check_odd_blank(index + 1, &chars, indent).err()
    })
}

/// Finds a character at `at` that looks like a space but is none for YAML.
pub(super) fn check_odd_blank(number: usize, chars: &[char], at: usize) -> Checked {
    match chars.get(at) {
        Some(one) if is_odd_blank(*one) => check_blank(number, chars, at),
        _ => Ok(()),
    }
}

/// The same where a tab may not stand either.
pub(super) fn check_blank(number: usize, chars: &[char], at: usize) -> Checked {
    match chars[at] {
        '\t' => Err(((number, at + 1), TAB.to_owned())),
        other if other.is_whitespace() => {
            let code = u32::from(other);
            let words = format!("a space of another kind (U+{code:04X}); YAML wants plain spaces");
            Err(((number, at + 1), words))
        }
        _ => Ok(()),
    }
}

/// True for a character that looks like a space but is none for YAML.
pub(in crate::config::raw) fn is_odd_blank(character: char) -> bool {
    character.is_whitespace() && !character.is_ascii()
}

/// The text at `at`, up to the next blank.
pub(super) fn word_at(chars: &[char], at: usize) -> String {
    chars[at..].iter().take_while(|one| !one.is_whitespace()).collect()
}

/// The colon that ends the key which begins at `at`.
pub(super) fn key_end(chars: &[char], at: usize) -> Option<usize> {
    let mut index = at;
    if let Some(quote @ ('"' | '\'')) = chars.get(at) {
        index = quote_end(chars, at + 1, *quote)? + 1;
        while chars.get(index) == Some(&' ') {
            index += 1;
        }
        return (chars.get(index) == Some(&':')).then_some(index);
    }
    if matches!(chars.get(at), Some('[' | '{' | ']' | '}')) {
        return None;
    }
    while index < chars.len() {
        match chars[index] {
            ':' if ends_key(chars, index) => return Some(index),
            '#' if chars[index - 1] == ' ' => return None,
            _ => index += 1,
        }
    }
    None
}

pub(super) fn ends_key(chars: &[char], colon: usize) -> bool {
    matches!(chars.get(colon + 1), None | Some(' ' | '\t' | '\r'))
}

/// The end of the `quote`, searched from `at`.
pub(super) fn quote_end(chars: &[char], mut at: usize, quote: char) -> Option<usize> {
    while at < chars.len() {
        match chars[at] {
            '\\' if quote == '"' => at += 2,
            '\'' if quote == '\'' && chars.get(at + 1) == Some(&'\'') => at += 2,
            character if character == quote => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// A backslash in double quotes that begins no escape.
pub(super) fn escape(
    quote: char,
    number: usize,
    chars: &[char],
    from: usize,
    to: usize,
) -> Checked {
    const KNOWN: &str = "0abtnvfre \"/\\N_LPxuU\t";
    const DIGITS: [(char, usize); 3] = [('x', 2), ('u', 4), ('U', 8)];
    let mut at = from;
    while quote == '"' && at < to {
        if chars[at] != '\\' {
            at += 1;
            continue;
        }
        let kind = chars[at + 1];
        let digits = DIGITS.iter().find(|(own, _)| *own == kind).map_or(0, |(_, count)| *count);
        let is_hex =
            chars[at + 2..to].iter().take(digits).filter(|one| one.is_ascii_hexdigit()).count()
                == digits;
        if !KNOWN.contains(kind) || !is_hex {
            let words = "in double quotes a backslash begins an escape: write it twice, or use single quotes";
            return Err(((number, at + 1), words.to_owned()));
        }
        at += 2;
    }
    Ok(())
}

/// Text that may not follow a closing quote.
pub(super) fn behind_quote(
    number: usize,
    chars: &[char],
    at: usize,
    is_block: bool,
    opened: Position,
) -> Checked {
    let next = (at..chars.len()).find(|index| !chars[*index].is_whitespace());
    for index in at..next.unwrap_or(chars.len()) {
        check_odd_blank(number, chars, index)?;
    }
    let Some(next) = next else { return Ok(()) };
    let is_fine = match chars[next] {
        '#' => next > at,
        ':' => true,
        ',' | ']' | '}' => !is_block,
        _ => false,
    };
    let words = format!(
        "the quote opened at {}:{} is closed before this; a quote inside a text needs another kind around it",
        opened.0, opened.1
    );
    if is_fine { Ok(()) } else { Err(((number, next + 1), words)) }
}
