//! The entry of `providers.yaml` for a discovered resource. Pure.

use std::path::PathBuf;

use crate::token::scope::OFFLINE;

/// The values of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProviderEntry {
    pub name: String,
    pub base_url: String,
    pub issuer: String,
    pub client_id_file: PathBuf,
    pub client_secret_file: Option<PathBuf>,
    pub client_auth: Option<&'static str>,
    pub redirect_uri: Option<String>,
    pub scope: Option<String>,
    /// The resource's identifier (RFC 8707).
    pub resource: String,
}

impl ProviderEntry {
    /// Its lines, the first of which begins with `- `, at the left margin.
    pub(crate) fn lines(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut lines = vec![
            format!("- name: {}", quoted(&self.name)),
            "  type: \"generic\"".to_owned(),
            format!("  base_url: {}", quoted(&self.base_url)),
            "  auto_refresh_config:".to_owned(),
        ];
        let keys = [
            ("issuer", Some(self.issuer.clone())),
            ("client_id_file", Some(path(&self.client_id_file))),
            ("client_secret_file", self.client_secret_file.as_ref().map(path)),
            ("client_auth", self.client_auth.map(str::to_owned)),
            ("redirect_uri", self.redirect_uri.clone()),
            ("scope", self.scope.clone()),
        ];
        for (key, value) in keys {
            lines.extend(value.map(|value| format!("    {key}: {}", quoted(&value))));
        }
        lines.push(format!("    extra_params: {{ resource: {} }}", quoted(&self.resource)));
        lines
    }
}

/// A double-quoted scalar of YAML, which a text of JSON is.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The scope to ask for: that of the challenge, else the resource's; with `offline_access` if the issuer knows it, since
/// that stands for a refresh token (`OpenID` Connect Core §11).
pub(crate) fn scope(
    challenge: Option<&str>,
    of_resource: &[String],
    of_issuer: &[String],
) -> Option<String> {
    let asked = challenge.map_or_else(|| of_resource.join(" "), str::to_owned);
    let mut scopes: Vec<&str> = asked.split_whitespace().collect();
    if of_issuer.iter().any(|one| one == OFFLINE) && !scopes.contains(&OFFLINE) {
        scopes.push(OFFLINE);
    }
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::resolve::{Sources, resolve};
    use crate::config::{Config, Credential};

    fn read(text: &str) -> Config {
        let sources = Sources {
            environment: &|name| (name == "HOME").then(|| "/home/u".to_owned()),
            files: &|_| Ok("from-file\n".to_owned()),
            now: Timestamp::from_secs(1_800_000_000),
            file_modes: &|_| None,
            file_mode: None,
            is_root: false,
            working_folder: None,
        };
        let (config, warnings) = resolve(text, "f", &sources).unwrap();
        assert_eq!(warnings, []);
        config
    }

    #[test]
    fn an_entry_is_a_provider_with_these_values() {
        let entry = ProviderEntry {
            name: "mcp.example.com: \"x\"".into(),
            base_url: "https://mcp.example.com".into(),
            issuer: "https://login.example.com/t".into(),
            client_id_file: "/token".into(),
            redirect_uri: Some("http://127.0.0.1:5/callback".into()),
            scope: Some("a b".into()),
            resource: "https://mcp.example.com/mcp".into(),
            ..ProviderEntry::default()
        };
        let text = format!("providers:\n{}\n", entry.lines().join("\n"));
        let config = read(&text);
        assert_eq!(config.providers[0].name, entry.name);
        assert_eq!(config.providers[0].base_url, entry.base_url);
        let Credential::Refreshed(refresh) = &config.providers[0].credential else { panic!() };
        assert_eq!(refresh.client_id.as_deref(), Ok("from-file"));
        assert_eq!(refresh.issuer_for_endpoints(), Some("https://login.example.com/t"));
        assert_eq!(refresh.extra_params, [("resource".to_owned(), entry.resource.clone())]);
        assert_eq!(refresh.scope.as_deref(), Some("a b"));
        let secret = Some("/quoted".into());
        let whole = ProviderEntry {
            client_secret_file: secret,
            client_auth: Some("client_secret_basic"),
            ..entry
        };
        let lines = whole.lines();
        assert!(lines.contains(&"    client_secret_file: \"/quoted\"".to_owned()), "{lines:?}");
        assert!(
            lines.contains(&"    client_auth: \"client_secret_basic\"".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn scopes() {
        let list = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let scope = |challenge, resource: &[&str], issuer: &[&str]| {
            super::scope(challenge, &list(resource), &list(issuer))
        };
        assert_eq!(scope(None, &[], &[]), None);
        assert_eq!(scope(None, &["a", "b"], &["x"]).as_deref(), Some("a b"));
        assert_eq!(
            scope(Some("c"), &["a"], &["offline_access"]).as_deref(),
            Some("c offline_access")
        );
        assert_eq!(
            scope(Some("offline_access c"), &[], &["offline_access"]).as_deref(),
            Some("offline_access c")
        );
    }
}
