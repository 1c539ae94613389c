//! The places of values in a token endpoint's answer. Pure.

use serde_json::Value;

/// The names in `token_fields`: those in RFC 6749 §5.1 and §5.2, and additions of issuers.
pub(crate) const TOKEN_FIELDS: [&str; 7] = [
    "access_token", "refresh_token", "expires_in", "expires_at", "refresh_token_expires_in",
    "error", "error_description",
];

/// The places of values in an answer: for each name, the path of member names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFields(Vec<(&'static str, Vec<String>)>);

impl TokenFields {
    /// The places for these names.
    pub fn new(fields: Vec<(&'static str, Vec<String>)>) -> Self {
        Self(fields)
    }

    /// The same places, with `path` for the value `name`.
    #[must_use]
    pub fn with(mut self, name: &'static str, path: Vec<String>) -> Self {
        self.0.push((name, path));
        self
    }

    /// The configured path of the value `name`, with dots between the names.
    pub fn path(&self, name: &str) -> Option<String> {
        self.named(name).map(|path| path.join("."))
    }

    /// The value `name`: at its configured place; else beside the access token if that has a configured place; else
    /// at the top level. `null` counts as absent.
    pub fn value<'a>(&self, answer: &'a Value, name: &str) -> Option<&'a Value> {
        let own = self.own_value(answer, name);
        own.or_else(|| top(answer, name).filter(|_| self.named(name).is_none()))
    }

    /// The same without the top level, where another token's value may stand, if the access token has a configured place.
    pub fn own_value<'a>(&self, answer: &'a Value, name: &str) -> Option<&'a Value> {
        let beside = self.named("access_token").filter(|_| name != "error");
        let Some(path) = self.named(name).or(beside) else { return top(answer, name) };
        let (last, folder) = path.split_last()?;
        let last = if self.named(name).is_some() { last.as_str() } else { name };
        match at(answer, folder) {
            Some(folder) => at(folder, &[last]),
            None => top(answer, name).filter(|_| is_flat(answer)),
        }
    }

    fn named(&self, name: &str) -> Option<&[String]> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, path)| path.as_slice())
    }
}

/// True if `answer` has at the top level what other answers of its issuer have in a folder.
///
/// Slack has a user's tokens in `authed_user` after a login, and at the top level after a refresh, where `token_type` says
/// whose they are: `user`. Without this word, they may be another's.
fn is_flat(answer: &Value) -> bool {
    top(answer, "token_type").and_then(Value::as_str) == Some("user")
}

fn top<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    at(answer, &[name])
}

fn at<'a>(answer: &'a Value, path: &[impl AsRef<str>]) -> Option<&'a Value> {
    let found = path.iter().map(AsRef::as_ref).try_fold(answer, |value, name| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    });
    found.filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_stands_at_its_place_else_beside_the_token_else_at_the_top() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let fields = TokenFields::new(vec![
            ("access_token", path("authed_user.access_token")),
            ("expires_in", path("meta.0.ttl")),
        ]);
        let answer = json!({
            "access_token": "bot", "refresh_token": "bot-refresh", "error": "", "scope": "a",
            "authed_user": {"access_token": "user", "refresh_token": "user-refresh", "error": "x"},
            "meta": [{"ttl": 60}],
        });
        let cases = [
            ("access_token", json!("user")),
            ("refresh_token", json!("user-refresh")),
            ("expires_in", json!(60)),
            ("error", json!("")),
            ("scope", json!("a")),
        ];
        for (name, expected) in cases {
            assert_eq!(fields.value(&answer, name), Some(&expected), "{name}");
            let at_the_top = TokenFields::default();
            assert_eq!(at_the_top.value(&answer, name), answer.get(name), "{name}");
        }
        let other = json!({"access_token": "bot", "authed_user": {"id": 1, "refresh_token": null}, "refresh_token": "r"});
        assert_eq!(fields.value(&other, "access_token"), None, "another's token is not taken");
        assert_eq!(fields.value(&other, "refresh_token"), Some(&json!("r")));
        assert_eq!(fields.path("access_token").as_deref(), Some("authed_user.access_token"));
        assert_eq!(fields.path("scope"), None);
    }

    #[test]
    fn a_folder_that_is_not_there_at_all_is_the_top_level_if_the_answer_says_whose_tokens_it_has() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let fields = TokenFields::new(vec![("access_token", path("authed_user.access_token"))]);
        let answer = |kind: &str, folder: Value| json!({"access_token": "a", "refresh_token": "r", "token_type": kind, "authed_user": folder});
        let flat = answer("user", Value::Null);
        for (name, expected) in [("access_token", "a"), ("refresh_token", "r")] {
            assert_eq!(fields.own_value(&flat, name), Some(&json!(expected)));
            for other in [answer("bot", Value::Null), answer("user", json!({"id": "U"}))] {
                assert_eq!(fields.own_value(&other, name), None, "{other}");
            }
        }
    }
}
