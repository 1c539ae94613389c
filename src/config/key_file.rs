//! The content of a `key_file`: a private key in PEM, or Google's JSON file for a service account, which holds one. Pure.

use serde_json::Value;

use crate::config::url;
use crate::json;
use crate::secret::Secret;
use crate::signing::{Algorithm, KeyKind, KeyProblem, SigningKey};

/// The content of a `key_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFile {
    pem: Secret,
    /// The service account; None for a bare key.
    pub(crate) account: Option<ServiceAccount>,
}

/// The service account that a key belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceAccount {
    /// `client_email`, the assertion's `iss`.
    pub(crate) email: String,
    /// `private_key_id`, the assertion's `kid`.
    pub(crate) key_id: Option<String>,
    /// `token_uri`.
    pub(crate) token_url: Option<String>,
}

/// The reason why a `key_file` can't be used. `Display` continues after the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFileProblem {
    /// It holds no key that can sign.
    #[error(transparent)]
    Key(KeyProblem),
    /// A credentials file of Google's of another type.
    #[error(
        "it is a credentials file of the type '{0}', which has no key; only one of a service_account can sign{hint}",
        hint = hint(.0)
    )]
    Type(String),
    /// A member of a service account's file is missing.
    #[error("it is the file of a service account, but has no '{0}'")]
    Lacks(&'static str),
    /// The token endpoint in a service account's file would get an assertion unencrypted.
    #[error("its 'token_uri' is not an https URL")]
    TokenUrl,
    /// The key does not fit the configured algorithm.
    #[error(
        "it holds a key of the kind {kind}, but 'algorithm' is {algorithm}; {fitting} fits this key",
        kind = .1.name(), algorithm = .0.name(), fitting = .1.usual_algorithm().name()
    )]
    Unfit(Algorithm, KeyKind),
}

/// The way to use another type of credentials file.
fn hint(kind: &str) -> &'static str {
    match kind {
        "authorized_user" => {
            "; write its client_id, client_secret and refresh_token as auto_refresh_config does for the refresh grant"
        }
        "external_account" => {
            "; write its audience, subject_token_type and token_url with grant_type \"token_exchange\""
        }
        _ => "",
    }
}

impl KeyFile {
    /// Reads the content of a file.
    pub(crate) fn read(text: &Secret) -> Result<Self, KeyFileProblem> {
        let Ok(Value::Object(object)) = json::read::<Value>(text.expose().as_bytes()) else {
            return Ok(Self { pem: text.clone(), account: None });
        };
        let member =
            |name| object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        match member("type") {
            Some("service_account") => {}
            Some(other) => return Err(KeyFileProblem::Type(shown(other))),
            None => return Err(KeyFileProblem::Key(KeyProblem::Json)),
        }
        let needed = |name| member(name).ok_or(KeyFileProblem::Lacks(name));
        let token_url = member("token_uri");
        if !token_url.is_none_or(url::is_safe_for_secrets) {
            return Err(KeyFileProblem::TokenUrl);
        }
        Ok(Self {
            pem: Secret::new(needed("private_key")?),
            account: Some(ServiceAccount {
                email: needed("client_email")?.to_owned(),
                key_id: member("private_key_id").map(str::to_owned),
                token_url: token_url.map(str::to_owned),
            }),
        })
    }

    /// Its private key, and the algorithm to sign with: `chosen`, else the usual one of the key's kind.
    pub(crate) fn key(
        &self,
        chosen: Option<Algorithm>,
    ) -> Result<(SigningKey, Algorithm), KeyFileProblem> {
        let key = SigningKey::parse(self.pem.expose()).map_err(KeyFileProblem::Key)?;
        let kind = key.kind();
        match chosen {
            None => Ok((key, kind.usual_algorithm())),
            Some(algorithm) if algorithm.key_kind() == kind => Ok((key, algorithm)),
            Some(algorithm) => Err(KeyFileProblem::Unfit(algorithm, kind)),
        }
    }
}

/// The start of a word that a file holds in the place of a type.
fn shown(word: &str) -> String {
    const SHOWN_MAX_CHARS: usize = 40;
    word.chars().filter(char::is_ascii_graphic).take(SHOWN_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signing::tests::{P256, RSA};

    fn read(text: &str) -> Result<KeyFile, KeyFileProblem> {
        let file = KeyFile::read(&Secret::new(text))?;
        file.key(None).map(|_| file)
    }

    #[test]
    fn a_bare_key_and_a_file_of_a_service_account() {
        assert_eq!(read(P256).unwrap().account, None);
        let mut json = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": RSA,
            "client_email": "a@p.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
        });
        let account = read(&json.to_string()).unwrap().account.unwrap();
        assert_eq!(account.email, "a@p.iam.gserviceaccount.com");
        assert_eq!(account.key_id.as_deref(), Some("k1"));
        assert_eq!(account.token_url.as_deref(), Some("https://oauth2.googleapis.com/token"));
        json["token_uri"] = "http://oauth2.googleapis.com/token".into();
        assert_eq!(read(&json.to_string()), Err(KeyFileProblem::TokenUrl));
        json["token_uri"] = "http://127.0.0.1:1/token".into();
        read(&json.to_string()).unwrap();
        json["private_key"] = "".into();
        assert_eq!(read(&json.to_string()), Err(KeyFileProblem::Lacks("private_key")));
        json["private_key"] = "x".into();
        assert_eq!(read(&json.to_string()), Err(KeyFileProblem::Key(KeyProblem::NoPem)));
    }

    #[test]
    fn the_algorithm_is_the_chosen_one_if_it_fits_the_key() {
        let algorithm = |text, chosen| {
            KeyFile::read(&Secret::new(text)).unwrap().key(chosen).map(|(_, algorithm)| algorithm)
        };
        assert_eq!(algorithm(RSA, None), Ok(Algorithm::Rs256));
        assert_eq!(algorithm(RSA, Some(Algorithm::Ps256)), Ok(Algorithm::Ps256));
        assert_eq!(algorithm(P256, None), Ok(Algorithm::Es256));
        let told = algorithm(P256, Some(Algorithm::Rs256)).unwrap_err().to_string();
        assert_eq!(
            told,
            "it holds a key of the kind P-256, but 'algorithm' is RS256; ES256 fits this key"
        );
    }

    #[test]
    fn other_json_is_named() {
        for (text, part) in [
            (r#"{"type":"authorized_user","refresh_token":"r"}"#, "'authorized_user'"),
            (r#"{"type":"external_account"}"#, "grant_type \"token_exchange\""),
            (r#"{"kty":"RSA"}"#, "JWK"),
            ("{", "JWK"),
        ] {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(part), "{text}: {told}");
        }
        let long = json!({"type": "x".repeat(1000)}).to_string();
        assert!(read(&long).unwrap_err().to_string().len() < 200);
    }
}
