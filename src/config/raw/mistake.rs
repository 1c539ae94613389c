//! Explains why a text is not YAML, in words and at the place of the mistake. Pure.
//!
//! The parser reports the place where it could not continue, often a line or more after the mistake, in words for
//! authors of parsers. This looks through the lines before that place for common mistakes.

use crate::config::problem::Position;

mod marks;

use marks::{
    Checked, Mistake, TAB, behind_quote, check_blank, check_odd_blank, ends_key, escape, key_end,
    quote_end, word_at,
};
pub(super) use marks::{is_odd_blank, odd_blank};

/// The beginning of a line, as far as it matters for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `- …`
    Entry,
    /// `key: …`
    Key,
}

/// A block collection that is open at a line: its indentation, its kind, and its beginning.
#[derive(Clone, Copy, Debug)]
struct Block {
    indent: usize,
    kind: Kind,
    began: Position,
}

/// The place of the mistake and its explanation, for a text that the parser gave up at `given_up` with the words
/// `said`.
pub(super) fn explain(
    text: &str,
    given_up: Option<Position>,
    said: &str,
) -> (Option<Position>, String) {
    let control = text.lines().enumerate().find_map(|(index, line)| control(index + 1, line));
    let last = given_up.map_or(usize::MAX, |(line, _)| line);
    let found = control.or_else(|| Scan::new(last).read(text).err());
    match found.or_else(|| line_of_tabs(text, last)) {
        Some((position, message)) => (Some(position), message),
        None => (given_up, format!("this can't be read as YAML: {said}")),
    }
}

/// The last empty line up to `last` with a tab, which the parser takes for the indentation of the next line.
fn line_of_tabs(text: &str, last: usize) -> Option<Mistake> {
    let lines = text.lines().enumerate().take(last);
    let (index, line) = lines.filter(|(_, line)| is_blank_with_tab(line)).last()?;
    let column = line.chars().position(|character| character == '\t')?;
    Some(((index + 1, column + 1), TAB.to_owned()))
}

fn is_blank_with_tab(line: &str) -> bool {
    line.contains('\t') && line.trim().is_empty()
}

/// A character that no text may contain.
fn control(number: usize, line: &str) -> Option<Mistake> {
    let is_wrong =
        |character: char| character.is_control() && !matches!(character, '\t' | '\r' | '\u{85}');
    let column = line.chars().position(is_wrong)?;
    let code = line.chars().nth(column).map_or(0, u32::from);
    let message =
        format!("a control character (U+{code:04X}), which no text may contain; remove it");
    Some(((number, column + 1), message))
}

/// Reads the lines as the parser does, and stops at the first mistake.
#[derive(Default)]
struct Scan {
    /// The line at which the parser gave up.
    last: usize,
    /// The open quote, and its place.
    quote: Option<(char, Position)>,
    /// The open brackets.
    brackets: Vec<(char, Position)>,
    /// The lines below are text as long as they are indented further than this.
    text_below: Option<usize>,
    blocks: Vec<Block>,
    /// The indentation of the line before, if its key has a value beside it.
    valued: Option<usize>,
    /// The indentation of the line before, if it is a key without a value.
    bare_key: Option<usize>,
    /// The last key that stands left of the block that it may belong to.
    outdented: Option<Outdented>,
    /// The `|` or `>` whose text should be on the next line, and its place.
    text_wanted: Option<(char, Position)>,
}

/// A key that may be indented too little; the lines below decide.
#[derive(Clone, Debug)]
struct Outdented {
    at: Position,
    /// The key with its colon.
    word: String,
    /// The indents of the blocks that it ends; none if it follows a key without a value.
    above: Vec<usize>,
}

impl Scan {
    fn new(last: usize) -> Self {
        Self { last, ..Self::default() }
    }

    fn read(mut self, text: &str) -> Checked {
        for (index, line) in text.lines().enumerate().take(self.last) {
            let chars: Vec<char> = line.chars().collect();
            self.line(index + 1, &chars)?;
        }
        self.left_open()
    }

    /// The construct that is still open where the parser gave up.
    fn left_open(&self) -> Checked {
        if let Some((_, at)) = self.quote {
            return Err(not_closed("quote", at));
        }
        match self.brackets.last() {
            Some((bracket, at)) => Err(not_closed(&format!("'{bracket}'"), *at)),
            None => Ok(()),
        }
    }

