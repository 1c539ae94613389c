//! `token_request`, and the providers whose tokens such requests carry.

use crate::config::raw::{Section, nearest};
use crate::config::resolve::request_fields::{read_auth_header, read_auth_prefix, read_headers};
use crate::config::resolve::sources::Sources;
use crate::config::{
    Bearer, Credential, EndpointRequest, GrantType, ProviderConfig, find_provider,
};

/// The header field of a credential, unless another one is written.
const AUTHORIZATION: &str = "authorization";
/// Keys of OAuth that such a request does not use.
const UNUSED: [&str; 7] = [
    "client_id_env", "client_id_file", "client_secret_env", "client_secret_file", "client_auth",
    "client_assertion", "issuer",
];

/// Reads the section.
pub(super) fn read(parent: &Section<'_>, sources: &Sources<'_>) -> EndpointRequest {
    for key in UNUSED.iter().filter(|key| parent.has(key)) {
        parent.warn(key, format!("'{key}' is not used with a 'token_request'"));
    }
    let section = parent.section("token_request");
    let secret = sources.secret(&section, "bearer_env", "bearer_file", false);
    let provider = section.text("bearer_provider");
    if provider.is_some() && secret.is_some() {
        let message = "give one of bearer_env, bearer_file and bearer_provider";
        section.error("bearer_provider", message);
    }
    if let Some(Ok(found)) = secret.as_ref().map(|secret| &secret.found)
        && !found.is_visible()
    {
        let key = secret.as_ref().map_or("bearer_env", |secret| secret.key);
        let message = "the credential holds a blank or another byte that no header field may hold";
        section.error(key, message);
    }
    let bearer = match (provider, secret) {
        (Some(name), _) => Some(Bearer::Provider(name)),
        (None, Some(secret)) => Some(Bearer::Secret { found: secret.found, file: secret.file }),
        (None, None) => None,
    };
    if bearer.is_none() {
        for key in ["auth_header", "auth_prefix"].into_iter().filter(|key| section.has(key)) {
            section
                .error(key, format!("'{key}' needs a bearer_env, bearer_file or bearer_provider"));
        }
    }
    let bearer_header = read_auth_header(&section)
        .map_or_else(|| AUTHORIZATION.to_owned(), |name| name.to_ascii_lowercase());
    let usual = if bearer_header == AUTHORIZATION { "Bearer " } else { "" };
    let request = EndpointRequest {
        method: section.choice("method", &[("GET", "GET"), ("POST", "POST")]),
        bearer,
        bearer_prefix: read_auth_prefix(&section).unwrap_or_else(|| usual.to_owned()),
        bearer_header,
        headers: read_headers(&section),
    };
    section.finish(&[]);
    request
}

