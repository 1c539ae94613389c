//! The messages that are published, and their parsing. Pure.

use crate::json;

/// A published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The record of this provider changed.
    Record(String),
    /// A host told what is left of a provider's quota.
    Quota {
        /// The provider.
        slug: String,
        /// Its windows, as JSON; None from an older evertoken, which has them looked up.
        told: Option<String>,
        /// The id of the instance that says so.
        from: String,
    },
    /// A provider cools down, or one model of it rests.
    Rest {
        /// The provider.
        slug: String,
        /// The model; None for the whole provider.
        model: Option<String>,
        /// For so many milliseconds.
        ms: u64,
        /// Its number among hosts; an older evertoken says none.
        number: Option<u64>,
        /// The id of the instance that says so.
        from: String,
    },
    /// Such rests ended early.
    End {
        /// The provider.
        slug: String,
        /// The model; None for the whole provider.
        model: Option<String>,
        /// Their numbers.
        numbers: Vec<u64>,
        /// The id of the instance that says so.
        from: String,
    },
}

/// Parses `t <slug>`, `c <slug> <milliseconds> <instance>:<number>`, or a JSON object with `rest`, `end` or `quota`; other
/// messages are ignored. An older evertoken tells no number, and reads these as another instance's; it also tells a quota
/// as `q <slug> <instance>`.
pub(super) fn read(text: &str) -> Option<News> {
    if text.starts_with('{') {
        let json: serde_json::Value = json::read(text.as_bytes()).ok()?;
        let member = |name: &str| json.get(name)?.as_str().map(str::to_owned);
        let (model, from) = (member("model"), member("from")?);
        if let Some(slug) = member("quota") {
            return Some(News::Quota { slug, told: Some(member("told")?), from });
        }
        if let Some(slug) = member("end") {
            let numbers = json.get("numbers")?.as_array()?;
            let numbers = numbers.iter().filter_map(serde_json::Value::as_u64).collect();
            return Some(News::End { slug, model, numbers, from });
        }
        let (slug, model, ms) = (member("rest")?, Some(model?), json.get("ms")?.as_u64()?);
        let number = json.get("number").and_then(serde_json::Value::as_u64);
        return Some(News::Rest { slug, model, ms, number, from });
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["t", slug] => Some(News::Record(slug.to_owned())),
        ["c", slug, ms, from] => {
            let (from, number) = from.split_once(':').unwrap_or((from, ""));
            let (slug, from) = (slug.to_owned(), from.to_owned());
            let (ms, number) = (ms.parse().ok()?, number.parse().ok());
            Some(News::Rest { slug, model: None, ms, number, from })
        }
        ["q", slug, from] => {
            Some(News::Quota { slug: slug.to_owned(), told: None, from: from.to_owned() })
        }
        _ => None,
    }
}

/// The message that the instance `from` told what is left of the quota of the provider `slug`. It goes along, because hosts
/// with other accounts tell theirs in the same place.
pub(super) fn quota_news(slug: &str, told: &str, from: &str) -> String {
    serde_json::json!({ "quota": slug, "told": told, "from": from }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read() {
        assert_eq!(read("t a-b"), Some(News::Record("a-b".into())));
        let rest = |model: Option<&str>, number| {
            let (slug, model, from) = ("a".into(), model.map(str::to_owned), "x".into());
            Some(News::Rest { slug, model, ms: 70, number, from })
        };
        assert_eq!(read("c a 70 x"), rest(None, None));
        assert_eq!(read("c a 70 x:18446744073709551615"), rest(None, Some(u64::MAX)));
        let quota = |told: Option<&str>| {
            let told = told.map(str::to_owned);
            Some(News::Quota { slug: "a".into(), told, from: "x".into() })
        };
        assert_eq!(read("q a x"), quota(None));
        assert_eq!(read(&quota_news("a", "{\"b\": 1}", "x")), quota(Some("{\"b\": 1}")));
        let told = r#"{"rest":"a","model":"m 1","ms":70,"from":"x","new":1}"#;
        assert_eq!(read(told), rest(Some("m 1"), None));
        let told = r#"{"rest":"a","model":"m 1","ms":70,"from":"x","number":18446744073709551615}"#;
        assert_eq!(read(told), rest(Some("m 1"), Some(u64::MAX)));
        for (told, expected) in [("null", None), ("\"m 1\"", Some("m 1"))] {
            let told = format!(r#"{{"end":"a","model":{told},"numbers":[1,2],"from":"x"}}"#);
            let (slug, model, from) = ("a".into(), expected.map(str::to_owned), "x".into());
            assert_eq!(read(&told), Some(News::End { slug, model, numbers: vec![1, 2], from }));
        }
        for other in [
            "{",
            "{}",
            r#"{"rest":"a","ms":1,"from":"x"}"#,
            r#"{"end":"a","from":"x"}"#,
            r#"{"quota":"a","from":"x"}"#,
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
