//! A number of JSON that counts tokens, read digit by digit: exact, whatever its form (`25`, `2.5e1`). Pure.

/// The most digits that are read of a number. Digits after the point beyond them do not count.
const DIGITS_MAX: u32 = 18;
/// The largest exponent that is told apart: a larger one makes any number too large, or 0.
const EXPONENT_MAX: i32 = 999;

/// The part of a number that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Fraction,
    /// True for a negative one.
    Exponent(bool),
}

/// A number, as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    part: Part,
    /// The digits before the exponent.
    digits: u64,
    count: u32,
    /// The power of ten of the last digit.
    power: i32,
    exponent: i32,
}

impl Number {
    /// Begins with the first digit.
    pub(super) fn of(digit: u8) -> Self {
        let mut number = Self { part: Part::Whole, digits: 0, count: 0, power: 0, exponent: 0 };
        number.digit(digit);
        number
    }

    /// Reads on; false if the number has no such byte.
    pub(super) fn feed(&mut self, byte: u8) -> bool {
        match (byte, self.part) {
            (b'0'..=b'9', _) => self.digit(byte),
            (b'.', Part::Whole) => self.part = Part::Fraction,
            (b'e' | b'E', Part::Whole | Part::Fraction) => self.part = Part::Exponent(false),
            (b'+', Part::Exponent(_)) => {}
            (b'-', Part::Exponent(_)) => self.part = Part::Exponent(true),
            _ => return false,
        }
        true
    }

    fn digit(&mut self, digit: u8) {
        let digit = digit - b'0';
        if let Part::Exponent(_) = self.part {
            self.exponent = (self.exponent * 10 + i32::from(digit)).min(EXPONENT_MAX);
        } else if self.count < DIGITS_MAX {
            self.digits = self.digits * 10 + u64::from(digit);
            self.count += u32::from(self.digits > 0);
            self.power -= i32::from(self.part == Part::Fraction);
        } else if self.part == Part::Whole {
            self.power = (self.power + 1).min(EXPONENT_MAX);
        }
    }

    /// The whole part of its value; `u64::MAX` for more.
    pub(super) fn get(self) -> u64 {
        let exponent = match self.part {
            Part::Exponent(true) => -self.exponent,
            _ => self.exponent,
        };
        let power = self.power + exponent;
        let factor = 10_u64.checked_pow(power.unsigned_abs());
        match (power < 0, factor) {
            _ if self.digits == 0 => 0,
            (false, factor) => {
                factor.and_then(|factor| self.digits.checked_mul(factor)).unwrap_or(u64::MAX)
            }
            (true, factor) => factor.map_or(0, |factor| self.digits / factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<u64> {
        let (first, rest) = text.as_bytes().split_first().unwrap();
        let mut number = Number::of(*first);
        rest.iter().all(|byte| number.feed(*byte)).then(|| number.get())
    }

    #[test]
    fn an_exponent_was_cut_off() {
        for (text, expected) in [
            ("0", Some(0)),
            ("25", Some(25)),
            ("007", Some(7)),
            ("2.5e1", Some(25)),
            ("2.5E+1", Some(25)),
            ("250e-1", Some(25)),
            ("25e-2", Some(0)),
            ("25.0", Some(25)),
            ("25.999", Some(25)),
            ("1e3", Some(1000)),
            ("0e999", Some(0)),
            ("0.00001e7", Some(100)),
            ("1.00000000000000000000000000", Some(1)),
            ("123456789012345678", Some(123_456_789_012_345_678)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("1234567890123456789", Some(1_234_567_890_123_456_780)),
            ("99999999999999999999", Some(u64::MAX)),
            ("1e19", Some(10_000_000_000_000_000_000)),
            ("1e20", Some(u64::MAX)),
            ("1e99999999999999999999", Some(u64::MAX)),
            ("1e-99999999999999999999", Some(0)),
            ("123456789012345678901234567890e-28", Some(12)),
            ("1.2.3", None),
            ("1e2e3", None),
            ("1-2", None),
            ("1x", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