/// Reports requests whose `bearer_provider` does not exist, has no token, or needs their own token in its turn.
pub(super) fn check_providers(sections: &[Section<'_>], providers: &[ProviderConfig]) {
    for (index, section) in sections.iter().enumerate() {
        let Some(name) = bearer_of(&providers[index]) else { continue };
        if let Some(problem) = problem_of(name, index, providers) {
            let own = section.section("auto_refresh_config").section("token_request");
            own.error("bearer_provider", problem);
        }
    }
}

/// The provider whose token the token request of `provider` carries.
fn bearer_of(provider: &ProviderConfig) -> Option<&str> {
    let Credential::Refreshed(refresh) = &provider.credential else { return None };
    match &refresh.grant_type {
        GrantType::Request(request) => request.provider(),
        _ => None,
    }
}

fn problem_of(name: &str, index: usize, providers: &[ProviderConfig]) -> Option<String> {
    let Some(found) = find_provider(providers, name) else {
        let near = nearest(name, providers.iter().map(|one| one.name.as_str()));
        let hint = near.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
        return Some(format!("there is no provider '{name}'{hint}"));
    };
    if !providers[found].enabled {
        return Some(format!("provider '{name}' is disabled, so it has no token"));
    }
    if matches!(providers[found].credential, Credential::None | Credential::Passthrough) {
        return Some(format!("provider '{name}' has no token of its own"));
    }
    let mut next = Some(found);
    for _ in providers {
        let at = next?;
        if at == index {
            return Some(format!(
                "the token of provider '{name}' can't be had before this one: each waits for the other"
            ));
        }
        next = bearer_of(&providers[at]).and_then(|name| find_provider(providers, name));
    }
    // A circle without this provider, which is reported for one of its members.
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{document, fine, refresh, refused, told};

    /// A provider whose `auto_refresh_config` has these lines.
    fn with(lines: &str) -> String {
        let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
        document("", &format!("auto_refresh_config:\n{lines}"))
    }

    fn read(lines: &str) -> EndpointRequest {
        let config = fine(&with(lines));
        match &refresh(&config).grant_type {
            GrantType::Request(request) => (**request).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_has_a_bearer_of_its_own_and_no_client() {
        let request = read(
            "token_url: https://api.github.com/copilot_internal/v2/token\ntoken_request: {bearer_env: TOKEN, auth_prefix: 'token ', headers: {editor-version: vscode/1.96.0}}",
        );
        assert_eq!((request.method, request.bearer_prefix.as_str()), ("GET", "token "));
        assert_eq!(request.bearer_header, "authorization");
        assert_eq!(request.headers, [("editor-version".to_owned(), "vscode/1.96.0".to_owned())]);
        let Some(Bearer::Secret { found: Ok(_), file: None }) = request.bearer else { panic!() };
        let request = read(
            "token_url: https://i/t\ntoken_request: {method: POST, bearer_file: /token, auth_header: X-Vault-Token}",
        );
        assert_eq!((request.method, request.bearer_prefix.as_str()), ("POST", ""));
        assert_eq!(request.bearer_header, "x-vault-token");
        assert_eq!(request.file().unwrap().to_str(), Some("/token"));
        assert_eq!(read("token_url: https://i/t\ntoken_request: {}").bearer, None);
    }

    /// Metadata servers are at a link-local address, and speak http alone.
    #[test]
    fn http_is_for_metadata_servers_without_a_bearer() {
        for host in [
            "169.254.169.254", "metadata.google.internal", "[fd00:ec2::254]", "[fe80::a9fe:a9fe]",
            "127.0.0.1",
        ] {
            let bare = format!(
                "token_url: http://{host}/token\ntoken_request: {{headers: {{metadata: 'true'}}}}"
            );
            read(&bare);
        }
        for (host, request) in [
            ("169.254.169.254", "{bearer_env: TOKEN}"),
            ("metadata.google.internal", "{bearer_provider: P}"),
            ("169.253.169.254", "{}"),
            ("metadata.google.internal.evil.example", "{}"),
            ("10.0.0.1", "{}"),
        ] {
            let told =
                told(&with(&format!("token_url: http://{host}/t\ntoken_request: {request}")));
            assert!(told[0].contains("'token_url' must be https"), "{host}: {told:?}");
        }
        let plain = told(&with(
            "token_url: http://169.254.169.254/t\nclient_id_env: ID\nrefresh_token_env: TOKEN",
        ));
        assert!(plain[0].contains("'token_url' must be https"), "{plain:?}");
    }

    #[test]
    fn mistakes_are_shown_at_their_places() {
        let cases = [
            ("token_request: {}", "f:7:7: auto_refresh_config needs a 'token_url'"),
            (
                "token_url: https://i/t\ntoken_request: {method: PUT}",
                "f:8:31: 'method' must be one of \"GET\", \"POST\", not \"PUT\"",
            ),
            (
                "token_url: https://i/t\ntoken_request: {bearer_env: TOKEN, bearer_provider: P}",
                "f:8:59: give one of bearer_env, bearer_file and bearer_provider",
            ),
            (
                "token_url: https://i/t\ntoken_request: {auth_prefix: 'token '}",
                "f:8:36: 'auth_prefix' needs a bearer_env, bearer_file or bearer_provider",
            ),
            (
                "token_url: https://i/t\ntoken_request: {bearer_envs: TOKEN}",
                "f:8:23: unknown key 'bearer_envs' in token_request, did you mean 'bearer_env'?",
            ),
            (
                "token_url: https://i/t\ntoken_request: {}\ngrant_type: jwt_bearer",
                "f:9:19: a 'token_request' takes the place of a 'grant_type'",
            ),
            (
                "token_url: https://i/t\ntoken_request: {}\nrefresh_token_env: TOKEN",
                "f:9:26: a 'token_request' uses no refresh token",
            ),
            (
                "token_url: https://i/t\ntoken_request: {bearer_file: /blanks}",
                "f:8:36: the credential holds a blank or another byte that no header field may hold",
            ),
            (
                "token_command: [x]\ntoken_request: {}",
                "f:8:22: give a 'token_command' or a 'token_request', not both",
            ),
        ];
        for (lines, message) in cases {
            let all = told(&with(lines));
            assert!(all.iter().any(|one| one.starts_with(message)), "{lines}: {all:?}");
            assert!(
                crate::config::resolve::resolve(&with(lines), "f", &super::super::tests::sources())
                    .is_err()
            );
        }
        let unused = told(&with("token_url: https://i/t\ntoken_request: {}\nclient_id_env: ID"));
        assert_eq!(unused, ["f:9:22: warning: 'client_id_env' is not used with a 'token_request'"]);
    }

    /// Two providers: the first one's request carries the token of `name`; the second has these lines.
    fn two(name: &str, second: &str) -> String {
        format!(
            "providers:\n  - {{name: A, type: generic, base_url: 'https://x', auto_refresh_config: {{token_url: 'https://i/t', token_request: {{bearer_provider: {name}}}}}}}\n  - {{name: B b, type: generic, base_url: 'https://x', {second}}}\n"
        )
    }

    #[test]
    fn a_bearer_provider_exists_has_a_token_and_is_in_no_circle() {
        let of = |name: &str| {
            format!(
                "auto_refresh_config: {{token_url: 'https://i/t', token_request: {{bearer_provider: {name}}}}}"
            )
        };
        fine(&two("B b", "auth_value: x"));
        fine(&two("b-b", "auto_refresh_config: {credentials_file: /token}"));
        let cases = [
            (two("C", "auth_value: x"), "there is no provider 'C'"),
            (two("B a", "auth_value: x"), "there is no provider 'B a', did you mean 'B b'?"),
            (
                two("B b", "auth_value: x, enabled: false"),
                "provider 'B b' is disabled, so it has no token",
            ),
            (two("B b", "auth_type: none"), "provider 'B b' has no token of its own"),
            (two("B b", "auth_value: passthrough"), "provider 'B b' has no token of its own"),
            (two("A", "auth_value: x"), "can't be had before this one: each waits for the other"),
            (two("B b", &of("A")), "can't be had before this one: each waits for the other"),
        ];
        for (text, part) in cases {
            let told = told(&text);
            assert!(told.iter().any(|one| one.contains(part)), "{told:?}");
        }
        // The others of a circle are told of, and one that only leads into it is not.
        refused(
            &two("B b", &of("'B b'")),
            "f:3:136: the token of provider 'B b' can't be had before this one: each waits for the other",
        );
    }
}
