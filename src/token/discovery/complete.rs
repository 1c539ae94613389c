//! Puts the values of an issuer's metadata where the configuration has none. Pure.

use crate::config::{AutoRefresh, ClientAuth, LoginEndpoints};
use crate::token::discovery::error::DiscoveryError;
use crate::token::discovery::metadata::Metadata;

/// RFC 8414 §2: the methods of an issuer that does not name any.
const DEFAULT_METHOD: &str = "client_secret_basic";

/// Completes the configuration of token requests. What is written stays as it is.
pub(crate) fn complete(config: &mut AutoRefresh, found: &Metadata) -> Result<(), DiscoveryError> {
    if !config.unwritten.token_url {
        return Ok(());
    }
    let has_certificate = config.client_certificate.is_some();
    let found = &*found.for_client(has_certificate);
    let lacks = || DiscoveryError::Lacks(found.issuer.clone(), "token_endpoint", "token_url");
    config.token_url = found.token_endpoint.clone().ok_or_else(lacks)?;
    // A client with an assertion, a certificate alone or nothing has no choice.
    if config.unwritten.client_auth && config.client_auth == ClientAuth::SecretPost {
        config.client_auth = method_of(found.auth_methods.as_deref(), has_certificate);
    }
    Ok(())
}

/// The authentication that an issuer with `methods` takes from a client with a secret, and perhaps a certificate.
fn method_of(methods: Option<&[String]>, has_certificate: bool) -> ClientAuth {
    let takes = |method: &str| match methods {
        Some(methods) => methods.iter().any(|one| one == method),
        None => method == DEFAULT_METHOD,
    };
    let takes_certificate = takes("tls_client_auth") || takes("self_signed_tls_client_auth");
    match (takes("client_secret_post"), takes(DEFAULT_METHOD)) {
        (true, _) => ClientAuth::SecretPost,
        (false, true) => ClientAuth::SecretBasic,
        (false, false) if has_certificate && takes_certificate => ClientAuth::Tls,
        (false, false) => ClientAuth::SecretPost,
    }
}

