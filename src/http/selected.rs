//! Some of the fields of a head, such as those that a proxy passes on. Pure.

use crate::http::message::{FieldLine, Headers};
use crate::http::rules::Rules;

/// Some of the fields of a client's head, in order. They take no memory of their own.
#[derive(Clone, Debug)]
pub struct Selected<'a> {
    all: &'a Headers,
    /// A bit for each field that was left out, the lowest for the first.
    left_out: u128,
}

/// The most fields of a client's head, each of which has its bit.
const FIELDS_MAX: usize = Rules::STRICT.head_fields_max;
const _: () = assert!(FIELDS_MAX <= u128::BITS as usize, "each field has a bit");

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
        debug_assert!(head.len() <= FIELDS_MAX, "no client sends so many");
        Self { all: head, left_out: 0 }
    }

    /// Keeps the fields for which `keep` holds, called with name and value.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&'a [u8], &'a [u8]) -> bool) {
        self.leave_out(|line| !keep(line.name(), line.value()));
    }

    /// Removes every field called `name`.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        if self.all.may_hold(name) {
            self.leave_out(|line| line.is_called(name));
        }
    }

    /// Leaves out the fields for which `goes` holds, besides those that were left out before.
    #[inline]
    pub(crate) fn leave_out(&mut self, mut goes: impl FnMut(FieldLine<'a>) -> bool) {
        let mut bit = 1;
        self.all.each_line(|line| {
            if self.left_out & bit == 0 && goes(line) {
                self.left_out |= bit;
            }
            bit <<= 1;
        });
    }

    /// The fields in order: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut stays = self.stays();
        self.all.iter().filter(move |_| stays())
    }

    /// Appends the fields to `head`, as its lines.
    pub(crate) fn append_to(&self, head: &mut Vec<u8>) {
        let mut stays = self.stays();
        self.all.append_to(head, |_| stays());
    }

    /// Says of each field in turn whether it was not left out. Further ones than a client may send are.
    #[inline]
    fn stays(&self) -> impl FnMut() -> bool + use<> {
        let mut left_out = self.left_out;
        move || {
            let stays = left_out & 1 == 0;
            left_out = (left_out >> 1) | (1 << (u128::BITS - 1));
            stays
        }
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
