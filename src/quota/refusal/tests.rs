//! Refusals as real providers send them, and what each means.

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000); // 2027-01-15T08:00:00Z
const USUAL: Duration = Duration::from_mins(3);

type Fields = &'static [(&'static str, &'static str)];

fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(name, value);
    }
    headers
}

fn judged(status: u16, headers: &Headers, body: &str, model: Option<&str>) -> Option<Limited> {
    let body = RefusalBody::read(headers, body.as_bytes());
    let refused = Refused { status, headers, body: Some(&body) };
    judge(&refused, NOW, USUAL, &|| model.map(str::to_owned))
}

#[test]
fn each_refusal_of_the_cases() {
    let cases = include_str!("../../../tests/data/cases/api-refusals.jsonl");
    let mut wrong = Vec::new();
    for case in cases.lines() {
        // Their `now+3600` is a number of seconds.
        let case =
            case.replace("\\\"now+3600\\\"", "1800003600").replace("\\\"now-60\\\"", "1799999940");
        let case: Value = serde_json::from_str(&case).unwrap();
        let fields = case["headers"].as_object().unwrap().iter();
        let fields = headers(fields.map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let found = judged(status, &fields, case["body"].as_str().unwrap(), None);
        let expected = match &case["expect"]["cooldown_seconds"] {
            Value::String(_) => Some(USUAL),
            seconds => seconds.as_u64().map(Duration::from_secs),
        };
        if found.as_ref().map(|limited| limited.length) != expected {
            wrong.push(format!("{}: {found:?}", case["name"]));
        }
        assert!(found.is_none_or(|limited| limited.model.is_none()), "{}", case["name"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Status, fields, body; the cooldown in seconds.
const REFUSALS: [(u16, Fields, &str, u64); 55] = [
    // Anthropic.
    (
        429,
        &[
            ("retry-after", "41"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:01:00Z"),
        ],
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit"}}"#,
        60,
    ),
    (
        429,
        &[
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1800007200"),
        ],
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your account's rate limit. Please try again later."}}"#,
        7200,
    ),
    (
        429,
        &[
            ("retry-after", "7200"),
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1799999999"),
        ],
        "{}",
        7200,
    ),
    (
        529,
        &[],
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        180,
    ),
    (
        500,
        &[],
        r#"{"type":"error","error":{"type":"api_error","message":"Internal server error"}}"#,
        180,
    ),
    (
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#,
        1800,
    ),
    (
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on 2027-02-01 at 00:00 UTC."}}"#,
        1800,
    ),
    (
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"You're out of extra usage. Add more in your settings and keep going."}}"#,
        1800,
    ),
    (
        402,
        &[],
        r#"{"type":"error","error":{"type":"billing_error","message":"Your organization has no active billing"}}"#,
        1800,
    ),
    // OpenAI.
    (
        429,
        &[],
        r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        1800,
    ),
    (
        429,
        &[("retry-after", "5")],
        r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#,
        5,
    ),
    (
        429,
        &[
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0s"),
            ("retry-after-ms", "20000"),
        ],
        r#"{"error":{"code":"rate_limit_exceeded","type":"requests"}}"#,
        360,
    ),
    (429, &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "20ms")], "{}", 1),
    (
        429,
        &[],
        r#"{"error":{"type":"usage_limit_reached","message":"The usage limit has been reached","plan_type":"plus","resets_at":1800014520,"resets_in_seconds":14520}}"#,
        14_520,
    ),
    (
        429,
        &[],
        r#"{"error":{"type":"usage_limit_reached","resets_at":"2027-01-15T09:00:00Z"}}"#,
        3600,
    ),
    (429, &[], r#"{"error":{"type":"usage_limit_reached","resets_at":1800003600000}}"#, 3600),
    (403, &[], r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":60}}"#, 60),
    (403, &[], r#"{"error":{"type":"usage_not_included","message":"To use this, upgrade"}}"#, 1800),
    (
        400,
        &[],
        r#"{"error":{"message":"Billing hard limit has been reached","type":"billing_limit_user_error","param":null,"code":"billing_hard_limit_reached"}}"#,
        1800,
    ),
    (
        503,
        &[],
        r#"{"error":{"message":"Slow down","type":"server_error","code":"slow_down"}}"#,
        180,
    ),
    // Azure.
    (
        429,
        &[("retry-after-ms", "1500"), ("retry-after", "1")],
        r#"{"error":{"code":"429","message":"Requests to the operation have exceeded token rate limit of your current pricing tier. Please retry after 2 seconds."}}"#,
        2,
    ),
    (429, &[("x-ms-retry-after-ms", "90000")], r#"{"error":{"code":"429","message":"x"}}"#, 90),
    // Google.
    (
        429,
        &[],
        r#"[{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"45.8s"}]}}]"#,
        46,
    ),
    (
        429,
        &[],
        r#"{"error":{"code":429,"message":"You exceeded your current rate","status":"RESOURCE_EXHAUSTED"}}"#,
        180,
    ),
    (
        429,
        &[],
        r#"{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"reason":"QUOTA_EXHAUSTED","metadata":{"quotaResetDelay":"1h0m0.5s","quotaResetTimeStamp":"2027-01-15T08:30:00Z"}}]}}"#,
        3601,
    ),
    (
        403,
        &[],
        r#"{"error":{"code":403,"message":"Quota exceeded","errors":[{"reason":"quotaExceeded"}]}}"#,
        1800,
    ),
    (
        503,
        &[],
        r#"{"error":{"code":503,"message":"The service is currently unavailable.","status":"UNAVAILABLE"}}"#,
        180,
    ),
    // Others.
    (
        402,
        &[],
        r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
        1800,
    ),
    (
        400,
        &[],
        r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
        1800,
    ),
    (
        402,
        &[],
        r#"{"error":{"code":402,"message":"This request requires more credits, or fewer max_tokens."}}"#,
        1800,
    ),
    (
        403,
        &[],
        r#"{"error":{"code":403,"message":"Key limit exceeded (total limit). Manage it in your settings"}}"#,
        1800,
    ),
    (
        403,
        &[],
        r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your team 1-2 has either used all available credits or reached its monthly spending limit. To continue, please purchase more credits."}"#,
        1800,
    ),
    (
        429,
        &[],
        r#"{"error":{"message":"Your account org-x <ak-y> is suspended due to insufficient balance, please recharge your account or check your plan and billing details","type":"exceeded_current_quota_error"}}"#,
        1800,
    ),
    (
        403,
        &[],
        r#"{"error":{"message":"Your account is suspended due to insufficient balance","type":"exceeded_current_quota_error"}}"#,
        1800,
    ),
    (
        401,
        &[],
        r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details","type":"insufficient_quota","code":401}}"#,
        1800,
    ),
    (
        401,
        &[],
        r#"{"type":"error","error":{"type":"CreditsError","message":"Insufficient balance. Manage your billing here"}}"#,
        1800,
    ),
    (429, &[], r#"{"error":{"code":"1113","message":"余额不足或无可用资源包,请充值。"}}"#, 1800),
    (
        403,
        &[],
        r#"{"error":{"message":"用户额度不足, 剩余额度: 0","type":"new_api_error","code":"insufficient_user_quota"}}"#,
        1800,
    ),
    (
        400,
        &[],
        r#"{"code":"Arrearage","message":"Access denied, please make sure your account is in good standing."}"#,
        1800,
    ),
    (
        400,
        &[],
        r#"{"error":{"message":"Budget has been exceeded! Current cost: 1.2","type":"budget_exceeded","param":null,"code":"400"}}"#,
        1800,
    ),
    (
        403,
        &[("retry-after", "60")],
        r#"{"message":"You have exceeded a secondary rate limit"}"#,
        60,
    ),
    (403, &[], r#"{"message":"You have exceeded a secondary rate limit"}"#, 180),
    (403, &[], r#"{"error":{"code":"rate_limit_exceeded","message":"Slow down"}}"#, 180),
    (400, &[], r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#, 180),
    (401, &[], r#"{"error":{"type":"rate_limit_error"}}"#, 180),
    (
        403,
        &[],
        r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your newly created team doesn't have any credits yet. You can purchase credits on https://console.x.example/team/1."}"#,
        1800,
    ),
    (429, &[], "<html><title>429 Too Many Requests</title></html>", 180),
    // Cloudflare, before a provider that gave no answer.
    (520, &[], "error code: 520", 180),
    (522, &[("retry-after", "120")], "error code: 522", 120),
    (524, &[], "<html><title>x | 524: A timeout occurred</title></html>", 180),
    (530, &[], "error code: 1016", 180),
    // OpenRouter.
    (
        429,
        &[],
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1800007200000"},"provider_name":null}},"user_id":"u"}"#,
        7200,
    ),
    (
        429,
        &[],
        r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"{\n \"error\": {\"code\": 429, \"details\": [{\"retryDelay\": \"45.8s\"}]}}","provider_name":"Google"}}}"#,
        46,
    ),
    (
        429,
        &[],
        r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"error code: 1015","provider_name":"X"}}}"#,
        180,
    ),
    (504, &[("retry-after", "Fri, 15 Jan 2027 07:59:00 GMT")], "", 180),
];

#[test]
fn refusals_that_move_on_and_their_cooldowns() {
    for (status, fields, body, seconds) in REFUSALS {
        let found = judged(status, &headers(fields.iter().copied()), body, None);
        let length = found.map(|limited| limited.length);
        assert_eq!(length, Some(Duration::from_secs(seconds)), "{status} {body}");
    }
}

#[test]
fn refusals_about_the_request_or_the_token_pass() {
    let cases = [
        (400, r#"{"error":{"type":"invalid_request_error","message":"max_tokens: too large"}}"#),
        (
            400,
            r#"{"error":{"type":"invalid_request_error","message":"Invalid value: 'credit balance is too low'.","param":"messages"}}"#,
        ),
        (
            400,
            r#"{"detail":[{"loc":["body"],"msg":"Input should be a string","type":"string_type","input":"your credit balance is too low"}]}"#,
        ),
        (400, r#"{"error":{"message":"bad"},"input":"insufficient_quota"}"#),
        (400, r#"{"error":{"message":"half, insufficient_quota"#),
        (
            400,
            r#"{"error":{"message":"Your credit balance is too low is no valid text","param":"messages.0"}}"#,
        ),
        (401, r#"{"error":{"type":"authentication_error","message":"invalid x-api-key"}}"#),
        (401, ""),
        (
            403,
            r#"{"type":"error","error":{"type":"permission_error","message":"Request not allowed"}}"#,
        ),
        (403, r#"{"error":{"message":"I can't help with that request."}}"#),
        (
            403,
            r#"{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["x"],"flagged_input":"my quota is exceeded"}}}"#,
        ),
        (
            403,
            r#"{"error":{"message":"Your request was blocked because it hit our policy on payment fraud."}}"#,
        ),
        (
            403,
            r#"{"error":{"message":"The request was refused. Texts about unpaid bills and credit fraud are not allowed."}}"#,
        ),
        (403, r#"{"error":{"message":"OAuth token has expired"}}"#),
        (403, "<html><title>403 Forbidden</title><p>Your balance sheet</p></html>"),
        (404, r#"{"error":{"type":"insufficient_quota"}}"#),
        (413, r#"{"error":{"message":"quota exceeded"}}"#),
        (422, r#"{"error":{"message":"quota exceeded"}}"#),
        (200, r#"{"error":{"type":"overloaded_error"}}"#),
        (501, ""),
        (519, ""),
        (527, ""),
        (531, ""),
    ];
    for (status, body) in cases {
        assert_eq!(judged(status, &Headers::new(), body, Some("m-1")), None, "{status} {body}");
    }
}

#[test]
fn without_a_body_the_status_and_the_fields_decide() {
    let fields = headers([("retry-after", "9.1")]);
    for status in 400..600 {
        let refused = Refused { status, headers: &fields, body: None };
        let found = judge(&refused, NOW, USUAL, &|| None).map(|limited| limited.length.as_secs());
        assert_eq!(found, is_failing(status).then_some(10), "{status}");
    }
}

#[test]
fn the_longest_cooldown_on_both_sides_of_its_limit() {
    let week = COOLDOWN_MAX.as_secs();
    for (seconds, expected) in
        [(week - 1, week - 1), (week, week), (week + 1, week), (u64::MAX, week)]
    {
        let text = seconds.to_string();
        let found = judged(429, &headers([("retry-after", text.as_str())]), "", None).unwrap();
        assert_eq!(found.length.as_secs(), expected);
    }
    assert_eq!(
        judged(429, &headers([("retry-after", "0")]), "", None).unwrap().length,
        Duration::ZERO
    );
}

/// "Request too large" rested the provider, which serves every request that fits.
#[test]
fn a_request_that_never_fits_moves_on_and_rests_nothing() {
    for body in [
        r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"Extra usage is required for long context requests."}}"#,
    ] {
        let fields = headers([("retry-after", "60")]);
        let found = judged(429, &fields, body, Some("gpt-4o")).unwrap();
        assert!(found.is_of_request && found.model.is_none(), "{body}");
        assert_eq!(found.length, Duration::ZERO, "{body}");
        assert_eq!(judged(413, &fields, body, None), None, "the client gets it");
    }
    let later = r#"{"error":{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 4000.","code":"rate_limit_exceeded"}}"#;
    let found = judged(429, &Headers::new(), later, Some("gpt-4o")).unwrap();
    assert_eq!((found.is_of_request, found.model.as_deref()), (false, Some("gpt-4o")));
}

#[test]
fn a_body_that_is_nested_deep_is_judged_by_its_status() {
    let body = format!("{}1{}", "[{\"error\":".repeat(50), "}]".repeat(50));
    let found = judged(429, &Headers::new(), &body, None).unwrap();
    assert_eq!(found.length, USUAL);
    assert_eq!(judged(400, &Headers::new(), &body, None), None);
}
