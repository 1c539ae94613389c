//! The numbers of a cooldown, or of a model's rest, by which hosts tell it from others. Pure.
//!
//! Several hosts may begin the same cooldown, each with a number of its own. A host that ends it early names the numbers that
//! it knows, so that its word ends no cooldown that began after that, however late it comes.

/// The most numbers that are kept; the oldest give way.
const NUMBERS_MAX: usize = 16;

/// The way in which a cooldown began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Only this host knows it.
    Here,
    /// An earlier run saved it, or another host told it without a number.
    Elsewhere,
    /// All hosts know it by this number.
    Told(u64),
}

/// The numbers of one cooldown.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    known: Vec<u64>,
    /// A part of it is known to this host alone.
    is_own: bool,
}

/// The numbers of cooldowns that ended early.
#[derive(Debug, Default)]
pub(super) struct EndedNumbers(Vec<u64>);

fn keep(numbers: &mut Vec<u64>, number: u64) {
    if numbers.contains(&number) {
        return;
    }
    if numbers.len() >= NUMBERS_MAX {
        numbers.remove(0);
    }
    numbers.push(number);
}

impl EndedNumbers {
    /// True if what began so has ended already: its message came late.
    pub(super) fn contain(&self, begun: Begun) -> bool {
        matches!(begun, Begun::Told(number) if self.0.contains(&number))
    }

    /// Those with these `numbers` have ended.
    pub(super) fn add(&mut self, numbers: &[u64]) {
        for number in numbers {
            keep(&mut self.0, *number);
        }
    }
}

impl Numbers {
    /// It began, or grew longer.
    pub(super) fn add(&mut self, begun: Begun) {
        match begun {
            Begun::Here => self.is_own = true,
            Begun::Elsewhere => {}
            Begun::Told(number) => keep(&mut self.known, number),
        }
    }

    /// Those that hosts know.
    pub(super) fn known(&self) -> &[u64] {
        &self.known
    }

    /// Another host ended the cooldowns with these numbers. Returns true if nothing else is left of this one.
    pub(super) fn ended_elsewhere(&mut self, numbers: &[u64]) -> bool {
        let before = self.known.len();
        self.known.retain(|known| !numbers.contains(known));
        self.known.len() < before && self.known.is_empty() && !self.is_own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_on_both_sides_of_their_limit() {
        let (mut numbers, mut ended) = (Numbers::default(), EndedNumbers::default());
        let all: Vec<u64> = (0..=NUMBERS_MAX as u64).collect();
        for number in &all[..NUMBERS_MAX] {
            numbers.add(Begun::Told(*number));
        }
        ended.add(&all[..NUMBERS_MAX]);
        assert!(ended.contain(Begun::Told(0)) && numbers.known().len() == NUMBERS_MAX);
        numbers.add(Begun::Told(NUMBERS_MAX as u64));
        ended.add(&all);
        assert!(!ended.contain(Begun::Told(0)) && ended.contain(Begun::Told(1)));
        assert_eq!(numbers.known(), &all[1..]);
    }
}
