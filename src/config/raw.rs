//! The YAML as written: values with their places, and unknown keys.
//!
//! `tree` reads the text, and `place` finds the position of a value. A [`Document`] has both and the problems; a
//! [`Section`] is a mapping that is read key by key.

mod document;
pub(super) mod homes;
mod insertion;
mod mistake;
mod nearest;
mod place;
mod section;
mod tree;

pub(crate) use document::Document;
pub(crate) use insertion::insert_provider;
pub(crate) use nearest::nearest;
pub(crate) use section::Section;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_their_nearest() {
        let document = Document::parse("tokn_url: a\nzzz: b\nreload: c\n").unwrap();
        let root = Section::root(&document);
        root.text("token_url");
        root.text("scope");
        root.finish(&["reload"]);
        let problems = document.problems("f");
        let messages: Vec<_> =
            problems.iter().map(|p| (p.message.as_str(), p.is_warning)).collect();
        assert_eq!(
            messages,
            [
                ("unknown key 'tokn_url' in the file, did you mean 'token_url'?", false),
                ("unknown key 'zzz' in the file", false),
                ("'reload' in the file is not used by evertoken", true),
            ]
        );
        assert_eq!(problems[1].position, Some((2, 1)));
    }

    #[test]
    fn broken_yaml_says_where() {
        let (position, message) = Document::parse("a: [1\nb: 2\n").err().unwrap();
        assert_eq!(position, Some((1, 4)), "{message}");
        let (position, message) = Document::parse("a: 1\na: 2\n").err().unwrap();
        assert!(message.contains("the key 'a' stands here a second time"), "{message}");
        assert_eq!(position, Some((2, 1)));
    }
}
