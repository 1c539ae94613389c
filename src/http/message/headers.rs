//! Header fields in the order they came, in the text of their head (RFC 9110 §5).

use std::fmt;
use std::mem;
use std::ops::Range;

use memchr::memchr;

use crate::clock::Timestamp;
use crate::http::head::encode;
use crate::http::message::field::{Field, Span};
use crate::http::message::memory::{self, Memory};
use crate::http::name_filter::NameFilter;
use crate::swar::is_same_but_for_case;

/// Header fields in the order they came, names as written.
///
/// One text holds all names and values; for a parsed head it is the head's text as it came. So the fields cost two
/// allocations and one copy, whatever their number.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The names of the fields, and of removed ones.
    names: NameFilter,
}

/// A field as a line of a head.
#[derive(Clone, Copy)]
pub(crate) struct FieldLine<'a> {
    text: &'a [u8],
    field: &'a Field,
}

impl<'a> FieldLine<'a> {
    /// The field's name.
    #[inline]
    pub(crate) fn name(&self) -> &'a [u8] {
        self.field.name.of(self.text)
    }

    /// The field's value.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        self.field.value.of(self.text)
    }

    // Not inlined: it is rare.
    #[inline(never)]
    fn rewrite(&self, head: &mut Vec<u8>) {
        encode::field(head, self.name(), self.value());
    }

    /// True if the field is called `name`, whatever its case.
    #[inline]
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        self.field.is_called(name, self.text)
    }

    /// The place of the line, if the text holds it as it would be written.
    #[inline]
    fn written(&self) -> Option<Range<usize>> {
        let Field { name, value } = *self.field;
        let (start, name_end) = (name.start as usize, name.end as usize);
        let (value_start, value_end) = (value.start as usize, value.end as usize);
        let end = value_end + LINE_END.len();
        let is_so = self.text.get(name_end..value_start)? == COLON
            && self.text.get(value_end..end)? == LINE_END;
        is_so.then_some(start..end)
    }
}

/// The separator between a field's name and its value, as it is written here.
const COLON: &[u8; 2] = b": ";
/// The end of a field's line (RFC 9112 §2.1).
const LINE_END: &[u8; 2] = b"\r\n";

/// The fields found in the text of a head.
#[derive(Debug, Default)]
pub(crate) struct FoundFields(Headers);

impl FoundFields {
    /// No fields, with room for `fields` of them.
    pub(crate) fn with_room(fields: usize) -> Self {
        Self(Headers::with_room(fields, 0))
    }

    /// The number of fields.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds a field by the places of its name and value in `text`.
    #[inline]
    pub(crate) fn push(&mut self, text: &[u8], name: Range<usize>, value: Range<usize>) {
        self.0.names = self.0.names.with(&text[name.clone()]);
        self.0.fields.push(Field { name: Span::new(name), value: Span::new(value) });
    }

    /// The fields with the `text` in which they were found.
    pub(crate) fn of(self, text: &[u8]) -> Headers {
        let mut headers = self.0;
        headers.text.extend_from_slice(text);
        headers
    }
}

impl Headers {
    /// No fields.
    pub(crate) const NONE: Self =
        Self { text: Vec::new(), fields: Vec::new(), names: NameFilter::NONE };

    /// No fields.
    pub fn new() -> Self {
        Self::with_room(0, 0)
    }

    /// No fields, with room for `fields` of them that hold `bytes`.
    pub fn with_room(fields: usize, bytes: usize) -> Self {
        let Memory { mut text, fields: mut places } = memory::take();
        text.reserve(bytes);
        places.reserve(fields);
        Self { text, fields: places, names: NameFilter::default() }
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push_parts(name.as_ref(), &[value.as_ref()]);
    }

    /// Adds a field at the end, its value in parts.
    pub fn push_parts(&mut self, name: &[u8], value: &[&[u8]]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(COLON);
        let value_start = self.text.len();
        for part in value {
            self.text.extend_from_slice(part);
        }
        let end = self.text.len();
        self.text.extend_from_slice(LINE_END);
        self.names = self.names.with(name);
        let (name, value) = (Span::new(start..name_end), Span::new(value_start..end));
        self.fields.push(Field { name, value });
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The first field called `name`, whatever its case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every field called `name`, whatever its case, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_called = move |field: &&Field| field.is_called(name.as_bytes(), &self.text);
        let may_be_there = self.names.may_hold(name.as_bytes());
        let fields: &[Field] = if may_be_there { &self.fields } else { &[] };
        fields.iter().filter(is_called).map(|field| field.value.of(&self.text))
    }

    /// True if there is a field called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Removes every field called `name`.
    pub fn remove(&mut self, name: &str) {
        if self.names.may_hold(name.as_bytes()) {
            self.retain(|own, _| !is_same_but_for_case(own, name.as_bytes()));
        }
    }