/// Completes the endpoints of a login and a logout, for a client with a certificate if `has_certificate`. If a way to log in is written, the other one is not added, because
/// the device code would take its place, unless `wants_device` or `wants_browser` asks for it.
pub(crate) fn complete_login(
    login: &mut LoginEndpoints,
    found: &Metadata,
    has_certificate: bool,
    (wants_browser, wants_device): (bool, bool),
) {
    let found = &*found.for_client(has_certificate);
    let has_way = login.authorization_url.is_some() || login.device_authorization_url.is_some();
    let has_browser = login.authorization_url.is_some() || found.authorization_endpoint.is_some();
    if login.authorization_url.is_none() && (!has_way || wants_browser) {
        login.authorization_url.clone_from(&found.authorization_endpoint);
    }
    if login.device_authorization_url.is_none() && (wants_device || !has_way && !has_browser) {
        login.device_authorization_url.clone_from(&found.device_authorization_endpoint);
    }
    login.iss_may_lack = !found.sends_iss;
    if login.revocation_url.is_none() {
        login.revocation_url.clone_from(&found.revocation_endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientCertificate;
    use crate::config::Unwritten;
    use crate::config::assertion::SecretFile;
    use crate::secret::Secret;
    use crate::token::discovery::metadata::MtlsAliases;
    use crate::token::grant::tests::config;

    fn found() -> Metadata {
        Metadata {
            issuer: "https://i".into(),
            authorization_endpoint: Some("https://i/a".into()),
            token_endpoint: Some("https://i/t".into()),
            device_authorization_endpoint: Some("https://i/d".into()),
            revocation_endpoint: Some("https://i/r".into()),
            ..Metadata::default()
        }
    }

    #[test]
    fn what_is_written_stays() {
        let mut written = config();
        complete(&mut written, &found()).unwrap();
        assert_eq!(written, config());
    }

    #[test]
    fn the_token_endpoint_and_the_way_to_send_the_secret_come_from_the_metadata() {
        let post = |methods: Option<&[&str]>| {
            let unwritten = Unwritten { token_url: true, client_auth: true };
            let mut config = AutoRefresh { token_url: String::new(), unwritten, ..config() };
            let auth_methods =
                methods.map(|methods| methods.iter().map(ToString::to_string).collect());
            complete(&mut config, &Metadata { auth_methods, ..found() }).unwrap();
            assert_eq!(config.token_url, "https://i/t");
            config.client_auth == ClientAuth::SecretPost
        };
        assert!(post(Some(&["client_secret_basic", "client_secret_post"])));
        assert!(post(Some(&["client_secret_post"])));
        assert!(!post(Some(&["client_secret_basic"])));
        assert!(!post(None), "RFC 8414 §2: client_secret_basic if the document does not say");
        // Neither: as without metadata.
        assert!(post(Some(&["private_key_jwt"])) && post(Some(&[])));
    }

    #[test]
    fn a_client_with_a_certificate_uses_the_endpoints_for_it() {
        let alias = |name: &str| Some(format!("https://mtls.i/{name}"));
        let found = Metadata {
            mtls: MtlsAliases { token: alias("t"), revocation: alias("r"), device: None },
            auth_methods: Some(vec!["tls_client_auth".into()]),
            ..found()
        };
        let file = |path: &str| SecretFile { path: path.into(), found: Ok(Secret::new("pem")) };
        let certificate = ClientCertificate { chain: file("/c"), key: file("/k") };
        for (client_certificate, token_url, revocation_url, auth) in [
            (None, "https://i/t", "https://i/r", ClientAuth::SecretPost),
            (Some(certificate), "https://mtls.i/t", "https://mtls.i/r", ClientAuth::Tls),
        ] {
            let has_certificate = client_certificate.is_some();
            let unwritten = Unwritten { token_url: true, client_auth: true };
            let mut config = AutoRefresh { client_certificate, unwritten, ..config() };
            complete(&mut config, &found).unwrap();
            complete_login(&mut config.login, &found, has_certificate, (false, true));
            assert_eq!((config.token_url.as_str(), &config.client_auth), (token_url, &auth));
            assert_eq!(config.login.revocation_url.as_deref(), Some(revocation_url));
            assert_eq!(config.login.device_authorization_url.as_deref(), Some("https://i/d"));
        }
    }

    #[test]
    fn a_written_client_auth_and_a_public_client_stay() {
        let unwritten = Unwritten { token_url: true, client_auth: false };
        let mut written = AutoRefresh { unwritten, ..config() };
        complete(&mut written, &found()).unwrap();
        assert_eq!(written.client_auth, ClientAuth::SecretPost);
        let unwritten = Unwritten { token_url: true, client_auth: true };
        let (client_auth, client_secret) = (ClientAuth::None, None);
        let mut public = AutoRefresh { client_secret, client_auth, unwritten, ..config() };
        complete(&mut public, &found()).unwrap();
        assert_eq!(public.client_auth, ClientAuth::None);
    }

    #[test]
    fn metadata_without_a_token_endpoint_names_the_key_that_is_then_needed() {
        let unwritten = Unwritten { token_url: true, client_auth: true };
        let mut lacking = AutoRefresh { unwritten, ..config() };
        let why = complete(&mut lacking, &Metadata { token_endpoint: None, ..found() });
        assert_eq!(
            why.unwrap_err().to_string(),
            "The metadata of the issuer https://i names no 'token_endpoint'; write 'token_url' into auto_refresh_config"
        );
    }

    #[test]
    fn a_browser_comes_before_a_device_code_unless_one_is_written_or_asked_for() {
        let ways = |written: (Option<&str>, Option<&str>), found: &Metadata, wants| {
            let mut login = LoginEndpoints {
                authorization_url: written.0.map(str::to_owned),
                device_authorization_url: written.1.map(str::to_owned),
                ..LoginEndpoints::default()
            };
            complete_login(&mut login, found, false, wants);
            assert_eq!(login.revocation_url.as_deref(), Some("https://i/r"));
            (login.authorization_url, login.device_authorization_url)
        };
        let (a, d) = (Some("https://i/a".to_owned()), Some("https://i/d".to_owned()));
        let (none, all) = ((None, None), found());
        let device_only = Metadata { authorization_endpoint: None, ..found() };
        assert_eq!(ways(none, &all, (false, false)), (a.clone(), None));
        assert_eq!(ways(none, &all, (true, false)), (a.clone(), None));
        assert_eq!(ways(none, &all, (false, true)), (a.clone(), d.clone()));
        assert_eq!(ways(none, &device_only, (false, false)), (None, d.clone()));
        let written = Some("https://w".to_owned());
        let written_browser = (Some("https://w"), None);
        assert_eq!(ways(written_browser, &all, (false, false)), (written.clone(), None));
        assert_eq!(ways(written_browser, &all, (false, true)), (written.clone(), d));
        let written_device = (None, Some("https://w"));
        assert_eq!(ways(written_device, &all, (false, false)), (None, written.clone()));
        assert_eq!(ways(written_device, &all, (true, false)), (a, written));
    }
}
