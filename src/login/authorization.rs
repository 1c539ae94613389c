//! The authorization request (RFC 6749 §4.1.1) with PKCE (RFC 7636), and the request for its code.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::config::{AutoRefresh, Missing, RequestFormat};
use crate::secret::Secret;
use crate::token::assertion::Assertions;
use crate::token::grant::{TokenRequest, request_with};

/// The verifier's size, as RFC 7636 §4.1 advises.
const VERIFIER_BYTES: usize = 32;
const STATE_BYTES: usize = 24;
/// The unpredictable bytes that an attempt needs.
pub(crate) const RANDOM_BYTES: usize = VERIFIER_BYTES + STATE_BYTES + 2;

/// One attempt to log in, with the values that tie the browser's answer to it.
#[derive(Debug)]
pub(crate) struct AuthorizationRequest {
    verifier: Secret,
    /// The value that the answer must repeat (RFC 6749 §10.12).
    pub(crate) state: String,
    /// A port on which nobody listens, for a redirect URI.
    pub(crate) port: u16,
}

impl AuthorizationRequest {
    /// An attempt from random `bytes`; its `port` is one of `ports`.
    pub(crate) fn new(bytes: &[u8; RANDOM_BYTES], ports: Range<u16>) -> Self {
        let (verifier, rest) = bytes.split_at(VERIFIER_BYTES);
        let (state, port) = rest.split_at(STATE_BYTES);
        let port = u16::from_be_bytes([port[0], port[1]]);
        Self {
            verifier: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(verifier)),
            state: BASE64_URL_SAFE_NO_PAD.encode(state),
            port: ports.start + port % (ports.end - ports.start),
        }
    }

    /// RFC 7636 §4.2, S256.
    fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.expose().as_bytes()))
    }

    /// The address for the browser. The query of `endpoint` is kept (RFC 6749 §3.1).
    pub(crate) fn url(
        &self,
        endpoint: &str,
        client_id: &str,
        redirect_uri: &str,
        scope: Option<&str>,
        resource: Option<&str>,
    ) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect_uri);
        if let Some(scope) = scope {
            query.append_pair("scope", scope);
        }
        let own = endpoint.split_once('?').map_or("", |(_, query)| query);
        let has_resource =
            form_urlencoded::parse(own.as_bytes()).any(|(name, _)| name == "resource");
        if let Some(resource) = resource.filter(|_| !has_resource) {
            // RFC 8707 §2.1: the same resource as on token requests.
            query.append_pair("resource", resource);
        }
        query
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &self.challenge())
            .append_pair("code_challenge_method", "S256");
        let joint = match endpoint.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        // A plus for a blank is right in a form; in a URL, every server understands %20.
        format!("{endpoint}{joint}{}", query.finish().replace('+', "%20"))
    }

    /// The request that exchanges `code` for tokens (RFC 6749 §4.1.3).
    pub(crate) fn token_request(
        &self,
        config: &AutoRefresh,
        code: &Secret,
        redirect_uri: &str,
        assertions: &Assertions,
    ) -> Result<TokenRequest, Missing> {
        let mut params = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", self.verifier.expose()),
        ];
        if config.request_format == RequestFormat::Json {
            // RFC 6749 has only forms; the issuers that take JSON also want the state.
            params.push(("state", &self.state));
        }
        request_with(config, &config.token_url, params, None, assertions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::grant::tests::config;

    fn attempt() -> AuthorizationRequest {
        let mut bytes = [0; RANDOM_BYTES];
        (0..).zip(&mut bytes).for_each(|(number, byte)| *byte = number);
        AuthorizationRequest::new(&bytes, 100..200)
    }

    #[test]
    fn the_challenge_of_rfc_7636() {
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let attempt = AuthorizationRequest { verifier, ..attempt() };
        assert_eq!(attempt.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn what_is_random_is_long_enough_and_fits() {
        let attempt = attempt();
        assert_eq!(attempt.verifier.expose().len(), 43);
        assert_eq!(attempt.state.len(), 32);
        let plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        assert!(plain(attempt.verifier.expose()) && plain(&attempt.state));
        for (bytes, port) in [([0, 0], 100), ([0, 99], 199), ([0, 100], 100), ([255, 255], 135)] {
            let mut random = [7; RANDOM_BYTES];
            random[RANDOM_BYTES - 2..].copy_from_slice(&bytes);
            assert_eq!(AuthorizationRequest::new(&random, 100..200).port, port);
        }
        assert!(!format!("{attempt:?}").contains(attempt.verifier.expose()));
    }

    #[test]
    fn the_address_keeps_its_query_and_encodes_ours() {
        let attempt = attempt();
        let tail = format!(
            "response_type=code&client_id=a%26b&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcb&scope=a%20b\
             &state={}&code_challenge={}&code_challenge_method=S256",
            attempt.state,
            attempt.challenge()
        );
        for (endpoint, joint) in [
            ("https://i/auth", "?"),
            ("https://i/auth?", ""),
            ("https://i/auth?prompt=consent", "&"),
        ] {
            let url = attempt.url(endpoint, "a&b", "http://127.0.0.1:1/cb", Some("a b"), None);
            assert_eq!(url, format!("{endpoint}{joint}{tail}"));
        }
        let resource = |endpoint| attempt.url(endpoint, "c", "x:y", None, Some("https://r/mcp"));
        let named = "resource=https%3A%2F%2Fr%2Fmcp";
        assert!(resource("https://i").contains(named));
        assert_eq!(resource(&format!("https://i?{named}")).matches(named).count(), 1);
        let url = attempt.url("https://i", "c+d", "x:y", None, None);
        assert!(!url.contains("scope=") && url.contains("client_id=c%2Bd&"), "{url}");
    }

    #[test]
    fn the_request_for_the_code() {
        let attempt = attempt();
        let verifier = attempt.verifier.expose();
        let made = attempt
            .token_request(&config(), &Secret::new("c/1"), "x:y", &Assertions::default())
            .unwrap();
        assert_eq!(
            made.body.expose(),
            format!(
                "grant_type=authorization_code&code=c%2F1&redirect_uri=x%3Ay&code_verifier={verifier}\
                 &client_id=id+with+space&client_secret=s%26cret"
            )
        );
        let json = AutoRefresh { request_format: RequestFormat::Json, ..config() };
        let made =
            attempt.token_request(&json, &Secret::new("c"), "x:y", &Assertions::default()).unwrap();
        let body: serde_json::Value = serde_json::from_str(made.body.expose()).unwrap();
        assert_eq!((&body["state"], &body["code"]), (&attempt.state.as_str().into(), &"c".into()));
        let missing = AutoRefresh { client_id: Err(Missing::Variable("X".into())), ..config() };
        assert!(
            attempt
                .token_request(&missing, &Secret::new("c"), "x:y", &Assertions::default())
                .is_err()
        );
    }
}
