//! What is wrong with a text that is no YAML, in words, at the place where it went wrong. Pure.
//!
//! The parser says where it could not go on, which is often a line or more behind the mistake, and in words for
//! those who write parsers. This looks at the lines up to there for what people get wrong.

use crate::config::raw::Position;

/// What a line begins with, as far as blocks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `- …`
    Entry,
    /// `key: …`
    Key,
}

/// A block collection that is open at a line: how far it is indented, what it is made of, and where it began.
#[derive(Clone, Copy, Debug)]
struct Block {
    indent: usize,
    kind: Kind,
    began: Position,
}

type Mistake = (Position, String);

/// Where the mistake is, and what it is, for a text that the parser gave up at `given_up`, saying `said`.
pub(super) fn explain(
    text: &str,
    given_up: Option<Position>,
    said: &str,
) -> (Option<Position>, String) {
    let control = text.lines().enumerate().find_map(|(index, line)| control(index + 1, line));
    let last = given_up.map_or(usize::MAX, |(line, _)| line);
    let found = control.or_else(|| Scan::new(last).read(text));
    match found.or_else(|| line_of_tabs(text, last)) {
        Some((position, message)) => (Some(position), message),
        None => (given_up, format!("this can't be read as YAML: {said}")),
    }
}

/// An empty line with a tab in it, which the parser takes for the indentation of the next one: the last up to `last`.
fn line_of_tabs(text: &str, last: usize) -> Option<Mistake> {
    let lines = text.lines().enumerate().take(last);
    let (index, line) = lines.filter(|(_, line)| is_blank_with_tab(line)).last()?;
    let column = line.chars().position(|character| character == '\t')?;
    Some(((index + 1, column + 1), TAB.to_owned()))
}

fn is_blank_with_tab(line: &str) -> bool {
    line.contains('\t') && line.trim().is_empty()
}

/// A character that no text may hold.
fn control(number: usize, line: &str) -> Option<Mistake> {
    let is_wrong =
        |character: char| character.is_control() && !matches!(character, '\t' | '\r' | '\u{85}');
    let column = line.chars().position(is_wrong)?;
    let code = line.chars().nth(column).map_or(0, u32::from);
    let message =
        format!("a control character (U+{code:04X}), which no text may hold; take it out");
    Some(((number, column + 1), message))
}

/// Reads line by line what the parser reads, and stops at the first mistake.
struct Scan {
    /// The line that the parser gave up at.
    last: usize,
    /// The quote that is open, and where it was opened.
    quote: Option<(char, Position)>,
    /// The brackets that are open.
    brackets: Vec<(char, Position)>,
    /// The lines below are a text as long as they are indented further than this.
    text_below: Option<usize>,
    blocks: Vec<Block>,
    /// How the line before was indented, where its key has a value beside it.
    valued: Option<usize>,
}

impl Scan {
    fn new(last: usize) -> Self {
        Self {
            last,
            quote: None,
            brackets: Vec::new(),
            text_below: None,
            blocks: Vec::new(),
            valued: None,
        }
    }

