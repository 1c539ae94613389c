//! Reads a JSON text from a key called `usage` to its end, in pieces. Pure.
//!
//! The text before the key was not read, so the depth of the key is not known at first. It is known at the end, because
//! all objects that were open at the key are closed by then. So the search for the key can be as fast as a search for
//! bytes, and only what follows it is read.

use memchr::memchr3;

use crate::usage::number::Number;
use crate::usage::tokens::{Field, Parent, Reported};

/// The longest name or text that is of interest: that of a model.
pub(super) const NAME_MAX_BYTES: usize = 128;

/// The events whose only other member holds the answer with its `usage`.
const WRAPPERS: [&[u8]; 4] =
    [b"message_start", b"response.completed", b"response.incomplete", b"response.failed"];

/// True if `head`, the beginning of an event, names a type of event that wraps the answer.
pub(super) fn is_wrapper(head: &[u8]) -> bool {
    WRAPPERS.iter().any(|name| memchr::memmem::find(head, name).is_some())
}

/// True if `head`, the beginning of an event, has the `choices` of Chat Completions.
pub(super) fn is_choice(head: &[u8]) -> bool {
    memchr::memmem::find(head, b"\"choices\"").is_some()
}

/// The form of the body around a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The body is the text.
    Json,
    /// The body is an event stream; each text is the data of an event.
    Events,
}

/// A short text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX_BYTES],
    length: usize,
}

impl Name {
    pub(super) const EMPTY: Self = Self { bytes: [0; NAME_MAX_BYTES], length: 0 };
    /// The length of a text that is too long, or that has an escape which is not decoded.
    const NONE: usize = usize::MAX;

    pub(super) fn of(text: &[u8]) -> Self {
        let mut name = Self::EMPTY;
        name.push(text);
        name
    }

    /// The text; empty if it is too long.
    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        match self.bytes.get_mut(self.length..).and_then(|room| room.get_mut(..part.len())) {
            Some(room) => {
                room.copy_from_slice(part);
                self.length += part.len();
            }
            None => self.length = Self::NONE,
        }
    }
}

/// The meaning of the next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// None.
    Ignored,
    Usage,
    Model,
    /// The type of an event.
    Type,
    Number(Field),
    Object(Parent),
}

/// The place within the lines of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Within data.
    Data,
    /// At the start of a line; true after a CR, which may be followed by its LF.
    Start(bool),
    /// So many bytes of `data:` were read.
    Label(usize),
    /// In a line that is no data.
    Other,
}

const DATA_LABEL: &[u8] = b"data:";

/// The reader. Depths count the open objects and lists, from the object with the first key.
#[derive(Debug)]
pub(super) struct Members {
    form: Form,
    line: Line,
    depth: i32,
    in_string: bool,
    is_escaped: bool,
    /// The last text.
    text: Name,
    value: Value,
    /// The number that is being read, if it counts.
    number: Option<Number>,
    parent: Parent,
    /// The depth of the object that has the best `usage` so far, its numbers, and true while its end is to come.
    found: Option<(i32, Reported, bool)>,
    /// The model, and its depth.
    model: Option<(i32, Name)>,
    /// An event of this type wraps the answer, as a member outside the answer says.
    is_wrapper: bool,
    /// The value of the first key has not begun, or begins like null.
    is_at_first: bool,
    /// The number of bytes of the last piece up to the value of the first key.
    pub(super) before_value: usize,
    /// The value of the first key begins like null, so the search goes on as if the key were not there.
    pub(super) is_null: bool,
}

/// The outcome of a text.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The numbers, and the number of objects and lists around `usage`, itself not counted.
    pub(super) usage: Option<(Reported, i32)>,
    /// The model, if it followed beside `usage`.
    pub(super) model: Option<Name>,
    /// The text says that it wraps the answer.
    pub(super) is_wrapper: bool,
}

impl Members {
    /// Begins after the key, before its colon.
    pub(super) fn after_key(form: Form) -> Self {
        Self {
            form,
            line: Line::Data,
            depth: 0,
            in_string: false,
            is_escaped: false,
            text: Name::of(b"usage"),
            value: Value::Ignored,
            number: None,
            parent: Parent::Other,
            found: None,
            model: None,
            is_wrapper: false,
            is_at_first: true,
            before_value: 0,
            is_null: false,
        }
    }

