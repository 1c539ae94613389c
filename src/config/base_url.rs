//! Detects a `base_url` that names one endpoint instead of the API's base. Pure.

/// Ends of endpoint paths that people copy from documentation.
const ENDPOINTS: [&str; 5] =
    ["/messages", "/chat/completions", "/completions", "/responses", "/embeddings"];
/// Ends of Gemini's and Vertex AI's endpoints.
const METHODS: [&str; 2] = [":generateContent", ":streamGenerateContent"];

/// The base of `url`, if `url` names one endpoint.
pub(in crate::config) fn of_endpoint(url: &str) -> Option<&str> {
    let url = url.trim_end_matches('/');
    if METHODS.iter().any(|method| url.ends_with(method)) {
        let base = &url[..url.find("/models/")?];
        return Some(base.strip_suffix("/v1beta").unwrap_or(base));
    }
    let mut bases = ENDPOINTS.iter().filter_map(|endpoint| url.strip_suffix(endpoint));
    bases.find(|base| !base.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_their_base() {
        for (url, base) in [
            ("https://x/v1/messages", Some("https://x/v1")),
            ("https://x/v1/messages/", Some("https://x/v1")),
            ("https://x/anthropic/messages", Some("https://x/anthropic")),
            ("https://x/v1/chat/completions", Some("https://x/v1")),
            ("https://x/v1/completions", Some("https://x/v1")),
            ("https://x/v1/responses", Some("https://x/v1")),
            ("https://x/v1/embeddings", Some("https://x/v1")),
            ("https://x/v1beta/models/gemini-pro:generateContent", Some("https://x")),
            ("https://x/v1/models/gemini-pro:streamGenerateContent", Some("https://x/v1")),
            ("https://x/:generateContent", None),
            ("https://x/v1", None),
            ("https://x", None),
            ("https://messages", None),
            ("https://x/mymessages", None),
        ] {
            assert_eq!(of_endpoint(url), base, "{url}");
        }
    }
}
