//! Unicode's composed form (NFC), by the algorithm of UAX #15 from the parts of `unicode-normalization`.
//!
//! The library's own iterator takes the tables of the compatibility forms along, 60 KB that nobody looks into.

use std::borrow::Cow;

use unicode_normalization::char::{canonical_combining_class, compose, decompose_canonical};

/// `text` in Unicode's composed form.
pub(crate) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(recomposed(&decomposed(text))) }
}

/// The characters of `text` in their parts, with their combining classes: marks of one letter in the order of their
/// classes, those of the same class as they came.
fn decomposed(text: &str) -> Vec<(u8, char)> {
    let mut parts = Vec::with_capacity(text.len());
    for character in text.chars() {
        decompose_canonical(character, |part| parts.push((canonical_combining_class(part), part)));
    }
    for marks in parts.split_mut(|(class, _)| *class == 0) {
        marks.sort_by_key(|(class, _)| *class);
    }
    parts
}

/// Joins each part with the letter before it, where both are one character together, and nothing that stays between
/// them is of the part's class or a higher one.
fn recomposed(parts: &[(u8, char)]) -> String {
    let mut out: Vec<char> = Vec::with_capacity(parts.len());
    let mut letter = None;
    // The class of what was kept last after the letter.
    let mut between = 0;
    for &(class, part) in parts {
        let joins = letter.filter(|_| between == 0 || between < class);
        if let Some(at) = joins
            && let Some(joined) = compose(out[at], part)
        {
            out[at] = joined;
            continue;
        }
        if class == 0 {
            letter = Some(out.len());
        }
        between = class;
        out.push(part);
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::composed;

    #[test]
    fn many_marks_take_no_longer_each() {
        // In the order that makes most work.
        let text = format!("a{}{}", "\u{300}".repeat(200_000), "\u{323}".repeat(200_000));
        assert_eq!(composed(&text), text.nfc().collect::<String>());
    }

    #[test]
    fn each_character_is_composed_as_by_the_library() {
        // Ideographs have no parts, and there are very many; there is nothing behind these.
        let numbers = (0..0x3400).chain(0xA000..0x2_0000).chain(0x2_F800..0x2_FA20);
        for character in numbers.filter_map(char::from_u32) {
            // Alone, after a letter, before marks of several classes, and in its parts.
            let alone = character.to_string();
            for text in [
                format!("a{character}\u{323}\u{307}"),
                format!("{character}\u{315}\u{300}\u{5ae}b{character}\u{300}"),
                alone.nfd().collect(),
                alone,
            ] {
                assert_eq!(composed(&text), text.nfc().collect::<String>(), "{text:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_composed_as_by_the_library(
            text in "[\\PCa-c\u{300}-\u{345}\u{1100}-\u{11ff}\u{ac00}-\u{ac20}\u{590}-\u{5c7}\u{900}-\u{950}]{0,12}",
        ) {
            assert_eq!(composed(&text), text.nfc().collect::<String>());
        }
    }
}
