//! Finds the `usage` of an answer in the pieces in which its body passes, wherever they are cut. Pure.
//!
//! Most of an answer is text that a model wrote, and is searched for one word only: the key `usage` with its opening
//! quote. A text can't hold it, because there its quotes are escaped. From the key on, [`Members`] reads.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use crate::usage::members::{Form, Members, NAME_MAX_BYTES, Name, is_choice, is_wrapper};
use crate::usage::tokens::{Reported, Tokens};

/// The beginning of the keys.
const KEY_START: &[u8] = b"\"usage";
/// The rest of each key.
const KEY_ENDS: [&[u8]; 2] = [b"\"", b"Metadata\""];
/// The beginning of the keys of the model.
const MODEL_START: &[u8] = b"\"model";
/// The longest key with its quotes.
const KEY_MAX_BYTES: usize = KEY_START.len() + 9;
/// The part of a text that is kept, because it may hold the model or the type of the event: its beginning, and the part
/// before the place that is read.
const HEAD_BYTES: usize = 512;
const TAIL_BYTES: usize = 256;
/// The beginning of an answer in which its model is looked for at once.
const FIRST_BYTES: usize = 256;

static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY_START));
static MODEL_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MODEL_START));

/// The bytes of a text that are kept.
#[derive(Debug)]
struct Kept<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Kept<N> {
    const EMPTY: Self = Self { bytes: [0; N], length: 0 };

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Adds the start of `more`, as far as there is room.
    fn fill(&mut self, more: &[u8]) {
        let count = more.len().min(N - self.length);
        self.bytes[self.length..self.length + count].copy_from_slice(&more[..count]);
        self.length += count;
    }

    /// Adds `more`, and forgets the oldest bytes.
    fn push(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(N)..];
        let dropped = (self.length + more.len()).saturating_sub(N);
        self.bytes.copy_within(dropped..self.length, 0);
        self.length -= dropped;
        self.fill(more);
    }
}

/// The kept parts of a text.
#[derive(Debug)]
struct KeptParts {
    head: Kept<HEAD_BYTES>,
    tail: Kept<TAIL_BYTES>,
}

/// The search through one answer. It is small, and has parts on the heap once they are needed.
#[derive(Debug)]
pub(crate) struct Scan {
    form: Form,
    /// Reads on from a key; None while there was none in the current text.
    members: Option<Box<Members>>,
    reported: Option<Box<Reported>>,
    model: Option<Box<Name>>,
    /// Parts of the current text; None before a text was cut, or held a key.
    kept: Option<Box<KeptParts>>,
    /// The end of the kept bytes is the start of a line, or a CR, which may be followed by its LF.
    is_line_start: bool,
    is_after_cr: bool,
    /// No piece came yet.
    is_first: bool,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// None without a known number.
    pub tokens: Option<Tokens>,
    /// The model, as the answer names it.
    pub model: Option<String>,
}

impl Scan {
    pub(crate) const fn new(form: Form) -> Self {
        Self {
            form,
            members: None,
            reported: None,
            model: None,
            kept: None,
            is_line_start: true,
            is_after_cr: false,
            is_first: true,
        }
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// Looks at the next piece of the body, which may be known to be the last.
    pub(crate) fn see(&mut self, piece: &[u8], is_last: bool) {
        if self.is_first {
            self.is_first = false;
            // For an answer that reports no tokens.
            if let Some(model) = model_in(&piece[..piece.len().min(FIRST_BYTES)]) {
                self.model = Some(Box::new(Name::of(model)));
            }
        }
        let mut rest = piece;
        loop {
            if let Some(members) = &mut self.members {
                let used = members.feed(rest);
                let (is_null, before_value) = (members.is_null, members.before_value);
                // Up to its value, a key belongs to the text that is searched on after a null.
                self.keep(&rest[..before_value]);
                let Some(used) = used else { return };
                rest = &rest[used..];
                if is_null {
                    self.members = None;
                } else {
                    self.end_text();
                }
            }
            let Some(end) = self.find_key(rest) else {
                if !is_last {
                    self.keep_cut(rest);
                }
                return;
            };
            self.keep(&rest[..end]);
            self.members = Some(Box::new(Members::after_key(self.form)));
            rest = &rest[end..];
        }
    }

    /// The end of the next key in `bytes`, unless its value is null. It may have begun before them.
    fn find_key(&self, bytes: &[u8]) -> Option<usize> {
        let last = self.tail().last().copied();
        if last.is_some()
            && let Some(end) = self.find_cut_key(bytes)
        {
            return Some(end);
        }
        let mut from = 0;
        loop {
            let (_, end) = key_in(bytes, from, last)?;
            if !is_null(&bytes[end..]) {
                return Some(end);
            }
            from = end;
        }
    }

    /// The end of a key in `bytes` that began before them.
    fn find_cut_key(&self, bytes: &[u8]) -> Option<usize> {
        let tail = self.tail();
        // One byte more, which may escape the quote.
        let before = &tail[tail.len().saturating_sub(KEY_MAX_BYTES + 1)..];
        let after = &bytes[..bytes.len().min(KEY_MAX_BYTES)];
        let mut joined = Kept::<{ 2 * KEY_MAX_BYTES + 1 }>::EMPTY;
        joined.fill(before);
        joined.fill(after);
        let mut from = 0;
        loop {
            let (start, end) = key_in(joined.get(), from, None)?;
            if start < before.len() && end > before.len() {
                return Some(end - before.len());
            }
            // Not from its end: the backslash of an escaped key may be out of sight.
            from = start + KEY_START.len();
        }
    }

    /// Keeps what `rest`, the end of a piece, holds of a text that goes on.
    fn keep_cut(&mut self, rest: &[u8]) {
        let is_at_start = self.head().is_empty() && self.is_line_start && !self.is_after_cr;
        if is_at_start && self.form == Form::Events && rest.ends_with(b"\n\n") {
            return;
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.form == Form::Json {
            return self.keep_line(bytes);
        }
        let mut rest = bytes;
        while let Some(at) = memchr2(b'\r', b'\n', rest) {
            self.keep_line(&rest[..at]);
            let is_second = rest[at] == b'\n' && self.is_after_cr;
            if !is_second && self.is_line_start {
                self.clear();
            } else if !is_second {
                self.keep_line(b"\n");
                self.is_line_start = true;
            }
            self.is_after_cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
        }
        self.keep_line(rest);
    }

    fn keep_line(&mut self, part: &[u8]) {
        if !part.is_empty() {
            let kept = self.kept.get_or_insert_with(|| {
                let (head, tail) = (Kept::EMPTY, Kept::EMPTY);
                Box::new(KeptParts { head, tail })
            });
            kept.head.fill(part);
            kept.tail.push(part);
            (self.is_line_start, self.is_after_cr) = (false, false);
        }
    }

    fn head(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |kept| kept.head.get())
    }

    fn tail(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |kept| kept.tail.get())
    }

