//! Requests to endpoints that are no OAuth (`token_request`). Pure.

use crate::config::{AutoRefresh, Bearer, EndpointRequest, Missing};
use crate::token::grant::outgoing::{TokenRequest, finished, replace_headers};

/// A request to an endpoint that is no OAuth. Parameters are in the query of a GET, and in the body of a POST. The
/// token of another provider is added when the request is sent.
pub(super) fn endpoint_request(
    config: &AutoRefresh,
    request: &EndpointRequest,
    scope: Option<&str>,
) -> Result<TokenRequest, Missing> {
    let mut headers = Vec::new();
    if let Some(Bearer::Secret { found, .. }) = &request.bearer {
        headers.push(request.credential(found.as_ref().map_err(Clone::clone)?));
    }
    let mut params: Vec<_> = scope.map(|scope| ("scope", scope)).into_iter().collect();
    params.extend(config.extra_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let params = Some(params.as_slice()).filter(|params| !params.is_empty());
    let is_get = request.method == "GET";
    let url = match params {
        Some(params) if is_get => with_query(&config.token_url, params),
        _ => config.token_url.clone(),
    };
    let mut made = finished(config, &url, headers, params.filter(|_| !is_get));
    made.method = request.method;
    replace_headers(&mut made.headers, &request.headers);
    Ok(made)
}

/// `url` with these parameters after those that it has.
fn with_query(url: &str, params: &[(&str, &str)]) -> String {
    let added = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    let joint = match url.rsplit_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{joint}{added}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GrantType;
    use crate::secret::Secret;
    use crate::token::assertion::Assertions;
    use crate::token::grant;
    use crate::token::grant::tests::config;

    #[test]
    fn requests_to_an_endpoint_that_is_no_oauth() {
        let asking = |request: EndpointRequest, more: &[(&str, &str)]| {
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let config = AutoRefresh {
                token_url: "https://i/t?a=b".into(),
                grant_type: GrantType::Request(Box::new(request)),
                extra_params: more.collect(),
                headers: vec![("x-one".into(), "1".into())],
                ..config()
            };
            grant::request(&config, None, None, &Assertions::default())
        };
        let plain = |method| EndpointRequest {
            method,
            bearer: Some(Bearer::Secret { found: Ok(Secret::new("gho_x")), file: None }),
            bearer_header: "authorization".into(),
            bearer_prefix: "token ".into(),
            headers: vec![("User-Agent".into(), "GithubCopilot/1".into())],
        };
        let copilot = asking(plain("GET"), &[]).unwrap();
        assert_eq!((copilot.method, copilot.url.as_str()), ("GET", "https://i/t?a=b"));
        assert_eq!(copilot.body.expose(), "");
        let shown: Vec<String> = copilot
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.expose()))
            .collect();
        let expected = [
            "authorization: token gho_x",
            "accept: application/json",
            "x-one: 1",
            "User-Agent: GithubCopilot/1",
        ];
        assert_eq!(shown, expected);
        let azure = asking(plain("GET"), &[("resource", "https://m/"), ("c", "d")]).unwrap();
        assert_eq!(azure.url, "https://i/t?a=b&resource=https%3A%2F%2Fm%2F&c=d");
        let post = asking(plain("POST"), &[("c", "d")]).unwrap();
        assert_eq!(
            (post.method, post.url.as_str(), post.body.expose()),
            ("POST", "https://i/t?a=b", "c=d")
        );
        assert_eq!(with_query("https://i/t", &[("a", "b")]), "https://i/t?a=b");
        assert_eq!(with_query("https://i/t?", &[("a", "b")]), "https://i/t?a=b");
        let missing = Missing::Variable("X".into());
        let bearer = Some(Bearer::Secret { found: Err(missing.clone()), file: None });
        assert_eq!(asking(EndpointRequest { bearer, ..plain("GET") }, &[]).unwrap_err(), missing);
    }
}
