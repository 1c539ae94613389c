//! Refusals that concern one model, and others.

use super::*;
use crate::clock::Timestamp;
use crate::http::message::Headers;
use crate::quota::body::RefusalBody;
use crate::quota::fields;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn rests(status: u16, fields: &[(&str, &str)], body: &str, asked: &str, is_credit: bool) -> bool {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(name, value);
    }
    let body = RefusalBody::read(&headers, body.as_bytes());
    let (json, texts) = (body.json(), body.texts());
    let is_of_model = fields::is_of_model(&headers, NOW);
    let refusal =
        Refusal { status, headers: &headers, json, texts: &texts, is_credit, is_of_model };
    let found = model(&refusal, &|| Some(asked.to_owned()));
    assert!(found.is_none() || found.as_deref() == Some(asked));
    let named = model(&refusal, &|| None);
    let is_named = |name: String| texts.iter().any(|text| text.contains(&name));
    let member = || json.is_some_and(|json| json.pointer("/error/model").is_some());
    assert!(named.is_none_or(|name| member() || is_named(name)), "a request without a model");
    found.is_some()
}

#[test]
fn bodies_about_one_model() {
    let cases = [
        (
            r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaDimensions":{"model":"gemini-2.5-pro","location":"global"}}]}]}}"#,
            "gemini-2.5-pro",
        ),
        (
            r#"[{"error":{"details":[{"violations":[{"quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier"}]}]}}]"#,
            "gemini-flash-latest",
        ),
        (
            r#"{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"reason":"RATE_LIMIT_EXCEEDED","metadata":{"model":"gemini-3-pro"}}]}}"#,
            "gemini-3-pro",
        ),
        (
            r#"{"error":{"message":"Quota exceeded for x.example/requests_per_base_model with base model: gemini-pro."}}"#,
            "gemini-pro",
        ),
        (
            r#"{"error":{"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#,
            "models/gemini-2.5-pro",
        ),
        (r#"{"error":{"message":"This model is currently experiencing high demand."}}"#, "x"),
        (
            r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Used 29500.","code":"rate_limit_exceeded"}}"#,
            "gpt-4o",
        ),
        (
            r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-abc on requests per day"}}"#,
            "gpt-4o-2024-08-06",
        ),
        (
            r#"{"error":{"message":"Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_x` service tier `on_demand`"}}"#,
            "llama-3.3-70b-versatile",
        ),
        (
            r#"{"error":{"message":"Rate limit reached for mymodel in organization org-abc"}}"#,
            "mymodel",
        ),
        (
            r#"{"error":{"message":"This request would exceed the rate limit of 50,000 input tokens per minute (org: 1-2, model: claude-opus-4-1-20250805)."}}"#,
            "claude-opus-4-1",
        ),
        (
            r#"{"error":{"message":"meta-llama/llama-3.3-70b-instruct:free is temporarily rate-limited upstream."}}"#,
            "meta-llama/llama-3.3-70b-instruct:free",
        ),
        (
            r#"{"error":{"type":"usage_limit_reached","model":"gpt-5.3-codex-spark","resets_in_seconds":60}}"#,
            "gpt-5.3-codex-spark",
        ),
        (r#"{"error":{"code":"user_model_rate_limited","message":"Sorry, wait"}}"#, "claude-x"),
    ];
    for (body, asked) in cases {
        assert!(rests(429, &[], body, asked, false), "{body}");
        assert!(rests(503, &[], body, asked, false), "{body}");
        for status in [402, 500, 502, 504] {
            assert!(!rests(status, &[], body, asked, false), "{status} {body}");
        }
    }
    let tier = r#"{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}"#;
    assert!(rests(403, &[], tier, "qwen-x", true));
}

#[test]
fn bodies_about_the_whole_provider() {
    let cases = [
        ("", "gpt-4o"),
        ("{}", "gpt-4o"),
        (r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#, "claude-opus-4-1"),
        (r#"{"error":{"message":"Rate limit reached for organization org-abc"}}"#, "gpt-4o"),
        (r#"{"error":{"message":"Rate limit reached for requests"}}"#, "gpt-4o"),
        (
            r#"{"error":{"message":"Rate limit reached for gpt-4 in organization org-abc"}}"#,
            "gpt-4o",
        ),
        (r#"{"error":{"message":"Limit of your default project reached"}}"#, "default"),
        (r#"{"error":{"message":"Rate limit exceeded: free-models-per-day"}}"#, "llama-3"),
        (
            r#"{"error":{"message":"The usage limit has been reached","type":"usage_limit_reached"}}"#,
            "gpt-5",
        ),
        (r#"{"error":{"message":"Rate limit for claude accounts"}}"#, "claude-opus-4-1"),
        (
            r#"{"error":{"details":[{"violations":[{"quotaId":"RequestsPerDayPerProject"}]}]}}"#,
            "gemini-2.5-pro",
        ),
        (
            r#"{"error":{"details":[{"violations":[{"quotaId":"PerDayPerProjectPerModel"},{"quotaId":"RequestsPerDayPerProject"}]}]}}"#,
            "gemini-2.5-pro",
        ),
        (r#"{"error":{"message":"gpt-4o"}}"#, "x"),
    ];
    for (body, asked) in cases {
        assert!(!rests(429, &[], body, asked, false), "{body}");
    }
    let credit = r#"{"error":{"message":"Insufficient balance for the model gpt-4o"}}"#;
    assert!(!rests(429, &[], credit, "gpt-4o", true));
}

/// `OpenRouter` limits all free models of an account together; the whole account rested for it, paid models too.
#[test]
fn a_limit_of_free_models_rests_the_free_model() {
    let body = r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock more","code":429,"metadata":{"headers":{"X-RateLimit-Remaining":"0"},"provider_name":null}}}"#;
    assert!(rests(429, &[], body, "a/b:free", false));
    assert!(!rests(429, &[], body, "a/b", false));
}

/// `OpenRouter`'s error holds that of the provider behind it, which serves one model.
#[test]
fn a_refusal_of_a_provider_behind_this_one_rests_the_model() {
    let body = |raw: &str| {
        let json = serde_json::json!({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": raw, "provider_name": "X"}}});
        json.to_string()
    };
    let google = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"RequestsPerDayPerProject"}]}]}}"#;
    for (raw, expected) in [
        ("a/b is temporarily rate-limited upstream. Please retry shortly", true),
        ("error code: 1015", true),
        (r#"{"error":{"type":"insufficient_quota"}}"#, true),
        (google, false),
    ] {
        assert_eq!(rests(429, &[], &body(raw), "c", false), expected, "{raw}");
    }
    assert!(rests(429, &[], &body("x"), "c", true), "the credit of another");
    assert!(rests(502, &[], &body("x"), "c", false));
    assert!(!rests(402, &[], &body("x"), "c", true));
    assert!(!rests(429, &[], r#"{"error":{"metadata":{"raw":null}}}"#, "c", false));
}

/// Azure and Anthropic's API name the model in no message.
#[test]
fn fields_of_one_models_limits_rest_the_model() {
    let azure = r#"{"error":{"code":"429","message":"Requests to the operation have exceeded call rate limit."}}"#;
    let none_left = &[("x-ratelimit-remaining-requests", "0")];
    assert!(rests(429, none_left, azure, "gpt-4o", false));
    assert!(!rests(429, none_left, azure, "gpt-4o", true), "credit is the account's");
    assert!(!rests(429, &[("x-ratelimit-remaining-requests", "1")], azure, "gpt-4o", false));
    assert!(!rests(429, &[("x-ratelimit-remaining", "0")], azure, "gpt-4o", false));
}

/// Fields, and whether one model rests.
type Case<'a> = (&'a [(&'a str, &'a str)], bool);

#[test]
fn windows_of_an_account_in_anthropics_fields() {
    let status = "anthropic-ratelimit-unified-status";
    let short = "anthropic-ratelimit-unified-5h-status";
    let weekly = "Anthropic-Ratelimit-Unified-7d-Status";
    let claim = "anthropic-ratelimit-unified-representative-claim";
    let own = "anthropic-ratelimit-unified-7d_oi-status";
    let overage = "anthropic-ratelimit-unified-overage-status";
    let (no, yes) = ("rejected", "allowed");
    let cases: [Case<'_>; 10] = [
        (&[(status, no), (short, yes), (weekly, "allowed_warning"), (own, no)], true),
        (&[(status, no), (short, no), (weekly, yes), (own, no)], false),
        (&[(status, no), (short, yes), (weekly, no), (own, yes)], false),
        (&[(status, no), (short, yes), (weekly, yes), (overage, no)], false),
        (&[(status, no), (claim, "seven_day_opus")], true),
        (&[(status, no), (claim, "seven_day_sonnet"), (short, yes)], true),
        (&[(status, no), (claim, "seven_day_opus"), (short, no)], false),
        (&[(status, no), (claim, "seven_day")], false),
        (&[(status, no), (claim, "five_hour")], false),
        (&[(status, yes), (claim, "seven_day_opus")], false),
    ];
    for (fields, expected) in cases {
        assert_eq!(rests(429, fields, "{}", "claude-opus-4-1", false), expected, "{fields:?}");
    }
}

#[test]
fn the_length_of_a_name_on_both_sides_of_its_limit() {
    let body = r#"{"error":{"message":"The model is overloaded."}}"#;
    assert!(rests(503, &[], body, &"x".repeat(NAME_MAX_BYTES), false));
    assert!(!rests(503, &[], body, &"x".repeat(NAME_MAX_BYTES + 1), false));
    assert!(!rests(503, &[], body, "", false));
}

/// A form's model was not read, and the account rested for a limit of one model.
#[test]
fn the_model_that_a_refusal_names_rests_if_that_of_the_request_is_unknown() {
    let cases = [
        (
            r#"{"error":{"message":"Rate limit reached for model `whisper-1` in organization `org_x` service tier `on_demand`"}}"#,
            Some("whisper-1"),
        ),
        (
            r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-abc on requests per min (RPM): Limit 3, Used 3, Requested 1."}}"#,
            Some("gpt-4o"),
        ),
        (
            r#"{"error":{"message":"This request would exceed the rate limit of 50,000 input tokens per minute (org: 1-2, model: Claude-Opus-4-1)."}}"#,
            Some("Claude-Opus-4-1"),
        ),
        (
            r#"{"error":{"message":"The model models/gemini-2.5-pro. Wait"}}"#,
            Some("gemini-2.5-pro"),
        ),
        (r#"{"error":{"type":"usage_limit_reached","model":"gpt-x"}}"#, Some("gpt-x")),
        (
            r#"{"error":{"message":"Rate limit reached for organization org-abc in organization x"}}"#,
            None,
        ),
        (r#"{"error":{"message":"Rate limit reached for org-abc"}}"#, None),
        (r#"{"error":{"message":"Rate limit reached for requests-per-day"}}"#, None),
        (r#"{"error":{"message":"The model is overloaded"}}"#, None),
        ("{}", None),
    ];
    let headers = Headers::new();
    for (text, expected) in cases {
        let body = RefusalBody::read(&headers, text.as_bytes());
        let (json, texts) = (body.json(), body.texts());
        let about = |status, is_credit| {
            let headers = &headers;
            Refusal { status, headers, json, texts: &texts, is_credit, is_of_model: false }
        };
        assert_eq!(model(&about(429, false), &|| None).as_deref(), expected, "{text}");
        assert_eq!(model(&about(500, false), &|| None), None, "{text}");
        assert_eq!(model(&about(429, true), &|| None), None, "{text}");
    }
}