    fn clear(&mut self) {
        if let Some(kept) = &mut self.kept {
            (kept.head.length, kept.tail.length) = (0, 0);
        }
        self.is_line_start = true;
    }

    /// Takes over the numbers of a text that has ended, if they are those of the answer.
    fn end_text(&mut self) {
        let Some(members) = self.members.take() else { return };
        let outcome = members.end();
        let head = self.head();
        let is_of_answer = |reported: &Reported, levels| {
            // A list holds the events of Gemini.
            let is_list = self.form == Form::Json && starts_with_list(head);
            match levels - i32::from(is_list) {
                1 => true,
                // Gemini Code Assist wraps each answer in a `response`.
                2 if reported.are_of_gemini() => true,
                2 => self.form == Form::Events && (outcome.is_wrapper || is_wrapper(head)),
                // Kimi's last event has them in its choice.
                3 => self.form == Form::Events && reported.are_of_chat() && is_choice(head),
                _ => false,
            }
        };
        if let Some((reported, levels)) = &outcome.usage
            && is_of_answer(reported, *levels)
        {
            let model = outcome.model.filter(|model| !model.get().is_empty());
            let before = || model_in(head).or_else(|| model_in(self.tail())).map(Name::of);
            if let Some(model) = model.or_else(before) {
                self.model = Some(Box::new(model));
            }
            self.reported.get_or_insert_with(|| Box::new(Reported::NONE)).merge(reported);
        }
        if self.form == Form::Events {
            self.clear();
            self.is_after_cr = false;
        }
    }

    /// The result at the end of the body, which is not `is_whole` if it broke off.
    pub(crate) fn finish(&mut self, is_whole: bool) -> Finding {
        if is_whole {
            self.end_text();
        }
        let model = match &self.model {
            Some(model) => model.get(),
            None => model_in(self.head()).unwrap_or_default(),
        };
        let is_name = |model: &&str| !model.is_empty() && model.len() <= NAME_MAX_BYTES;
        let model = std::str::from_utf8(model).ok().filter(is_name);
        let tokens = self.reported.as_ref().and_then(|reported| reported.tokens());
        Finding { tokens, model: model.map(str::to_owned) }
    }
}

/// The start and the end of the first key in `bytes` from `from` on. `before` is the byte before them.
fn key_in(bytes: &[u8], mut from: usize, before: Option<u8>) -> Option<(usize, usize)> {
    loop {
        let start = from + KEY.find(&bytes[from..])?;
        let after = start + KEY_START.len();
        let previous = if start == 0 { before } else { Some(bytes[start - 1]) };
        let key_end = KEY_ENDS.iter().find(|end| bytes[after..].starts_with(end));
        match key_end {
            Some(key_end) if previous != Some(b'\\') => {
                return Some((start, after + key_end.len()));
            }
            _ => from = after,
        }
    }
}

/// True if `bytes` begin with a colon and null, as in each chunk before the last of Chat Completions. If they
/// come in pieces, [`Members`] finds the null, and takes whatever else begins with n for one too.
fn is_null(bytes: &[u8]) -> bool {
    let value = after_blanks(bytes).strip_prefix(b":");
    value.is_some_and(|value| after_blanks(value).starts_with(b"null"))
}

/// `bytes` without the blanks at their start.
fn after_blanks(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &bytes[start.unwrap_or(bytes.len())..]
}

fn starts_with_list(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    text.trim_ascii_start().first() == Some(&b'[')
}

/// The value of the first key `model` or `modelVersion` in `text`, if it ends there.
pub(crate) fn model_in(text: &[u8]) -> Option<&[u8]> {
    let mut from = 0;
    loop {
        let start = from + MODEL_KEY.find(&text[from..])?;
        from = start + MODEL_START.len();
        let is_escaped = start > 0 && text[start - 1] == b'\\';
        if let Some(model) = value_after_model(&text[from..])
            && !is_escaped
        {
            return Some(model);
        }
    }
}

/// The text that is the value of a key, of which `"model` was read.
fn value_after_model(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"Version").unwrap_or(text);
    let value = rest.strip_prefix(b"\"")?.trim_ascii_start().strip_prefix(b":")?;
    let value = value.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr2(b'"', b'\\', value)?;
    (value[end] == b'"' && end > 0).then(|| &value[..end])
}

#[cfg(test)]
mod tests;
