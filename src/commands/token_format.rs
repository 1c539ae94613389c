//! The forms in which `evertoken token` prints a token. Pure.

use serde_json::{Value, json};

use crate::cli::TokenFormat;
use crate::clock::Timestamp;
use crate::config::ProviderConfig;
use crate::credential::AccessToken;
use crate::json;
use crate::proxy::headers::credential_field;

/// The versions of `ExecCredential` that have the members used here, the default first.
const EXEC_VERSIONS: [&str; 2] =
    ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// The reason why a token can't be printed in a form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unprintable {
    /// The variable of `kubectl` is not the JSON of an `ExecCredential`.
    #[error(
        "KUBERNETES_EXEC_INFO is no ExecCredential; kubectl sets it, so leave it unset elsewhere"
    )]
    ExecInfo,
    /// `kubectl` wants another version.
    #[error(
        "kubectl wants the apiVersion '{0}'; write {versions} in its configuration",
        versions = EXEC_VERSIONS.join(" or ")
    )]
    ExecVersion(String),
    /// The provider's requests have no credential.
    #[error("{0} has auth_type \"none\", so there is no header for its token")]
    NoHeader(String),
}

/// `token` as one line. `exec_info` is the variable that `kubectl` sets.
pub(super) fn printed(
    token: &AccessToken,
    provider: &ProviderConfig,
    format: TokenFormat,
    exec_info: Option<&str>,
    now: Timestamp,
) -> Result<String, Unprintable> {
    match format {
        TokenFormat::Token => Ok(token.secret.expose().to_owned()),
        TokenFormat::Json => Ok(token.to_json(now)),
        TokenFormat::Header => header(token, provider),
        TokenFormat::ExecCredential => exec_credential(token, exec_info),
    }
}

fn header(token: &AccessToken, provider: &ProviderConfig) -> Result<String, Unprintable> {
    let none = || Unprintable::NoHeader(provider.name.clone());
    let (name, prefix) = credential_field(provider).ok_or_else(none)?;
    let name = if name == "authorization" { "Authorization" } else { name };
    Ok(format!("{name}: {prefix}{}", token.secret.expose()))
}

fn exec_credential(token: &AccessToken, exec_info: Option<&str>) -> Result<String, Unprintable> {
    let mut status = json!({ "token": token.secret.expose() });
    if let Some(at) = token.expires_at {
        // Kubernetes' times have whole seconds; rounded down, so that the token is not used after its end.
        let seconds = Timestamp::from_secs(at.as_millis().div_euclid(1000)).to_string();
        let seconds = seconds.split('.').next().unwrap_or_default();
        status["expirationTimestamp"] = format!("{seconds}Z").into();
    }
    let version = exec_version(exec_info)?;
    Ok(json!({ "apiVersion": version, "kind": "ExecCredential", "status": status }).to_string())
}

fn exec_version(exec_info: Option<&str>) -> Result<&'static str, Unprintable> {
    let Some(text) = exec_info.filter(|text| !text.is_empty()) else {
        return Ok(EXEC_VERSIONS[0]);
    };
    let info: Value = json::read(text.as_bytes()).map_err(|_| Unprintable::ExecInfo)?;
    let wanted = info["apiVersion"].as_str().ok_or(Unprintable::ExecInfo)?;
    let known = EXEC_VERSIONS.into_iter().find(|known| *known == wanted);
    known.ok_or_else(|| Unprintable::ExecVersion(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::route::tests::config;
    use crate::secret::Secret;

    fn provider(lines: &str) -> ProviderConfig {
        let text = format!(
            "providers: [{{name: P, type: anthropic, base_url: 'http://x', auth_value: v{lines}}}]"
        );
        config(&text).providers.remove(0)
    }

    fn token(expires_at: Option<i64>) -> AccessToken {
        let expires_at = expires_at.map(Timestamp::from_millis);
        AccessToken { secret: Secret::new("the-token"), expires_at }
    }

    fn shown(lines: &str, format: TokenFormat, info: Option<&str>) -> Result<String, Unprintable> {
        let now = Timestamp::from_secs(1_800_000_000);
        printed(&token(Some(1_800_000_059_999)), &provider(lines), format, info, now)
    }

    #[test]
    fn each_form() {
        let plain = |format| shown("", format, None).unwrap();
        assert_eq!(plain(TokenFormat::Token), "the-token");
        assert!(plain(TokenFormat::Json).contains("\"expires_in\":59"));
        for (lines, expected) in [
            ("", "Authorization: Bearer the-token"),
            (", auth_type: api_key", "x-api-key: the-token"),
            (", auth_header: X-Goog-Api-Key", "X-Goog-Api-Key: the-token"),
            (", auth_prefix: 'token '", "Authorization: token the-token"),
        ] {
            assert_eq!(shown(lines, TokenFormat::Header, None).unwrap(), expected, "{lines}");
        }
        let none = ProviderConfig { auth_type: crate::config::AuthType::None, ..provider("") };
        let now = Timestamp::from_secs(0);
        let told = printed(&token(None), &none, TokenFormat::Header, None, now);
        assert_eq!(told, Err(Unprintable::NoHeader("P".into())));
    }

    #[test]
    fn kubectl_gets_the_version_that_it_asks_for() {
        let asked = |info: Option<&str>| shown("", TokenFormat::ExecCredential, info);
        let of = |version: &str| {
            format!(
                r#"{{"apiVersion":"{version}","kind":"ExecCredential","status":{{"expirationTimestamp":"2027-01-15T08:00:59Z","token":"the-token"}}}}"#
            )
        };
        for info in [None, Some(""), Some(r#"{"apiVersion":"client.authentication.k8s.io/v1"}"#)] {
            assert_eq!(asked(info).unwrap(), of("client.authentication.k8s.io/v1"), "{info:?}");
        }
        let beta = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}"#;
        assert_eq!(asked(Some(beta)).unwrap(), of("client.authentication.k8s.io/v1beta1"));
        let alpha = r#"{"apiVersion":"client.authentication.k8s.io/v1alpha1"}"#;
        assert!(asked(Some(alpha)).unwrap_err().to_string().contains("v1alpha1'; write client."));
        for info in ["{}", "x", "[]", r#"{"apiVersion":1}"#] {
            assert_eq!(asked(Some(info)), Err(Unprintable::ExecInfo), "{info}");
        }
        let now = Timestamp::from_secs(0);
        let endless = printed(&token(None), &provider(""), TokenFormat::ExecCredential, None, now);
        assert!(!endless.unwrap().contains("expiration"));
    }
}