    /// Reads `bytes`; returns the number of bytes read up to the end of the text, if it ends there, or up to a null as
    /// the first value.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        self.before_value = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.line != Line::Data {
                if self.label(byte) {
                    return Some(at);
                }
                at += 1;
            } else if self.in_string {
                at += self.string(&bytes[at..]);
            } else {
                self.outside(byte);
                at += 1;
            }
            if self.is_at_first {
                self.before_value = at;
                if self.is_null {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Reads a byte before the data of a line; true at the blank line that ends the event.
    fn label(&mut self, byte: u8) -> bool {
        self.line = match (self.line, byte) {
            (Line::Start(true), b'\n') => Line::Start(false),
            (Line::Start(_), b'\r' | b'\n') => return true,
            (_, b'\r') => Line::Start(true),
            (_, b'\n') => Line::Start(false),
            (Line::Start(_), b'd') => Line::Label(1),
            (Line::Label(count), byte) if DATA_LABEL[count] == byte => {
                if count + 1 == DATA_LABEL.len() { Line::Data } else { Line::Label(count + 1) }
            }
            _ => Line::Other,
        };
        false
    }

    /// Reads on in a string; returns the number of bytes read.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if self.is_escaped {
            self.is_escaped = false;
            match bytes[0] {
                b'"' | b'\\' | b'/' => self.text.push(&bytes[..1]),
                _ => self.text.length = Name::NONE,
            }
            return 1;
        }
        let Some(end) = memchr3(b'"', b'\\', b'\n', bytes) else {
            self.text.push(bytes);
            return bytes.len();
        };
        self.text.push(&bytes[..end]);
        match bytes[end] {
            b'\\' => self.is_escaped = true,
            b'"' => self.end_string(),
            // No string of JSON has a line end, so the text is broken; the next event may be sound.
            _ => {
                self.in_string = false;
                self.found = None;
                self.end_line(b'\n');
            }
        }
        end + 1
    }

    fn end_string(&mut self) {
        self.in_string = false;
        match self.value {
            Value::Model => self.model = Some((self.depth, self.text)),
            Value::Type => self.is_wrapper |= WRAPPERS.contains(&self.text.get()),
            _ => return,
        }
        self.value = Value::Ignored;
    }

    fn end_line(&mut self, byte: u8) {
        if self.form == Form::Events {
            self.line = Line::Start(byte == b'\r');
        }
    }

    fn outside(&mut self, byte: u8) {
        if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b':' | b'n') {
            self.is_at_first = false;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.text.length = 0;
            }
            b':' => self.value = self.value_of_key(),
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'}' | b']' => {
                self.end_number();
                self.close();
            }
            b',' => self.end_number(),
            b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => self.number(byte),
            b'\r' | b'\n' => self.end_line(byte),
            b' ' | b'\t' => {}
            b'n' if self.is_at_first && self.value == Value::Usage => self.is_null = true,
            // `null`, `true`.
            _ => (self.value, self.number) = (Value::Ignored, None),
        }
    }

    /// The meaning of the value whose key was the last text.
    fn value_of_key(&self) -> Value {
        let (name, depth) = (self.text.get(), self.depth);
        let found = self.found.as_ref().map(|(depth, ..)| *depth);
        if let Some((of_usage, _, true)) = self.found {
            return match depth - of_usage {
                1 => match Field::called(Parent::Usage, name) {
                    Some(field) => Value::Number(field),
                    None => Value::Object(Parent::called(name)),
                },
                2 => Field::called(self.parent, name).map_or(Value::Ignored, Value::Number),
                _ => Value::Ignored,
            };
        }
        match name {
            b"usage" | b"usageMetadata" if found.is_none_or(|found| depth <= found) => Value::Usage,
            b"model" | b"modelVersion"
                if self.model.as_ref().is_none_or(|(known, _)| depth <= *known) =>
            {
                Value::Model
            }
            b"type" if found.is_some_and(|found| depth < found) => Value::Type,
            _ => Value::Ignored,
        }
    }

    fn open(&mut self, is_object: bool) {
        match self.value {
            Value::Usage if is_object => {
                self.found = Some((self.depth, Reported::NONE, true));
                self.parent = Parent::Usage;
            }
            Value::Object(parent) if is_object => self.parent = parent,
            _ => self.parent = Parent::Other,
        }
        self.value = Value::Ignored;
        self.depth = self.depth.saturating_add(1);
    }

    fn close(&mut self) {
        self.value = Value::Ignored;
        self.depth = self.depth.saturating_sub(1);
        if let Some((depth, _, is_open)) = &mut self.found {
            *is_open &= self.depth > *depth;
        }
    }

    /// Reads on in a number, or begins one. One below 0 does not count, nor does what is no number.
    fn number(&mut self, byte: u8) {
        let Value::Number(_) = self.value else { return };
        let is_sound = match &mut self.number {
            Some(number) => number.feed(byte),
            None if byte.is_ascii_digit() => {
                self.number = Some(Number::of(byte));
                true
            }
            None => false,
        };
        if !is_sound {
            (self.value, self.number) = (Value::Ignored, None);
        }
    }

    fn end_number(&mut self) {
        if let (Value::Number(field), Some(number)) = (self.value, self.number.take())
            && let Some((_, reported, true)) = &mut self.found
        {
            reported.set(field, number.get());
        }
        self.value = Value::Ignored;
    }

    /// The outcome at the end of the text.
    pub(super) fn end(&self) -> Outcome {
        let usage = self.found.as_ref().filter(|(_, _, is_open)| !is_open);
        let usage = usage.map(|(depth, reported, _)| (*reported, depth.saturating_sub(self.depth)));
        // The model of an argument for a tool may be elsewhere in the text.
        let of_usage = self.found.as_ref().map(|(depth, ..)| *depth);
        let model = self.model.as_ref().filter(|(depth, _)| Some(*depth) == of_usage);
        let model = model.map(|(_, model)| *model);
        Outcome { usage, model, is_wrapper: self.is_wrapper }
    }
}
