//! Tables of lines and fields by both rules, both sides of every limit, and every way to cut them into pieces.

use super::*;

/// Name and value of each field, and the length of the head.
type Outcome = Result<Option<(Vec<(String, String)>, usize)>, BadHead>;

/// Reads what comes in pieces that end at `ends`; any start line will do.
fn feed(rules: &Rules, bytes: &[u8], ends: impl Iterator<Item = usize>) -> Outcome {
    let mut lines = Lines::default();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for end in ends {
        if let Some(whole) = lines.read(&bytes[..end], rules, |_, line| Ok(line))? {
            let fields = whole.headers.iter().map(|(name, value)| (words(name), words(value)));
            return Ok(Some((fields.collect(), whole.length)));
        }
    }
    Ok(None)
}

/// The result, the same for every cut.
#[track_caller]
fn every_cut(rules: &Rules, bytes: &[u8]) -> Outcome {
    let whole = feed(rules, bytes, std::iter::once(bytes.len()));
    for cut in 0..bytes.len() {
        assert_eq!(feed(rules, bytes, [cut, bytes.len()].into_iter()), whole, "cut at {cut}");
    }
    assert_eq!(feed(rules, bytes, 1..=bytes.len()), whole, "byte by byte");
    whole
}

/// Fields of a head that is whole with them.
#[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
fn fields(all: &[(&str, &str)]) -> Result<Vec<(String, String)>, BadHead> {
    Ok(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// The results for lines after a start line by strict rules, and by lenient ones.
#[test]
fn fields_by_both_rules() {
    use BadHead::{CarriageReturn, Control, Field, LineEnd};
    let both = |outcome: Result<Vec<_>, BadHead>| (outcome.clone(), outcome);
    let lenient = |bad, all: &[_]| (Err(bad), fields(all));
    let cases: [(&[u8], _); 33] = [
        (b"\r\n", both(fields(&[]))),
        (b"X-Y:  z \r\nx-y:\t2\r\n\r\n", both(fields(&[("X-Y", "z"), ("x-y", "2")]))),
        (b"X:\r\n\r\n", both(fields(&[("X", "")]))),
        (b"X: \t \r\n\r\n", both(fields(&[("X", "")]))),
        (b"X: a\tb:c\r\n\r\n", both(fields(&[("X", "a\tb:c")]))),
        (b"X: \xc3\xa4\r\n\r\n", both(fields(&[("X", "\u{e4}")]))),
        (b"!#$%&'*+-.^_`|~09: x\r\n\r\n", both(fields(&[("!#$%&'*+-.^_`|~09", "x")]))),
        // Blanks after a name.
        (b"X : a\r\n\r\n", lenient(Field, &[("X", "a")])),
        (b"X \t: a\r\n\r\n", lenient(Field, &[("X", "a")])),
        // Lines that end with a line feed alone.
        (b"\n", lenient(LineEnd, &[])),
        (b"X: a\n\r\n", lenient(LineEnd, &[("X", "a")])),
        (b"X: a\n\n", lenient(LineEnd, &[("X", "a")])),
        (b"X: a\r\n\n", lenient(LineEnd, &[("X", "a")])),
        // Lines that go on from the one before.
        (b"X: a\r\n b\r\n\r\n", both(Err(Field))),
        (b"X: a\r\n\tb: c\r\n\r\n", both(Err(Field))),
        (b" X: a\r\n\r\n", both(Err(Field))),
        (b" : a\r\n\r\n", both(Err(Field))),
        (b": a\r\n\r\n", both(Err(Field))),
        (b"X\r\n\r\n", both(Err(Field))),
        (b"X Y: a\r\n\r\n", both(Err(Field))),
        (b"X(: a\r\n\r\n", both(Err(Field))),
        (b"X\xc3\xa4: a\r\n\r\n", both(Err(Field))),
        (b"X\t", both(Ok(Vec::new()))),
        (b"X: a\r", both(Ok(Vec::new()))),
        (b"X: a\r\n", both(Ok(Vec::new()))),
        (b"X: a\r\n\r", both(Ok(Vec::new()))),
        (b"X: a\rb\r\n\r\n", both(Err(CarriageReturn))),
        (b"X: a\r\r\n\r\n", both(Err(CarriageReturn))),
        (b"\r\r\n", both(Err(CarriageReturn))),
        (b"X: a\0b", both(Err(Control))),
        (b"X: a\x0bb", both(Err(Control))),
        (b"X: a\x7fb", both(Err(Control))),
        (b"\x16\x03\x01", both(Err(Control))),
    ];
    for (text, (strictly, leniently)) in cases {
        let bytes = [b"the start line\r\n", text].concat();
        for (rules, expected) in [(Rules::STRICT, strictly), (Rules::LENIENT, leniently)] {
            let what = bytes.escape_ascii();
            // Bytes after a head are left alone.
            let longer = [bytes.as_slice(), b"\0\n"].concat();
            match every_cut(&rules, &bytes) {
                Ok(Some((all, length))) => {
                    assert_eq!((Ok(all), length), (expected, bytes.len()), "{what} {rules:?}");
                    assert_eq!(every_cut(&rules, &longer), every_cut(&rules, &bytes), "{what}");
                }
                Ok(None) => assert_eq!(expected, Ok(Vec::new()), "{what} {rules:?}"),
                Err(bad) => assert_eq!(expected, Err(bad), "{what} {rules:?}"),
            }
        }
    }
}

#[test]
fn limits_on_both_sides() {
    for rules in [Rules::STRICT, Rules::LENIENT] {
        let whole = |text: String| feed(&rules, text.as_bytes(), [10, text.len()].into_iter());
        let most = rules.head_fields_max;
        let fields = |count: usize| whole(format!("the start\r\n{}\r\n", "X: y\r\n".repeat(count)));
        assert!(matches!(fields(most), Ok(Some((all, _))) if all.len() == most));
        assert_eq!(fields(most + 1), Err(BadHead::TooManyFields(most)));
        let sized = |bytes: usize| {
            let frame = "the start\r\nx: \r\n\r\n".len();
            whole(format!("the start\r\nx: {}\r\n\r\n", "y".repeat(bytes - frame)))
        };
        assert!(matches!(sized(HEAD_MAX_BYTES), Ok(Some((_, HEAD_MAX_BYTES)))));
        assert_eq!(sized(HEAD_MAX_BYTES + 1), Err(BadHead::TooLong));
        assert_eq!(whole("a".repeat(HEAD_MAX_BYTES - 1)), Ok(None));
        assert_eq!(whole("a".repeat(HEAD_MAX_BYTES)), Err(BadHead::TooLong));
        let empty = rules.empty_lines_before_max;
        let after = |lines: usize| format!("{}start\r\n\r\n", "\r\n".repeat(lines));
        assert!(matches!(every_cut(&rules, after(empty).as_bytes()), Ok(Some(_))));
        let over = every_cut(&rules, after(empty + 1).as_bytes());
        assert_eq!(over, Err(BadHead::EmptyLines));
    }
}

#[test]
fn numbers() {
    let most = u64::MAX.to_string();
    for (digits, expected) in [("0", Some(0)), ("007", Some(7)), (&most, Some(u64::MAX))] {
        assert_eq!(number(digits.as_bytes()), expected, "{digits}");
    }
    for wrong in ["", "18446744073709551616", "-1", "+1", "0x10", "1 1", "1,1"] {
        assert_eq!(number(wrong.as_bytes()), None, "{wrong}");
    }
}
