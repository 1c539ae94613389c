//! Decides whether a 429 is about the request itself, which no wait makes smaller: the account serves others. Pure.

use crate::http::message::Headers;
use crate::quota::fields;

/// A longer message may quote the request.
const MESSAGE_MAX_BYTES: usize = 500;

/// True if a 429 with these `texts` refuses this request alone; `is_wait_named` says that the answer names a wait.
pub(super) fn is_of_request(headers: &Headers, texts: &[&str], is_wait_named: bool) -> bool {
    let messages = texts.iter().filter(|text| text.len() <= MESSAGE_MAX_BYTES);
    messages.map(|text| text.to_ascii_lowercase()).any(|text| {
        let is_too_large = text.starts_with("request too large") || is_over_its_limit(&text);
        // Anthropic's long context is paid for apart, and has limits of its own. Its message about these is the one
        // about an account, of which the fields then say that something is left.
        let is_too_long = text.contains("extra usage") && text.contains("long context");
        let is_long_limit = text.contains("would exceed your account's rate limit")
            && !is_wait_named
            && fields::is_allowed(headers);
        is_too_large || is_too_long || is_long_limit
    })
}

/// True if a message says `Limit 30000, Requested 40000`: it asks for more than there ever is.
fn is_over_its_limit(text: &str) -> bool {
    let number = |word: &str| {
        text.split(word).skip(1).find_map(|rest| {
            let end = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u64>().ok()
        })
    };
    number("limit ").zip(number("requested ")).is_some_and(|(limit, asked)| asked > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(text: &str) -> bool {
        is_of_request(&Headers::new(), &["tokens", "rate_limit_exceeded", text], false)
    }

    #[test]
    fn requests_that_never_fit() {
        for text in [
            "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000. The input or output tokens must be reduced in order to run successfully.",
            "Request too large for model `llama-x` in organization `o` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 7000, please reduce your message size and try again.",
            "Request too large for gpt-x",
            "Rate limit reached for gpt-x on tokens per min (TPM): Limit 30000, Requested 30001.",
            "Extra usage is required for long context requests.",
        ] {
            assert!(is_of(text), "{text}");
        }
    }

    #[test]
    fn requests_that_fit_later() {
        let long = format!("Request too large for {}", "x".repeat(MESSAGE_MAX_BYTES));
        for text in [
            "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 5000. Please try again in 8.64s.",
            "Limit 30000, Requested 30000",
            "Limit 99999999999999999999999, Requested 1",
            "You're out of extra usage. Add more at your settings and keep going.",
            "Too many requests",
            "The prompt says: request too large",
            "",
            &long,
        ] {
            assert!(!is_of(text), "{text}");
        }
        assert!(is_of(&long[..MESSAGE_MAX_BYTES]));
    }

    #[test]
    fn a_limit_of_long_context_is_told_from_that_of_the_account_by_the_fields() {
        let text = "This request would exceed your account's rate limit. Please try again later.";
        for (status, is_wait_named, expected) in [
            (Some("allowed"), false, true),
            (Some("allowed_warning"), false, true),
            (Some("allowed"), true, false),
            (Some("rejected"), false, false),
            (None, false, false),
        ] {
            let mut headers = Headers::new();
            if let Some(status) = status {
                headers.push("anthropic-ratelimit-unified-status", status);
            }
            assert_eq!(is_of_request(&headers, &[text], is_wait_named), expected, "{status:?}");
        }
    }
}
