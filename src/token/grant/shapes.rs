//! Token answers of programs and endpoints that are no OAuth, in the shape of OAuth (RFC 6749 §5.1). Pure.

use serde_json::{Value, json};

use crate::config::token_fields::TokenFields;
use crate::expiry;

/// The places of a token, unless `token_fields` names one, each with its user:
const TOKENS: [&[&str]; 10] = [
    // OAuth, and the metadata servers of Google and Azure;
    &["access_token"],
    // az account get-access-token, and the cache of AWS SSO;
    &["accessToken"],
    // Kubernetes ExecCredential;
    &["status", "token"],
    // gcloud config config-helper;
    &["credential", "access_token"],
    // gcloud auth print-access-token, GitHub;
    &["token"],
    &["Token"],
    // AWS CodeArtifact;
    &["authorizationToken"],
    // AWS STS get-web-identity-token;
    &["WebIdentityToken"],
    // OpenID Connect;
    &["id_token"],
    // credential_process of AWS.
    &["SessionToken"],
];
/// Members with a lifetime in seconds.
const LIFETIMES: [&str; 2] = ["expires_in", "expiresIn"];
/// Members with a point in time. az writes both `expires_on`, in seconds since 1970, and `expiresOn`, in local time.
const ENDS: [&str; 10] = [
    "expires_at", "expires_on", "expiresAt", "expiry", "token_expiry", "expirationTimestamp",
    "Expiration", "expiration", "expires", "expiresOn",
];

/// The values of an answer, where they stand.
pub(crate) struct Shape<'a> {
    answer: &'a Value,
    fields: TokenFields,
    /// The zone of a time without an offset, in the form of the variable `TZ`; None for the system's.
    zone: Option<&'a str>,
}

impl<'a> Shape<'a> {
    /// Finds the token in `answer`; None if there is none.
    pub(crate) fn of(
        answer: &'a Value,
        fields: &TokenFields,
        zone: Option<&'a str>,
    ) -> Option<Self> {
        if fields.path("access_token").is_some() {
            return Some(Self { answer, fields: fields.clone(), zone });
        }
        let is_there = |path: &&&[&str]| {
            let found = path.iter().try_fold(answer, |value, name| value.get(name));
            found.is_some_and(Value::is_string)
        };
        let path = TOKENS.iter().find(is_there)?;
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        Some(Self { answer, fields: fields.clone().with("access_token", path), zone })
    }

    /// The same answer in the shape of OAuth. A point in time whose form is known is preferred to a lifetime if
    /// `prefers_end` says so, because a program may print an answer that it got some time ago.
    pub(crate) fn as_oauth(&self, prefers_end: bool) -> Value {
        let value = |name: &str| self.fields.value(self.answer, name);
        let read = |end: &Value| expiry::read(end, self.zone);
        // Go writes its zero, 0001-01-01, for a token without an end.
        let is_none = |end: &&Value| read(end).is_some_and(|at| at.as_millis() <= 0);
        let end = ENDS.iter().find_map(|name| value(name)).filter(|end| !is_none(end));
        let known = end.and_then(read);
        let mut oauth = json!({});
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                oauth[name] = value;
            }
        };
        let lifetime = LIFETIMES.iter().find_map(|name| value(name));
        put("expires_in", lifetime.filter(|_| !prefers_end || known.is_none()).cloned());
        put("expires_at", known.map(|at| at.as_millis().into()).or_else(|| end.cloned()));
        let others = ["access_token", "refresh_in", "earliest_refresh_at", "scope"];
        for name in others {
            put(name, value(name).cloned());
        }
        oauth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(answer: &str, prefers_end: bool) -> Option<Value> {
        let answer = serde_json::from_str(answer).unwrap();
        let shape = Shape::of(&answer, &TokenFields::default(), Some("<+08>-8"))?;
        Some(shape.as_oauth(prefers_end))
    }

    const AT: i64 = 1_800_000_000_000; // 2027-01-15T08:00:00Z

    #[test]
    fn the_token_and_its_end_are_found_in_every_known_shape() {
        let cases = [
            r#"{"access_token":"t","expires_at":1800000000}"#,
            r#"{"access_token":"t","token_type":"Bearer","expiry":"2027-01-15T16:00:00+08:00"}"#,
            r#"{"accessToken":"t","expiresOn":"2027-01-15 16:00:00.000000","tokenType":"Bearer"}"#,
            r#"{"accessToken":"t","expiresOn":"2000-01-01 00:00:00.000000","expires_on":1800000000}"#,
            r#"{"kind":"ExecCredential","status":{"token":"t","expirationTimestamp":"2027-01-15T08:00:00Z"}}"#,
            r#"{"credential":{"access_token":"t","token_expiry":"2027-01-15T08:00:00Z"},"sentinels":{}}"#,
            r#"{"token":"t","expires_at":1800000000,"endpoints":{}}"#,
            r#"{"Version":1,"Token":"t","Expiration":"2027-01-15T08:00:00Z"}"#,
            r#"{"authorizationToken":"t","expiration":1800000000}"#,
            r#"{"Version":1,"AccessKeyId":"a","SecretAccessKey":"s","SessionToken":"t","Expiration":"2027-01-15T08:00:00Z"}"#,
        ];
        for answer in cases {
            let expected = json!({"access_token": "t", "expires_at": AT});
            assert_eq!(shaped(answer, true), Some(expected), "{answer}");
        }
        for none in [r#"{"status":{"phase":"x"}}"#, r#"{"token":7}"#, r#"{"token":null}"#, "{}"] {
            assert_eq!(shaped(none, true), None, "{none}");
        }
    }

    #[test]
    fn the_end_counts_before_the_lifetime_only_where_the_answer_may_be_old() {
        let both = r#"{"access_token":"t","expires_in":60,"expires_on":"1800000000"}"#;
        let end = json!({"access_token": "t", "expires_at": AT});
        assert_eq!(shaped(both, true), Some(end));
        let whole = json!({"access_token": "t", "expires_in": 60, "expires_at": AT});
        assert_eq!(shaped(both, false), Some(whole));
        let odd = r#"{"token":"t","expires_in":60,"expires_at":"soon","refresh_in":9}"#;
        let no_end = r#"{"access_token":"t","expiry":"0001-01-01T00:00:00Z"}"#;
        assert_eq!(shaped(no_end, true), Some(json!({"access_token": "t"})));
        let kept =
            json!({"access_token": "t", "expires_in": 60, "expires_at": "soon", "refresh_in": 9});
        assert_eq!(shaped(odd, true), Some(kept), "for the warning");
    }

    #[test]
    fn token_fields_name_other_places() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let fields = TokenFields::new(vec![
            ("access_token", path("auth.client_token")),
            ("expires_in", path("auth.lease_duration")),
        ]);
        let vault = json!({"auth": {"client_token": "t", "lease_duration": 60}, "token": "no"});
        let shape = Shape::of(&vault, &fields, None).unwrap();
        assert_eq!(shape.as_oauth(true), json!({"access_token": "t", "expires_in": 60}));
    }
}
