//! Some of the fields of a head, such as those that a proxy passes on. Pure.

use crate::http::message::{FieldLine, Headers};
use crate::http::rules::Rules;

/// Some of the fields of a client's head, in order. They take no memory of their own.
#[derive(Clone, Debug)]
pub struct Selected<'a> {
    all: &'a Headers,
    /// True for each field that was left out. A client's head has no more fields.
    left_out: [bool; Rules::STRICT.head_fields_max],
}

impl Selected<'_> {
    /// No fields.
    pub fn none() -> Self {
        static NONE: Headers = Headers::NONE;
        Selected::all(&NONE)
    }
}

impl<'a> Selected<'a> {
    /// All fields of `head`, which are not more than a client may send.
    pub fn all(head: &'a Headers) -> Self {
        let left_out = [false; Rules::STRICT.head_fields_max];
        debug_assert!(head.len() <= left_out.len(), "no client sends so many");
        Self { all: head, left_out }
    }

    /// Keeps the fields for which `keep` holds, called with name and value.
    #[inline]
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&'a [u8], &'a [u8]) -> bool) {
        for (is_left_out, (name, value)) in self.left_out.iter_mut().zip(self.all.iter()) {
            *is_left_out = *is_left_out || !keep(name, value);
        }
    }

    /// Removes every field called `name`.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        if self.all.may_hold(name) {
            for (is_left_out, line) in self.left_out.iter_mut().zip(self.all.lines()) {
                *is_left_out = *is_left_out || line.is_called(name);
            }
        }
    }

    /// The fields in order: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines().map(|line| (line.name(), line.value()))
    }

    /// The fields in order, as lines of a head.
    #[inline]
    pub(crate) fn lines(&self) -> impl Iterator<Item = FieldLine<'a>> {
        let all = self.left_out.iter().zip(self.all.lines());
        all.filter(|(is_left_out, _)| !**is_left_out).map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(selected: &Selected<'_>) -> Vec<String> {
        selected.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn what_was_left_out_stays_out() {
        let mut head = Headers::new();
        for (name, value) in [("A", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
            head.push(name, value);
        }
        let mut selected = Selected::all(&head);
        assert_eq!(values(&selected), ["1", "2", "3", "4"]);
        selected.remove(b"A");
        selected.retain(|name, value| {
            assert_ne!(name, b"A");
            value != b"2"
        });
        selected.remove(b"d");
        assert_eq!(values(&selected), ["4"]);
    }

    #[test]
    fn the_most_fields_that_a_client_may_send_are_told_apart() {
        let mut head = Headers::new();
        for index in 0..Rules::STRICT.head_fields_max {
            head.push("x", index.to_string());
        }
        let mut selected = Selected::all(&head);
        assert_eq!(selected.iter().count(), Rules::STRICT.head_fields_max);
        selected.retain(|_, value| matches!(value, b"0" | b"63" | b"64" | b"127"));
        assert_eq!(values(&selected), ["0", "63", "64", "127"]);
    }
}