    fn line(&mut self, number: usize, chars: &[char]) -> Checked {
        if let Some((_, opened)) = self.quote {
            let is_fine = self.inline(number, chars, 0).is_ok();
            // A text over several lines is possible, but this is a forgotten quote.
            let is_wrong = !is_fine || (self.quote.is_none() && number == self.last);
            return if is_wrong { Err(not_closed("quote", opened)) } else { Ok(()) };
        }
        let indent = chars.iter().take_while(|character| **character == ' ').count();
        let is_empty = chars[indent..].iter().all(|character| character.is_whitespace())
            || chars.get(indent) == Some(&'#');
        if is_empty {
            return Ok(());
        }
        if self.text_below.is_some_and(|base| indent > base) {
            self.text_wanted = None;
            return Ok(());
        }
        self.text_below = None;
        check_blank(number, chars, indent)?;
        if !self.brackets.is_empty() {
            return self.inline(number, chars, indent);
        }
        if chars.starts_with(&['-', '-', '-']) {
            let words = "'---' begins a second document; write one";
            let is_first = self.blocks.is_empty();
            return if is_first { Ok(()) } else { Err(((number, 1), words.to_owned())) };
        }
        self.block_line(number, chars, indent)
    }

    /// A line of a block: dashes, a key, a value.
    fn block_line(&mut self, number: usize, chars: &[char], indent: usize) -> Checked {
        let mut at = indent;
        if chars[at] == '-' {
            check_odd_blank(number, chars, at + 1)?;
        }
        while chars.get(at) == Some(&'-') && matches!(chars.get(at + 1), None | Some(' ' | '\t')) {
            self.enter(number, at, Kind::Entry, chars)?;
            at += 1;
            while chars.get(at) == Some(&' ') {
                at += 1;
            }
            if chars.get(at) == Some(&'\t') {
                return Err(((number, at + 1), TAB.to_owned()));
            }
        }
        if at >= chars.len() || chars[at] == '#' {
            self.valued = None;
            return Ok(());
        }
        let Some(colon) = key_end(chars, at) else {
            return self.without_key(number, chars, at);
        };
        if chars[at] == '*' {
            return Err(((number, at + 1), quotes('*')));
        }
        if is_glued_dash(chars, at) && number + 1 >= self.last {
            return Err(((number, at + 1), DASH.to_owned()));
        }
        self.enter(number, at, Kind::Key, chars)?;
        self.bare_key = None;
        let value = (colon + 1..chars.len()).find(|index| !matches!(chars[*index], ' ' | '\t'));
        match value.filter(|value| chars[*value] != '#') {
            None => {
                self.valued = None;
                self.bare_key = Some(at);
                Ok(())
            }
            Some(value) => {
                self.valued = Some(at);
                self.value(number, chars, at, value)
            }
        }
    }

    /// Records a line of this kind at this indentation.
    fn enter(&mut self, number: usize, at: usize, kind: Kind, chars: &[char]) -> Checked {
        let here = (number, at + 1);
        self.text_wanted = None;
        let deepest = self.blocks.last().map(|block| block.indent);
        if deepest.is_none_or(|deepest| at > deepest) {
            if self.valued.is_some_and(|valued| at > valued) {
                return Err(self.too_deep(here));
            }
            self.blocks.push(Block { indent: at, kind, began: here });
            self.valued = None;
            self.outdented = None;
            return Ok(());
        }
        let closed =
            self.blocks.iter().rposition(|block| block.indent <= at).map_or(0, |last| last + 1);
        let above: Vec<Block> = self.blocks.drain(closed..).collect();
        let Some(block) = self.blocks.last().filter(|block| block.indent == at) else {
            return Err(self.misplaced(here, kind, &above, chars));
        };
        let follows_bare_key = above.is_empty() && self.bare_key == Some(at);
        if kind == Kind::Key && (!above.is_empty() || follows_bare_key) {
            let above = above.iter().map(|block| block.indent).collect();
            self.outdented = Some(Outdented { at: here, word: word_at(chars, at), above });
        } else if kind == Kind::Entry {
            self.outdented = None;
        }
        // A list may stand at the indentation of its key.
        let is_list_of_key = kind == Kind::Entry
            && block.kind == Kind::Key
            && self.valued.is_none()
            && above.is_empty();
        if block.kind != kind && !is_list_of_key && number == self.last {
            return Err((here, among(kind)));
        }
        self.valued = None;
        Ok(())
    }

    /// A line that is indented deeper than the line above, which has a value, so one of the two is wrong. If this
    /// line is indented like the lines before, the line above is the wrong one.
    fn too_deep(&self, here: Position) -> Mistake {
        let at = here.1 - 1;
        let Some(Outdented { at: place, word, above }) =
            self.outdented.as_ref().filter(|one| one.above.is_empty() || one.above.contains(&at))
        else {
            let words =
                "this line is indented deeper than the one above, which has a value already";
            return (here, words.to_owned());
        };
        let (others, all) = match above.as_slice() {
            [] => ("line below it", "both"),
            _ => ("lines above and below it", "all of them"),
        };
        let own = place.1 - 1;
        (
            *place,
            format!("'{word}' is indented by {own}, but the {others} by {at}: indent {all} alike"),
        )
    }

