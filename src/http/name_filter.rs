//! A quick look at whether a field's name may be among some names, before they are compared letter by letter. Pure.

/// Some names of fields, each as one of 64 bits. Most other names have another bit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameFilter(u64);

impl NameFilter {
    /// The filter of no names.
    pub(crate) const NONE: Self = Self(0);

    /// The filter of `names`.
    pub(crate) const fn of(names: &[&str]) -> Self {
        let mut filter = Self(0);
        let mut index = 0;
        while index < names.len() {
            filter = filter.with(names[index].as_bytes());
            index += 1;
        }
        filter
    }

    /// This filter with one more name.
    #[inline]
    #[must_use]
    pub(crate) const fn with(self, name: &[u8]) -> Self {
        Self(self.0 | bit(name))
    }

    /// The names of both filters.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// False if `name` is none of the names, whatever its case.
    #[inline]
    pub(crate) const fn may_hold(self, name: &[u8]) -> bool {
        self.0 & bit(name) != 0
    }
}

/// One bit for `name`, whatever its case, by its length and its first letter. The factor keeps the usual fields of
/// requests and responses apart from those that do not cross a proxy.
#[inline]
const fn bit(name: &[u8]) -> u64 {
    const LOWER_CASE: u8 = 0x20;
    let first = if let [first, ..] = name { *first } else { 0 };
    1 << ((name.len() * 17 + (first | LOWER_CASE) as usize) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whatever_its_case_and_most_others_are_not() {
        let filter = NameFilter::of(&["connection", "te", ""]);
        for name in ["Connection", "CONNECTION", "te", "Te", ""] {
            assert!(filter.may_hold(name.as_bytes()), "{name}");
        }
        for name in ["accept", "content-type", "user-agent", "anthropic-version", "x", "t"] {
            assert!(!filter.may_hold(name.as_bytes()), "{name}");
        }
        assert!(filter.and(NameFilter::of(&["x"])).may_hold(b"X"));
        assert!(filter.with(b"accept").may_hold(b"te"));
        assert!(!NameFilter::default().may_hold(b"x"));
    }
}