    fn read(mut self, text: &str) -> Option<Mistake> {
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let chars: Vec<char> = line.chars().collect();
            if number > self.last {
                break;
            }
            if let Some(mistake) = self.line(number, &chars) {
                return Some(mistake);
            }
        }
        self.left_open()
    }

    /// What is still open where the parser gave up.
    fn left_open(&self) -> Option<Mistake> {
        if let Some((_, at)) = self.quote {
            return Some((at, format!("the quote opened at {}:{} is not closed", at.0, at.1)));
        }
        let (bracket, at) = self.brackets.last()?;
        Some((*at, format!("the '{bracket}' opened at {}:{} is not closed", at.0, at.1)))
    }

    fn line(&mut self, number: usize, chars: &[char]) -> Option<Mistake> {
        if let Some((_, opened)) = self.quote {
            let mistake = self.inline(number, chars, 0);
            // A text over several lines is possible, but here it is a quote that somebody forgot.
            let is_wrong = mistake.is_some() || (self.quote.is_none() && number == self.last);
            let words = format!("the quote opened at {}:{} is not closed", opened.0, opened.1);
            return is_wrong.then_some((opened, words));
        }
        let indent = chars.iter().take_while(|character| **character == ' ').count();
        let is_empty = chars[indent..].iter().all(|character| character.is_whitespace())
            || chars.get(indent) == Some(&'#');
        if let Some(base) = self.text_below {
            if is_empty || indent > base {
                return None;
            }
            self.text_below = None;
        }
        if is_empty {
            return None;
        }
        if let Some(mistake) = blank(number, chars, indent) {
            return Some(mistake);
        }
        if !self.brackets.is_empty() {
            return self.inline(number, chars, indent);
        }
        if chars.starts_with(&['-', '-', '-']) {
            let is_first = self.blocks.is_empty();
            let words = "'---' begins a second document; write one";
            return (!is_first).then(|| ((number, 1), words.to_owned()));
        }
        self.block_line(number, chars, indent)
    }

    /// A line of a block: dashes, a key, a value.
    fn block_line(&mut self, number: usize, chars: &[char], indent: usize) -> Option<Mistake> {
        let mut at = indent;
        while chars.get(at) == Some(&'-') && matches!(chars.get(at + 1), None | Some(' ' | '\t')) {
            if let Some(mistake) = self.enter(number, at, Kind::Entry, chars) {
                return Some(mistake);
            }
            at += 1;
            while chars.get(at) == Some(&' ') {
                at += 1;
            }
            if chars.get(at) == Some(&'\t') {
                return Some(((number, at + 1), TAB.to_owned()));
            }
        }
        if at >= chars.len() || chars[at] == '#' {
            self.valued = None;
            return None;
        }
        let Some(colon) = key_end(chars, at) else {
            return self.without_key(number, chars, at);
        };
        if chars[at] == '*' {
            return Some(((number, at + 1), quotes('*')));
        }
        if is_glued_dash(chars, at) && number + 1 >= self.last {
            return Some(((number, at + 1), DASH.to_owned()));
        }
        if let Some(mistake) = self.enter(number, at, Kind::Key, chars) {
            return Some(mistake);
        }
        let value = (colon + 1..chars.len()).find(|index| !matches!(chars[*index], ' ' | '\t'));
        match value.filter(|value| chars[*value] != '#') {
            None => {
                self.valued = None;
                None
            }
            Some(value) => {
                self.valued = Some(at);
                self.value(number, chars, at, value)
            }
        }
    }

    /// Notes that a line of this kind stands at this indentation.
    fn enter(&mut self, number: usize, at: usize, kind: Kind, chars: &[char]) -> Option<Mistake> {
        let here = (number, at + 1);
        let deepest = self.blocks.last().map(|block| block.indent);
        if deepest.is_none_or(|deepest| at > deepest) {
            if self.valued.is_some_and(|valued| at > valued) {
                let words =
                    "this line is indented deeper than the one above, which has a value already";
                return Some((here, words.to_owned()));
            }
            self.blocks.push(Block { indent: at, kind, began: here });
            self.valued = None;
            return None;
        }
        let closed =
            self.blocks.iter().rposition(|block| block.indent <= at).map_or(0, |last| last + 1);
        let above: Vec<Block> = self.blocks.drain(closed..).collect();
        let Some(block) = self.blocks.last().filter(|block| block.indent == at) else {
            return Some(self.misplaced(here, kind, &above, chars));
        };
        // A list may stand at the indentation of the key that it belongs to.
        let is_list_of_key = kind == Kind::Entry
            && block.kind == Kind::Key
            && self.valued.is_none()
            && above.is_empty();
        if block.kind != kind && !is_list_of_key && number == self.last {
            return Some((here, among(kind)));
        }
        self.valued = None;
        None
    }

    /// A line whose indentation is that of no block which is open.
    fn misplaced(&self, here: Position, kind: Kind, above: &[Block], chars: &[char]) -> Mistake {
        if let (Kind::Entry, Some(Block { kind: Kind::Key, began, .. })) = (kind, above.first()) {
            let words = "a dash is missing before the first key of this entry, as in '- name: …'";
            return (*began, words.to_owned());
        }
        let mut known: Vec<usize> =
            self.blocks.iter().chain(above).map(|block| block.indent).collect();
        known.dedup();
        let known: Vec<_> = known.iter().rev().take(2).rev().map(ToString::to_string).collect();
        let start: String =
            chars[here.1 - 1..].iter().take_while(|one| !one.is_whitespace()).collect();
        let words = format!(
            "'{start}' is indented by {}, where the lines above are indented by {}",
            here.1 - 1,
            known.join(" or ")
        );
        (here, words)
    }

    /// A line that is no key, no entry and not inside brackets.
    fn without_key(&mut self, number: usize, chars: &[char], at: usize) -> Option<Mistake> {
        let here = (number, at + 1);
        let word: String = chars[at..].iter().take_while(|one| !one.is_whitespace()).collect();
        if matches!(chars[at], '"' | '\'' | '[' | '{' | ']' | '}') {
            return self.inline(number, chars, at);
        }
        if is_glued_dash(chars, at) {
            return Some((here, DASH.to_owned()));
        }
        let is_end = self.last == usize::MAX || number + 1 >= self.last;
        (is_end && self.text_below.is_none()).then(|| {
            let words =
                "a key and its value need a colon and a blank between them, as in 'key: value'";
            (here, format!("there is no colon and blank behind '{word}': {words}"))
        })
    }

    /// What stands behind a key.
    fn value(&mut self, number: usize, chars: &[char], key: usize, at: usize) -> Option<Mistake> {
        match chars[at] {
            '|' | '>' => {
                self.text_below = Some(key);
                None
            }
            '"' | '\'' | '[' | '{' => self.inline(number, chars, at),
            first @ ('@' | '`' | '%') => Some(((number, at + 1), quotes(first))),
            '*' if number == self.last => Some(((number, at + 1), quotes('*'))),
            _ => {
                let inner =
                    (at..chars.len()).find(|index| chars[*index] == ':' && ends_key(chars, *index));
                let comment = (at..chars.len())
                    .find(|index| chars[*index] == '#' && chars[*index - 1] == ' ');
                let is_inside =
                    inner.is_some_and(|inner| comment.is_none_or(|comment| inner < comment));
                let words = "a text with a colon and a blank in it needs quotes";
                is_inside.then(|| ((number, at + 1), words.to_owned()))
            }
        }
    }

    /// Quotes and brackets from `at` to the end of the line.
    fn inline(&mut self, number: usize, chars: &[char], mut at: usize) -> Option<Mistake> {
        while at < chars.len() {
            let here = (number, at + 1);
            if let Some((quote, opened)) = self.quote {
                let end = quote_end(chars, at, quote)?;
                if let Some(mistake) = escape(quote, number, chars, at, end) {
                    return Some(mistake);
                }
                self.quote = None;
                at = end + 1;
                if let Some(mistake) =
                    behind_quote(number, chars, at, self.brackets.is_empty(), opened)
                {
                    return Some(mistake);
                }
                continue;
            }
            match chars[at] {
                '#' if at == 0 || chars[at - 1].is_whitespace() => return None,
                quote @ ('"' | '\'') if at == 0 || !chars[at - 1].is_alphanumeric() => {
                    self.quote = Some((quote, here));
                }
                bracket @ ('[' | '{') => self.brackets.push((bracket, here)),
                bracket @ (']' | '}') => {
                    let fits = |open: &(char, Position)| (open.0 == '[') == (bracket == ']');
                    if self.brackets.pop().as_ref().is_none_or(|one| !fits(one)) {
                        return Some((
                            here,
                            format!("nothing is open that this '{bracket}' could close"),
                        ));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

const TAB: &str = "a tab; YAML wants spaces";
const DASH: &str = "the dash needs a blank behind it, as in '- name: …'";

/// Whether a dash stands right before a word.
fn is_glued_dash(chars: &[char], at: usize) -> bool {
    chars[at] == '-' && chars.get(at + 1).is_some_and(|next| next.is_alphabetic())
}

/// A line of otherwise right YAML that begins with a blank which is none there, but part of a key.
pub(super) fn odd_blank(text: &str) -> Option<Mistake> {
    text.lines().enumerate().find_map(|(index, line)| {
        let chars: Vec<char> = line.chars().collect();
        let indent = chars.iter().take_while(|character| **character == ' ').count();
        let is_odd =
            chars.get(indent).is_some_and(|first| first.is_whitespace() && !first.is_ascii());
        is_odd.then(|| blank(index + 1, &chars, indent))?
    })
}

/// Blanks before the text of a line that are none for YAML.
fn blank(number: usize, chars: &[char], indent: usize) -> Option<Mistake> {
    match chars[indent] {
        '\t' => Some(((number, indent + 1), TAB.to_owned())),
        other if other.is_whitespace() => {
            let code = u32::from(other);
            let words = format!("a blank of another kind (U+{code:04X}); YAML wants plain spaces");
            Some(((number, indent + 1), words))
        }
        _ => None,
    }
}

fn quotes(first: char) -> String {
    format!("a text that begins with '{first}' needs quotes around it")
}

fn among(kind: Kind) -> String {
    match kind {
        Kind::Entry => "a dash begins an entry of a list, but the lines above it are keys: take it out, or indent \
                        it like the entry above"
            .to_owned(),
        Kind::Key => "this is a key, but the lines above it at this indentation begin with a dash".to_owned(),
    }
}

/// Where the colon is that ends the key which begins at `at`.
fn key_end(chars: &[char], at: usize) -> Option<usize> {
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

fn ends_key(chars: &[char], colon: usize) -> bool {
    matches!(chars.get(colon + 1), None | Some(' ' | '\t' | '\r'))
}

/// Where `quote` is closed, searched from `at`.
fn quote_end(chars: &[char], mut at: usize, quote: char) -> Option<usize> {
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
fn escape(quote: char, number: usize, chars: &[char], from: usize, to: usize) -> Option<Mistake> {
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
            return Some(((number, at + 1), words.to_owned()));
        }
        at += 2;
    }
    None
}

/// What may not follow a closing quote.
fn behind_quote(
    number: usize,
    chars: &[char],
    at: usize,
    is_block: bool,
    opened: Position,
) -> Option<Mistake> {
    let next = (at..chars.len()).find(|index| !chars[*index].is_whitespace())?;
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
    (!is_fine).then_some(((number, next + 1), words))
}

#[cfg(test)]
mod tests {
    use crate::config::raw::{Document, Position};

    const GOOD: &str = "\
settings:
  port: 8080
providers:
  - name: \"One\"
    type: \"generic\"
    base_url: \"http://127.0.0.1:9\"
  - name: \"Two\"
    type: \"generic\"
";

    fn told(text: &str) -> (Option<Position>, String) {
        Document::parse(text).err().unwrap_or_else(|| panic!("this is fine: {text}"))
    }

    /// The good text with one thing replaced, and what is to be said about it.
    #[track_caller]
    fn expect(from: &str, to: &str, position: Position, part: &str) {
        assert!(GOOD.contains(from), "{from}");
        let (at, message) = told(&GOOD.replacen(from, to, 1));
        assert_eq!(at, Some(position), "{to}: {message}");
        assert!(message.contains(part), "{to}: {message}");
    }

    #[test]
    fn tabs_and_other_blanks() {
        expect("    type", "\ttype", (5, 1), "a tab; YAML wants spaces");
        expect("    type", "  \ttype", (5, 3), "a tab; YAML wants spaces");
        expect("  - name", "  -\tname", (4, 4), "a tab; YAML wants spaces");
        expect("  port", "\tport", (2, 1), "a tab; YAML wants spaces");
        expect("    type", "\t\n    type", (5, 1), "a tab; YAML wants spaces");
        expect("    type", "  \t \n    type", (5, 3), "a tab; YAML wants spaces");
        expect("    type", "    \u{a0}type", (5, 5), "a blank of another kind (U+00A0)");
        expect("    type", "    \u{3000}type", (5, 5), "a blank of another kind (U+3000)");
        expect("One", "O\u{1}ne", (4, 13), "a control character (U+0001)");
    }

    #[test]
    fn quotes_that_are_not_closed() {
        expect("\"One\"", "\"One", (4, 11), "the quote opened at 4:11 is not closed");
        expect("\"One\"", "'One", (4, 11), "the quote opened at 4:11 is not closed");
        expect(
            "http://127.0.0.1:9\"",
            "http://127.0.0.1:9",
            (6, 15),
            "the quote opened at 6:15 is not closed",
        );
        expect("\"One\"", "\"One\"\"", (4, 16), "the quote opened at 4:11 is closed before this");
        expect("\"One\"", "\"C:\\Users\"", (4, 14), "a backslash begins an escape");
        expect("\"One\"", "\"C:\\me\"", (4, 14), "a backslash begins an escape");
        let last = GOOD.trim_end().strip_suffix('"').unwrap();
        assert_eq!(
            told(last),
            (Some((8, 11)), "the quote opened at 8:11 is not closed".to_owned())
        );
    }

    #[test]
    fn brackets() {
        expect("8080", "[8080", (2, 9), "the '[' opened at 2:9 is not closed");
        expect("\n  port: 8080", " {port: 8080", (1, 11), "the '{' opened at 1:11 is not closed");
        expect(
            "\n  port: 8080",
            " {port: 8080}}",
            (1, 23),
            "nothing is open that this '}' could close",
        );
        expect("8080", "[8080}", (2, 14), "nothing is open that this '}' could close");
    }

    #[test]
    fn lines_that_are_indented_wrongly() {
        expect(
            "    type",
            "   type",
            (5, 4),
            "'type:' is indented by 3, where the lines above are indented by 2 or 4",
        );
        expect(
            "    type",
            "      type",
            (5, 7),
            "indented deeper than the one above, which has a value",
        );
        expect("providers", " providers", (3, 2), "'providers:' is indented by 1");
        expect(
            "8080",
            "8080\n    host: x",
            (3, 5),
            "indented deeper than the one above, which has a value",
        );
    }

    #[test]
    fn dashes() {
        expect(
            "  - name: \"One\"",
            "    name: \"One\"",
            (4, 5),
            "a dash is missing before the first key",
        );
        expect("  - name: \"Two\"", "    name: \"Two\"", (7, 5), "or put the dash before it");
        expect("  - name: \"One\"", "  -name: \"One\"", (4, 3), "the dash needs a blank behind it");
        expect(
            "    type",
            "    - type",
            (5, 5),
            "a dash begins an entry of a list, but the lines above it are keys",
        );
    }

    #[test]
    fn colons_and_texts_that_need_quotes() {
        expect(
            "type: \"generic\"",
            "type \"generic\"",
            (5, 5),
            "there is no colon and blank behind 'type'",
        );
        expect(
            "\"One\"",
            "One: the first",
            (4, 11),
            "a text with a colon and a blank in it needs quotes",
        );
        for first in ['@', '`', '%', '*'] {
            let words = format!("a text that begins with '{first}' needs quotes");
            expect("\"One\"", &format!("{first}one"), (4, 11), &words);
        }
        expect(
            "settings",
            "model_routes:\n  *sonnet*: []\nsettings",
            (2, 3),
            "that begins with '*' needs quotes",
        );
        expect("providers", "---\nproviders", (3, 1), "'---' begins a second document");
    }

    #[test]
    fn what_is_right_is_no_mistake() {
        for text in [
            GOOD,
            "a: \"two\n  lines\"\nb: |\n  any: thing\n  \t\"in here\nc: 1\n",
            "a: &x {b: [1, 2], c: \"}\"} # a comment: with \"quotes\nd: *x\n",
            "- 'it''s'\n- \"\\u00e9\\\"\"\n- -1\n-\n  - deep\n",
            "\"a b\": c\n? d\n: e\n",
            "---\na: 1\n",
            "a:\n- b\n- c\nd: e f\n  g\n",
            "\u{feff}a: b\r\nc: d\r\n",
        ] {
            assert!(Document::parse(text).is_ok(), "{text}: {:?}", Document::parse(text).err());
        }
    }

    #[test]
    fn whatever_is_left_out_or_put_in_is_told_with_a_place() {
        let text = include_str!("../../../providers.yaml.example");
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(41).collect();
        let mut refused = 0;
        for at in places {
            let (before, after) = text.split_at(at);
            let rest = after.chars().next().map_or("", |first| &after[first.len_utf8()..]);
            for put_in in ["", "\"", "'", "[", "}", "\t", ": ", "\n", "- ", "*", "\u{0}"] {
                let changed = format!("{before}{put_in}{rest}");
                if let Err((position, message)) = Document::parse(&changed) {
                    refused += 1;
                    let line = position.map_or(0, |(line, _)| line);
                    assert!(
                        (1..=changed.lines().count() + 1).contains(&line),
                        "{message}: {put_in:?} at {at}"
                    );
                    assert!(!message.contains("this can't be read as YAML: \n"), "{message}");
                }
            }
        }
        assert!(refused > 50, "{refused}");
    }
}
