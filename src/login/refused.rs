//! Advice for a request of a login that the issuer refused. Pure.

use crate::token::grant::Failure;
use crate::token::history::{REQUEST_KEYS, Trouble};

/// The failure in words, with advice; `url` is the configuration key of the request's endpoint.
pub(super) fn with_advice(failure: &Failure, url: &str) -> String {
    let what = &failure.what;
    match advice(Trouble::of(failure, false), url) {
        Some(advice) => format!("{what}; {advice}"),
        None => what.to_string(),
    }
}

fn advice(trouble: Trouble, url: &str) -> Option<String> {
    let advice = match trouble {
        Trouble::ClientRefused => {
            "compare the client id, the client secret and client_auth with the issuer's registration"
        }
        Trouble::RequestRefused => REQUEST_KEYS,
        Trouble::ScopeRefused => "compare scope and extra_params with what the issuer grants",
        Trouble::TokenDead => {
            "a code is good once, for a minute or so, and for one redirect_uri: log in once more"
        }
        Trouble::WrongUrl | Trouble::NotAToken => return Some(format!("is {url} right?")),
        Trouble::Throttled | Trouble::IssuerFails => "try again later",
        _ => return None,
    };
    Some(advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::token_fields::TokenFields;
    use crate::http::message::Headers;
    use crate::token::grant;

    #[test]
    fn a_refused_login_says_what_to_do() {
        for (status, body, part) in [
            (
                401,
                r#"{"error":"invalid_client"}"#,
                "(invalid_client); compare the client id, the client secret",
            ),
            (400, r#"{"error":"invalid_request"}"#, "request_format"),
            (400, r#"{"error":"invalid_scope"}"#, "compare scope"),
            (400, r#"{"error":"invalid_grant"}"#, "log in once more"),
            (404, "", "404 Not Found; is token_url right?"),
            (503, "", "try again later"),
            (200, "<html>", "is token_url right?"),
        ] {
            let (sent, fields) = (Timestamp::from_secs(1_800_000_000), TokenFields::default());
            let failure =
                grant::read(status, &Headers::new(), body.as_bytes(), &fields, sent).unwrap_err();
            let told = with_advice(&failure, "token_url");
            assert!(told.contains(part), "{told}");
        }
    }
}