    /// A line whose indentation belongs to no open block.
    fn misplaced(&self, here: Position, kind: Kind, above: &[Block], chars: &[char]) -> Mistake {
        if let (Kind::Entry, Some(Block { kind: Kind::Key, began, .. })) = (kind, above.first()) {
            let words = "a dash is missing before the first key of this entry, as in '- name: …'";
            return (*began, words.to_owned());
        }
        let mut known: Vec<usize> =
            self.blocks.iter().chain(above).map(|block| block.indent).collect();
        known.dedup();
        let known: Vec<_> = known.iter().rev().take(2).rev().map(ToString::to_string).collect();
        let start = word_at(chars, here.1 - 1);
        let words = format!(
            "'{start}' is indented by {}, where the lines above are indented by {}",
            here.1 - 1,
            known.join(" or ")
        );
        (here, words)
    }

    /// A line that is neither a key nor an entry, outside brackets.
    fn without_key(&mut self, number: usize, chars: &[char], at: usize) -> Checked {
        let here = (number, at + 1);
        let word = word_at(chars, at);
        if let Some(colon) = (at..chars.len()).find(|index| chars[*index] == ':') {
            check_odd_blank(number, chars, colon + 1)?;
        }
        if matches!(chars[at], '"' | '\'' | '[' | '{' | ']' | '}') {
            return self.inline(number, chars, at);
        }
        if is_glued_dash(chars, at) {
            return Err((here, DASH.to_owned()));
        }
        let is_end = self.last == usize::MAX || number + 1 >= self.last;
        if let Some((mark, opened)) = self.text_wanted.filter(|_| is_end) {
            let words = format!(
                "the text that the '{mark}' at {}:{} begins must be indented further than its key",
                opened.0, opened.1
            );
            return Err((here, words));
        }
        if is_end && self.text_below.is_none() {
            let words =
                "a key and its value need a colon and a space between them, as in 'key: value'";
            return Err((here, format!("there is no colon and space after '{word}': {words}")));
        }
        Ok(())
    }

    /// Reads the text after a key.
    fn value(&mut self, number: usize, chars: &[char], key: usize, at: usize) -> Checked {
        match chars[at] {
            mark @ ('|' | '>') => {
                self.text_below = Some(key);
                self.text_wanted = Some((mark, (number, at + 1)));
                Ok(())
            }
            '"' | '\'' | '[' | '{' => self.inline(number, chars, at),
            first @ ('@' | '`' | '%') => Err(((number, at + 1), quotes(first))),
            '*' if number == self.last => Err(((number, at + 1), quotes('*'))),
            _ => {
                let inner =
                    (at..chars.len()).find(|index| chars[*index] == ':' && ends_key(chars, *index));
                let comment = (at..chars.len())
                    .find(|index| chars[*index] == '#' && chars[*index - 1] == ' ');
                let is_inside =
                    inner.is_some_and(|inner| comment.is_none_or(|comment| inner < comment));
                let words = "a text with a colon and a space in it needs quotes";
                if is_inside { Err(((number, at + 1), words.to_owned())) } else { Ok(()) }
            }
        }
    }

    /// Reads quotes and brackets from `at` to the end of the line.
    fn inline(&mut self, number: usize, chars: &[char], mut at: usize) -> Checked {
        while at < chars.len() {
            let here = (number, at + 1);
            if let Some((quote, opened)) = self.quote {
                let Some(end) = quote_end(chars, at, quote) else { return Ok(()) };
                escape(quote, number, chars, at, end)?;
                self.quote = None;
                at = end + 1;
                behind_quote(number, chars, at, self.brackets.is_empty(), opened)?;
                continue;
            }
            match chars[at] {
                '#' if at == 0 || chars[at - 1].is_whitespace() => return Ok(()),
                quote @ ('"' | '\'') if at == 0 || !chars[at - 1].is_alphanumeric() => {
                    self.quote = Some((quote, here));
                }
                bracket @ ('[' | '{') => self.brackets.push((bracket, here)),
                bracket @ (']' | '}') => {
                    let fits = |open: &(char, Position)| (open.0 == '[') == (bracket == ']');
                    if self.brackets.pop().as_ref().is_none_or(|one| !fits(one)) {
                        let words = format!("nothing is open that this '{bracket}' could close");
                        return Err((here, words));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(())
    }
}

const DASH: &str = "the dash needs a blank behind it, as in '- name: …'";

/// True if a dash stands directly before a word.
fn is_glued_dash(chars: &[char], at: usize) -> bool {
    chars[at] == '-' && chars.get(at + 1).is_some_and(|next| next.is_alphabetic())
}

fn not_closed(what: &str, opened: Position) -> Mistake {
    (opened, format!("the {what} opened at {}:{} is not closed", opened.0, opened.1))
}

fn among(kind: Kind) -> String {
    match kind {
        Kind::Entry => "a dash begins an entry of a list, but the lines above it are keys: take it out, or indent \
                        it like the entry above"
            .to_owned(),
        Kind::Key => "this is a key, but the lines above it at this indentation begin with a dash".to_owned(),
    }
}

fn quotes(first: char) -> String {
    format!("a text that begins with '{first}' needs quotes around it")
}

#[cfg(test)]
mod tests;
