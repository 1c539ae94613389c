//! Slugs: the short names of providers in paths, file names and keys of the token store.
//!
//! A slug is made from the provider's name, or chosen with `slug`. It contains letters and digits of any script, in
//! Unicode's composed form (NFC), so that a name typed on one machine matches a path typed on another.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use unicode_normalization::char::is_combining_mark;

use super::nfc::composed;

/// The longest slug. State files are named after it, and a file name may have 255 bytes: the name of a file that was
/// set aside has 38 more than the slug.
pub(crate) const SLUG_MAX_BYTES: usize = 200;

/// The end of a state file's name.
pub(crate) const STATE_FILE_SUFFIX: &str = ".json";

/// The characters of a slug that a path may hold unencoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The slug for the name `name`: lower case, with a `-` for each run of characters that are neither letters nor
/// digits. Empty if the name has no letter or digit.
pub fn of_name(name: &str) -> String {
    let mut slug = String::new();
    for character in composed(name).chars().flat_map(char::to_lowercase) {
        if character.is_alphanumeric() || (is_combining_mark(character) && ends_in_word(&slug)) {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    // The lower case of a composed letter may be a letter and a mark.
    composed(slug.trim_end_matches('-')).into_owned()
}

/// The state file for `slug` in the state folder.
pub(crate) fn state_file(folder: &Path, slug: &str) -> PathBuf {
    folder.join(format!("{slug}{STATE_FILE_SUFFIX}"))
}

/// The problem with a configured `slug`; None if it can be used.
pub(crate) fn problem(slug: &str) -> Option<String> {
    let is_plain = |character: char| {
        character.is_alphanumeric() || is_combining_mark(character) || "-_".contains(character)
    };
    if slug.len() > SLUG_MAX_BYTES {
        let length = slug.len();
        return Some(format!("it has {length} bytes, and at most {SLUG_MAX_BYTES} can be used"));
    }
    if !slug.starts_with(char::is_alphanumeric) {
        return Some("it must begin with a letter or a digit".to_owned());
    }
    if let Some(other) = slug.chars().find(|character| !is_plain(*character)) {
        return Some(format!("it may hold letters, digits, '-' and '_', and not {other:?}"));
    }
    let lower: String = slug.chars().flat_map(char::to_lowercase).collect();
    (lower != slug).then(|| format!("it must be in lower case: '{lower}'"))
}

/// The slug in a segment of a path, which may be percent-encoded; None if the segment is not text.
pub(crate) fn of_segment(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(composed(segment));
    }
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(Cow::Owned(composed(&decoded).into_owned()))
}

/// `slug` as it appears in a URL.
pub fn in_path(slug: &str) -> String {
    utf8_percent_encode(slug, ENCODED).to_string()
}

fn ends_in_word(slug: &str) -> bool {
    slug.ends_with(|last: char| last != '-')
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    #[test]
    fn slugs_of_names_in_any_script() {
        let cases = [
            ("Claude Code Official", "claude-code-official"),
            ("Claude Code  Official!", "claude-code-official"),
            ("  a__B--c ", "a-b-c"),
            ("克劳德官方", "克劳德官方"),
            ("Claude 官方", "claude-官方"),
            ("Claude 备用", "claude-备用"),
            ("Клод Официальный", "клод-официальный"),
            ("Ä b-c", "ä-b-c"),
            ("ÉCOLE", "école"),
            ("クロード（予備）", "クロード-予備"),
            ("클로드 공식", "클로드-공식"),
            // Vowel signs, viramas and tone marks belong to their letters.
            ("हिन्दी", "हिन्दी"),
            ("ร้านค้า", "ร้านค้า"),
            ("İstanbul", "i̇stanbul"),
            ("GPT-4o ①", "gpt-4o-①"),
            ("🚀 fast 🚀", "fast"),
            ("🚀", ""),
            ("!", ""),
            ("", ""),
            ("../../etc", "etc"),
        ];
        for (name, slug) in cases {
            assert_eq!(of_name(name), slug, "{name}");
            if !slug.is_empty() {
                assert_eq!(problem(slug), None, "{name}");
                assert_eq!(of_name(slug), slug, "{name}");
            }
        }
    }

    #[test]
    fn a_name_typed_in_parts_is_the_composed_one() {
        let parts: String = "Café 클로드".nfd().collect();
        assert_ne!(parts, "Café 클로드");
        assert_eq!(of_name(&parts), "café-클로드");
        assert_eq!(of_segment(&parts.to_lowercase()), Some("café 클로드".into()));
    }

    #[test]
    fn what_a_written_slug_may_hold() {
        for fine in ["a", "0", "backup-2", "a_b", "官方", "é", "हिन्दी", &"a".repeat(SLUG_MAX_BYTES)]
        {
            assert_eq!(problem(fine), None, "{fine}");
        }
        let cases = [
            ("", "must begin with a letter or a digit"),
            ("-a", "must begin with a letter or a digit"),
            ("_a", "must begin with a letter or a digit"),
            (".", "must begin with a letter or a digit"),
            ("..", "must begin with a letter or a digit"),
            ("../x", "must begin with a letter or a digit"),
            ("a/b", "not '/'"),
            ("a.b", "not '.'"),
            ("a b", "not ' '"),
            ("a\n", "not '\\n'"),
            ("a%2f", "not '%'"),
            ("A", "in lower case: 'a'"),
            ("É", "in lower case: 'é'"),
        ];
        for (slug, part) in cases {
            let why = problem(slug).unwrap_or_default();
            assert!(why.contains(part), "{slug:?}: {why}");
        }
        assert!(problem(&"a".repeat(SLUG_MAX_BYTES + 1)).is_some());
        // In bytes, because it becomes a file name.
        assert!(problem(&"官".repeat(SLUG_MAX_BYTES / 3)).is_none());
        assert!(problem(&"官".repeat(SLUG_MAX_BYTES / 3 + 1)).is_some());
    }

    #[test]
    fn segments_of_paths() {
        let official = "%E5%85%8B%E5%8A%B3%E5%BE%B7%E5%AE%98%E6%96%B9";
        assert_eq!(in_path("克劳德官方"), official);
        assert_eq!(in_path("claude-code_1"), "claude-code_1");
        let cases = [
            ("claude", Some("claude")),
            ("%63laude", Some("claude")),
            (official, Some("克劳德官方")),
            ("克劳德官方", Some("克劳德官方")),
            ("%e5%ae%98", Some("官")),
            // Half a character and an encoded slash are no slug.
            ("%E5%85", None),
            ("a%2Fb", Some("a/b")),
            ("%", Some("%")),
        ];
        for (segment, slug) in cases {
            assert_eq!(of_segment(segment).as_deref(), slug, "{segment}");
        }
    }
}
