//! The messages that are published, and their parsing. Pure.

use crate::json;

/// A published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The record of this provider changed.
    Record(String),
    /// This provider cools down for so many milliseconds, according to the instance with this id.
    Cooldown(String, u64, String),
    /// The instance with this id told what is left of this provider's quota.
    Quota(String, String),
    /// One model of a provider rests.
    Rest {
        /// The provider.
        slug: String,
        /// The model.
        model: String,
        /// For so many milliseconds.
        ms: u64,
        /// The id of the instance that says so.
        from: String,
    },
}

/// Parses `t <slug>`, `c <slug> <milliseconds> <instance>`, `q <slug> <instance>` or a JSON object with `rest`; other
/// messages are ignored.
pub(super) fn read(text: &str) -> Option<News> {
    if text.starts_with('{') {
        let json: serde_json::Value = json::read(text.as_bytes()).ok()?;
        let member = |name: &str| json.get(name)?.as_str().map(str::to_owned);
        let ms = json.get("ms")?.as_u64()?;
        let (slug, model, from) = (member("rest")?, member("model")?, member("from")?);
        return Some(News::Rest { slug, model, ms, from });
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["t", slug] => Some(News::Record(slug.to_owned())),
        ["c", slug, ms, from] => {
            Some(News::Cooldown(slug.to_owned(), ms.parse().ok()?, from.to_owned()))
        }
        ["q", slug, from] => Some(News::Quota(slug.to_owned(), from.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read() {
        assert_eq!(read("t a-b"), Some(News::Record("a-b".into())));
        assert_eq!(read("c a 70 x"), Some(News::Cooldown("a".into(), 70, "x".into())));
        assert_eq!(read("q a x"), Some(News::Quota("a".into(), "x".into())));
        let rest = r#"{"rest":"a","model":"m 1","ms":70,"from":"x","new":1}"#;
        let [slug, model, from] = ["a", "m 1", "x"].map(str::to_owned);
        assert_eq!(read(rest), Some(News::Rest { slug, model, ms: 70, from }));
        for other in [
            "{",
            "{}",
            r#"{"rest":"a","ms":1,"from":"x"}"#,
            "",
            "t",
            "q a",
            "t a b",
            "c a -1 x",
            "c a 1",
            "x a",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
