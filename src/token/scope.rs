//! Scopes as texts (RFC 6749 §3.3): the granted scope of an answer, and the comparison of two scopes. Pure.

use serde_json::Value;

/// The scope that asks for a refresh token (`OpenID` Connect Core §11).
pub(crate) const OFFLINE: &str = "offline_access";
/// The longest granted scope that is remembered; words beyond it count as not granted.
const SCOPE_MAX_BYTES: usize = 16 * 1024;

/// The value of `scope` in a token answer: a text, or, as some issuers write it, a list of texts. None if it says
/// nothing.
pub(crate) fn granted(scope: &Value) -> Option<String> {
    let words: Vec<_> = match scope {
        Value::String(text) => text.split_whitespace().collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let mut scope = String::new();
    for word in words {
        let blank = usize::from(!scope.is_empty());
        if scope.len() + blank + word.len() > SCOPE_MAX_BYTES {
            break;
        }
        scope.push_str(&" "[..blank]);
        scope.push_str(word);
    }
    (!scope.is_empty()).then_some(scope)
}

/// True if two scopes hold the same words; their order has no meaning.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    sorted(one) == sorted(other)
}

/// True if `granted`, which came with a refresh token, lacks a word of `asked`. GitHub puts commas between its words, and
/// Microsoft leaves `offline_access` out, which brought the refresh token.
pub(crate) fn lacks(granted: &str, asked: &str) -> bool {
    let granted: Vec<_> = granted.split([' ', ',']).collect();
    let mut asked = asked.split_whitespace().flat_map(|word| word.split(','));
    asked.any(|word| word != OFFLINE && !granted.contains(&word))
}

fn sorted(scope: &str) -> Vec<&str> {
    let mut words: Vec<_> = scope.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_of_answers() {
        for (answer, scope) in [
            (json!({}), None),
            (json!(null), None),
            (json!(""), None),
            (json!(" "), None),
            (json!([]), None),
            (json!(5), None),
            (json!("b  a"), Some("b a")),
            (json!(["b", "a"]), Some("b a")),
        ] {
            assert_eq!(granted(&answer).as_deref(), scope, "{answer}");
        }
    }

    #[test]
    fn a_scope_on_both_sides_of_its_limit() {
        let first = "x".repeat(SCOPE_MAX_BYTES - 2);
        let of = |more: &str| granted(&json!(format!("{first} {more}"))).unwrap();
        assert!(is_same(&of("y"), &format!("{first} y")));
        assert!(is_same(&of("yy"), &first));
    }

    #[test]
    fn order_and_repetition_have_no_meaning() {
        assert!(is_same("a b", "b  a b") && !is_same("a b", "a") && !is_same("a", "a b"));
        assert!(lacks("a", "a b") && !lacks("a b c", "c a") && !lacks("a", ""));
    }

    /// Each login at these was followed by a warning that scopes are missing.
    #[test]
    fn githubs_commas_and_microsofts_silence_lack_nothing() {
        assert!(!lacks("gist,repo", "repo gist") && !lacks("repo gist", "gist,repo"));
        assert!(lacks("gist,repo", "repo gist user"));
        assert!(!lacks(
            "https://graph.microsoft.com/.default",
            "offline_access https://graph.microsoft.com/.default"
        ));
    }
}
