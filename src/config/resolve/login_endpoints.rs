//! The keys of `auto_refresh_config` for `evertoken login`, `evertoken logout` and the issuer's metadata.

use crate::config::raw::Section;
use crate::config::resolve::endpoint;
use crate::config::resolve::grant::GrantChoice;
use crate::config::{LoginEndpoints, Redirect};

/// Reads the keys and reports their problems.
pub(super) fn read(section: &Section<'_>, grant: GrantChoice) -> LoginEndpoints {
    let redirect = section.text("redirect_uri").map(|text| Redirect::parse(&text));
    if let Some(Err(why)) = &redirect {
        section.error("redirect_uri", format!("'redirect_uri' {why}"));
    }
    let login = LoginEndpoints {
        authorization_url: endpoint::read(section, "authorization_url", "you log in there"),
        device_authorization_url: endpoint::read(
            section, "device_authorization_url", "secrets are sent there",
        ),
        redirect_uri: redirect.and_then(Result::ok),
        issuer: read_issuer(section),
        iss_may_lack: false,
        revocation_url: endpoint::read(section, "revocation_url", "tokens are sent there"),
    };
    let has_browser = login.authorization_url.is_some();
    if login.redirect_uri.is_some() && !has_browser && login.issuer.is_none() {
        let message =
            "'redirect_uri' needs an 'authorization_url', or an 'issuer' whose metadata names it";
        section.error("redirect_uri", message);
    }
    let has_login =
        has_browser || login.device_authorization_url.is_some() || login.redirect_uri.is_some();
    if grant != GrantChoice::RefreshToken && has_login {
        section.error("grant_type", format!("{} knows no login", grant.name()));
    }
    login
}

/// `issuer`: the URL of an issuer (RFC 8414 §2). With all endpoints written it is only compared with the callback's
/// `iss`, so it may then be any text.
fn read_issuer(section: &Section<'_>) -> Option<String> {
    if section.has("token_url") && section.has("authorization_url") {
        return section.text("issuer");
    }
    let issuer = endpoint::read(section, "issuer", "its metadata says where secrets are sent")?;
    if issuer.contains('?') {
        section.error("issuer", "'issuer' must not hold a '?'");
    }
    Some(issuer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{fine, refresh, refused, with_login};

    #[test]
    fn a_login_needs_no_seed_and_is_checked() {
        let keys = "authorization_url: https://i/auth?x=1\nredirect_uri: http://localhost:5/cb\nissuer: https://i";
        let config = fine(&with_login(keys));
        assert_eq!(refresh(&config).seed, None);
        assert_eq!(refresh(&config).login.issuer.as_deref(), Some("https://i"));
        assert!(matches!(refresh(&config).login.redirect_uri, Some(Redirect::Loopback(_))));
        fine(&with_login("device_authorization_url: http://127.0.0.1:1/device"));
        fine(&with_login(
            "authorization_url: https://i/a\nredirect_uri: urn:ietf:wg:oauth:2.0:oob",
        ));
        // An issuer's metadata names the endpoints that are not written; beside written ones it may be any text.
        let config = fine(&with_login("issuer: https://i/tenant"));
        assert_eq!(refresh(&config).issuer_for_endpoints(), Some("https://i/tenant"));
        let all = "authorization_url: https://i/a\nissuer: accounts.google.com\nrevocation_url: https://i/r";
        let config = fine(&with_login(all));
        assert_eq!(refresh(&config).issuer_for_endpoints(), None);
        assert_eq!(refresh(&config).login.revocation_url.as_deref(), Some("https://i/r"));
        fine(&with_login("issuer: https://i\nredirect_uri: http://localhost:5/cb"));
        let cases = [
            (
                "",
                "f:7:7: auto_refresh_config needs a 'refresh_token_env', or an 'issuer', 'authorization_url' or \
                 'device_authorization_url' for evertoken login",
            ),
            (
                "authorization_url: http://i/a",
                "f:9:26: 'authorization_url' must be https, since you log in there; http is for loopback \
                 addresses alone",
            ),
            (
                "device_authorization_url: http://i/a",
                "f:9:33: 'device_authorization_url' must be https, since secrets are sent there; http is for \
                 loopback addresses alone",
            ),
            ("authorization_url: https://i/a#b", "f:9:26: 'authorization_url' must not hold a '#'"),
            (
                "authorization_url: https://i/a\nredirect_uri: http://i/cb",
                "f:10:21: 'redirect_uri' must be https, since a code is sent there; http is for loopback \
                 addresses alone",
            ),
            (
                "device_authorization_url: https://i/d\nredirect_uri: http://localhost",
                "f:10:21: 'redirect_uri' needs an 'authorization_url', or an 'issuer' whose metadata names it",
            ),
            (
                "revocation_url: http://i/r\nissuer: https://i",
                "f:9:23: 'revocation_url' must be https, since tokens are sent there; http is for loopback \
                 addresses alone",
            ),
            ("issuer: https://i?tenant=x", "f:9:15: 'issuer' must not hold a '?'"),
            ("issuer: https://i/#x", "f:9:15: 'issuer' must not hold a '#'"),
            (
                "issuer: http://i",
                "f:9:15: 'issuer' must be https, since its metadata says where secrets are sent; http is for \
                 loopback addresses alone",
            ),
            (
                "issuer: login.example.com",
                "f:9:15: 'issuer' must be an https URL, not \"login.example.com\"; did you mean \
                 \"https://login.example.com\"?",
            ),
            (
                "authorization_url: https://i/a\nauthorisation_url: x",
                "f:10:7: unknown key 'authorisation_url' in auto_refresh_config, did you mean \
                 'authorization_url'?",
            ),
        ];
        for (extra, message) in cases {
            refused(&with_login(extra), message);
        }
        let grant = "grant_type: client_credentials\nclient_secret_env: SECRET\nauthorization_url: https://i/a";
        refused(&with_login(grant), "f:9:19: client_credentials knows no login");
    }

    #[test]
    fn the_blocks_of_the_page_on_logins_are_valid() {
        let page = include_str!("../../../docs/login.md");
        let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut count = 0;
        for block in blocks.filter(|block| block.starts_with("  - name:")) {
            let config = fine(&format!("providers:\n{block}"));
            assert!(refresh(&config).login.exist(), "{block}");
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
