//! The keys of `auto_refresh_config` that are for `evertoken login` alone.

use crate::config::raw::Section;
use crate::config::resolve::provider::check_endpoint;
use crate::config::{GrantType, LoginEndpoints, Redirect};

/// Reads the keys; what is wrong is reported.
pub(super) fn read(section: &Section<'_>, grant: GrantType) -> LoginEndpoints {
    let endpoint = |key, why| {
        let url = section.text(key);
        if let Some(url) = &url {
            check_endpoint(section, key, url, why);
        }
        url
    };
    let redirect = section.text("redirect_uri").map(|text| Redirect::parse(&text));
    if let Some(Err(why)) = &redirect {
        section.error("redirect_uri", format!("'redirect_uri' {why}"));
    }
    let login = LoginEndpoints {
        authorization_url: endpoint("authorization_url", "you log in there"),
        device_authorization_url: endpoint("device_authorization_url", "secrets are sent there"),
        redirect_uri: redirect.and_then(Result::ok),
        issuer: section.text("issuer"),
    };
    let has_browser = login.authorization_url.is_some();
    for (key, given) in
        [("redirect_uri", login.redirect_uri.is_some()), ("issuer", login.issuer.is_some())]
    {
        if given && !has_browser {
            section.error(key, format!("'{key}' needs an 'authorization_url'"));
        }
    }
    if grant == GrantType::ClientCredentials && login.exist() {
        section.error("grant_type", "client_credentials knows no login");
    }
    login
}