    /// Keeps the fields for which `keep` holds, called with name and value.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|field| keep(field.name.of(text), field.value.of(text)));
    }

    /// All fields in order: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().map(|line| (line.name(), line.value()))
    }

    /// All fields in order, as lines of a head.
    #[inline]
    pub(crate) fn lines(&self) -> impl Iterator<Item = FieldLine<'_>> {
        self.fields.iter().map(|field| FieldLine { text: &self.text, field })
    }

    /// Calls `act` with all fields in order. At a size-optimized level this takes half the instructions of an iterator.
    #[inline]
    pub(crate) fn each_line<'a>(&'a self, mut act: impl FnMut(FieldLine<'a>)) {
        for field in &self.fields {
            act(FieldLine { text: &self.text, field });
        }
    }

    /// Appends the fields for which `stays` holds to `head`: nothing is checked. Most are already written as they are to be,
    /// and those that lie next to each other are copied at once.
    #[inline]
    pub(crate) fn append_to(
        &self,
        head: &mut Vec<u8>,
        mut stays: impl FnMut(FieldLine<'_>) -> bool,
    ) {
        let mut run = 0..0;
        self.each_line(|line| {
            if !stays(line) {
                return;
            }
            match line.written() {
                Some(place) if place.start == run.end => run.end = place.end,
                Some(place) => {
                    head.extend_from_slice(&self.text[run.clone()]);
                    run = place;
                }
                None => {
                    head.extend_from_slice(&self.text[run.clone()]);
                    run = 0..0;
                    line.rewrite(head);
                }
            }
        });
        head.extend_from_slice(&self.text[run]);
    }

    /// False if no field is called `name`; true if one may be.
    #[inline]
    pub(crate) fn may_hold(&self, name: &[u8]) -> bool {
        self.names.may_hold(name)
    }

    /// The members of the comma-separated lists in every field called `name`, trimmed and without empty ones (RFC
    /// 9110 §5.6.1).
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(members)
    }

    /// The longest wait in `Retry-After`, in seconds, as a date (RFC 9110 §10.2.3) or since 1970, or in Azure's fields with
    /// milliseconds; in milliseconds from `now`. A date in the past does not count.
    pub fn retry_after_ms(&self, now: Timestamp) -> Option<u64> {
        let texts = |name| self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        let after = texts("retry-after").filter_map(|text| {
            let text = text.trim();
            let left_ms = |at: Timestamp| u64::try_from(at.millis_since(now)).ok();
            match decimal_ms(text, 1000.0) {
                Some(ms) if SINCE_1970_MS.contains(&ms) => {
                    left_ms(Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
                }
                Some(ms) => Some(ms),
                None => left_ms(time(text)?),
            }
        });
        let short = ["retry-after-ms", "x-ms-retry-after-ms"].into_iter().flat_map(texts);
        after.chain(short.filter_map(|text| decimal_ms(text.trim(), 1.0))).max()
    }

    /// The sender's clock, from `Date`.
    pub fn date(&self) -> Option<Timestamp> {
        time(std::str::from_utf8(self.first("date")?).ok()?)
    }

    /// True if the list in the fields called `name` contains `member`, whatever its case.
    pub fn list_contains(&self, name: &str, member: &str) -> bool {
        let is = |own: &[u8]| is_same_but_for_case(own, member.as_bytes());
        // Most lists have one member.
        let holds = |value: &[u8]| match memchr(b',', value) {
            None => is(value.trim_ascii()),
            Some(_) => members(value).any(is),
        };
        self.all(name).any(holds)
    }
}

/// Such a number of seconds in `Retry-After` is a time since 1970, which some servers send; in milliseconds.
const SINCE_1970_MS: Range<u64> = 1_500_000_000_000..100_000_000_000_000;

/// A number without a sign, such as `1.5`, of units of so many milliseconds; rounded up.
fn decimal_ms(text: &str, unit_ms: f64) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| is_plain)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates, and the number has no sign"
    )]
    Some((number * unit_ms).ceil() as u64)
}

/// A time in one of HTTP's formats (RFC 9110 §5.6.7).
fn time(text: &str) -> Option<Timestamp> {
    Some(Timestamp::from_system_time(httpdate::parse_http_date(text).ok()?))
}

/// The members of one comma-separated list.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    let all = std::iter::from_fn(move || {
        let list = rest?;
        let end = memchr(b',', list);
        rest = end.map(|end| &list[end + 1..]);
        Some(list[..end.unwrap_or(list.len())].trim_ascii())
    });
    all.filter(|member| !member.is_empty())
}

/// Its memory serves the thread's next head.
impl Drop for Headers {
    #[inline]
    fn drop(&mut self) {
        if self.text.capacity() + self.fields.capacity() > 0 {
            let (text, fields) = (mem::take(&mut self.text), mem::take(&mut self.fields));
            memory::give(Memory { text, fields });
        }
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |bytes| String::from_utf8_lossy(bytes);
        f.debug_map().entries(self.iter().map(|(name, value)| (words(name), words(value)))).finish()
    }
}
