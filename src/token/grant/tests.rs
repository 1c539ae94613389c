//! Answers to token requests, and their meaning; and a configuration for tests of requests.

use std::time::Duration;

use super::*;
use crate::config::{
    AutoRefresh, ClientAuth, CommandLine, GrantType, LoginEndpoints, RequestFormat, SecretFiles,
    Unwritten,
};

const SENT: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A configuration for tests of requests.
pub(crate) fn config() -> AutoRefresh {
    AutoRefresh {
        token_url: "https://issuer.example/token".into(),
        client_id: Ok("id with space".into()),
        client_secret: Some(Ok(Secret::new("s&cret"))),
        seed: Some(Ok(Secret::new("seed"))),
        grant_type: GrantType::RefreshToken,
        client_auth: ClientAuth::SecretPost,
        request_format: RequestFormat::Form,
        scope: None,
        extra_params: Vec::new(),
        headers: Vec::new(),
        token_fields: TokenFields::default(),
        refresh_before_expiry: Duration::from_mins(5),
        retry_interval: Duration::from_hours(1),
        client_certificate: None,
        files: SecretFiles::default(),
        login: LoginEndpoints::default(),
        unwritten: Unwritten::default(),
        call: CommandLine::default(),
    }
}

#[test]
fn answers_that_say_that_their_token_has_ended() {
    // {"exp":1800000000}
    let over = "aa.eyJleHAiOjE4MDAwMDAwMDB9.cc";
    let cases = [
        (r#"{"access_token":"a","expires_in":0}"#, true),
        (r#"{"access_token":"a","expires_in":"-1"}"#, true),
        (r#"{"access_token":"a","expires_at":1800000000}"#, true),
        (&format!(r#"{{"access_token":"{over}"}}"#), true),
        (&format!(r#"{{"access_token":"{over}","expires_in":1}}"#), false),
        (r#"{"access_token":"a","expires_at":1800000001}"#, false),
        (r#"{"access_token":"a","expires_in":"soon"}"#, false),
        (r#"{"access_token":"a"}"#, false),
    ];
    for (body, has_ended) in cases {
        let fields = TokenFields::default();
        let grant = read(200, &Headers::new(), body.as_bytes(), &fields, SENT).unwrap();
        assert_eq!(grant.has_ended, has_ended, "{body}");
    }
}

#[test]
fn the_issuers_wish_for_the_next_refresh_counts() {
    let read = |extra: &str| {
        let body = format!(r#"{{"access_token":"a","expires_in":100,{extra}}}"#);
        read(200, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT).unwrap()
    };
    assert_eq!(read(r#""refresh_in":50"#).refresh_in_ms, Some(50_000));
    assert_eq!(read(r#""refresh_in":100"#).refresh_in_ms, None);
    assert_eq!(read(r#""refresh_in":0"#).refresh_in_ms, None);
    let earliest = read(r#""earliest_refresh_at":1800000010"#);
    assert_eq!(earliest.earliest_refresh_in_ms, Some(10_000));
    assert_eq!(earliest.refresh_in_ms, None, "it is a bound, not the time");
    for never in ["1799999990", "1800000100", "\"soon\""] {
        let granted = read(&format!(r#""earliest_refresh_at":{never}"#));
        assert_eq!(granted.earliest_refresh_in_ms, None, "{never}");
    }
    assert_eq!(read(r#""refresh_token":"""#).refresh_token, None);
    assert_eq!(read(r#""refresh_token":"n""#).refresh_token, Some(Secret::new("n")));
}

#[test]
fn what_has_no_place_of_its_own_is_looked_for_beside_the_access_token() {
    let path = ["data", "access_token"].map(str::to_owned).to_vec();
    let fields = TokenFields::new(vec![("access_token", path)]);
    let body = br#"{"scope":"x","refresh_in":1,"data":{"access_token":"a","expires_in":100,"refresh_in":50,
        "earliest_refresh_at":1800000010,"scope":"a b"}}"#;
    let grant = read(200, &Headers::new(), body, &fields, SENT).unwrap();
    let times = (grant.refresh_in_ms, grant.earliest_refresh_in_ms);
    assert_eq!(times, (Some(50_000), Some(10_000)));
    assert_eq!(grant.scope.as_deref(), Some("a b"));
}

#[test]
fn a_defect_beside_the_tokens_is_said_and_costs_none() {
    let read = |body: &str, fields: &TokenFields| {
        read(200, &Headers::new(), body.as_bytes(), fields, SENT)
    };
    let tokens = r#""access_token":"a","refresh_token":"r","expires_in":60"#;
    let plain = TokenFields::default();
    let said = |end: &str| read(&format!("{{{tokens}{end}"), &plain).unwrap().warning;
    assert_eq!(said("}"), None);
    assert_eq!(said(",}").as_deref(), Some(DEFECTIVE));
    assert_eq!(said(",").as_deref(), Some(DEFECTIVE));
    // Without the end of the answer, the token at the configured place may still be to come.
    let path = ["data", "access_token"].map(str::to_owned).to_vec();
    let fields = TokenFields::new(vec![("access_token", path)]);
    let other = r#"{"refresh_token":"other","data":{"access_token":"a","expires_in":60"#;
    assert!(read(&format!("{other}}},}}"), &fields).is_ok());
    let failure = read(&format!("{other},"), &fields).unwrap_err();
    let words = "the answer is no token response: it is not JSON, or incomplete";
    assert_eq!(failure.what.to_string(), words);
}

#[test]
fn failures_by_body_first_and_status_second() {
    use Class::{Permanent, TokenDead, Transient};
    let cases = [
        (400, r#"{"error":"invalid_grant"}"#, TokenDead, "400 Bad Request (invalid_grant)"),
        (
            500,
            r#"{"error":"invalid_grant"}"#,
            TokenDead,
            "500 Internal Server Error (invalid_grant)",
        ),
        (
            401,
            r#"{"error":{"code":"refresh_token_reused"}}"#,
            TokenDead,
            "401 Unauthorized (refresh_token_reused)",
        ),
        (
            400,
            r#"{"error":{"type":"invalid_request"}}"#,
            Permanent,
            "400 Bad Request (invalid_request)",
        ),
        (401, r#"{"error":"invalid_client"}"#, Permanent, "401 Unauthorized (invalid_client)"),
        (
            400,
            r#"{"error":"temporarily_unavailable"}"#,
            Transient,
            "400 Bad Request (temporarily_unavailable)",
        ),
        (400, r#"{"error":"slow_down"}"#, Transient, "400 Bad Request (slow_down)"),
        (
            200,
            r#"{"error":"invalid_grant","access_token":"a"}"#,
            TokenDead,
            "200 OK (invalid_grant)",
        ),
        (401, "", Transient, "401 Unauthorized"),
        (403, "<html>", Transient, "403 Forbidden"),
        (404, "{}", Transient, "404 Not Found"),
        (408, "", Transient, "408 Request Timeout"),
        (425, "", Transient, "425 Too Early"),
        (429, "", Transient, "429 Too Many Requests"),
        // A sentence beside such a status may tell of anything.
        (
            429,
            r#"{"message":"Refresh token request already in progress"}"#,
            Transient,
            "429 Too Many Requests",
        ),
        (
            503,
            r#"{"message":"Unknown error while loading refresh token"}"#,
            Transient,
            "503 Service Unavailable",
        ),
        (
            400,
            r#"{"message":"Unknown refresh token"}"#,
            TokenDead,
            "400 Bad Request (unnamed/refresh_token_invalid)",
        ),
        (503, "", Transient, "503 Service Unavailable"),
        (302, "", Transient, "302 Found"),
        (418, "", Transient, "418"),
        (400, r#"{"error":"the token rt-secret is bad"}"#, Transient, "400 Bad Request (unnamed)"),
        (400, r#"{"error":7}"#, Transient, "400 Bad Request (unnamed)"),
    ];
    for (status, body, class, words) in cases {
        let failure = read(status, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT)
            .unwrap_err();
        assert_eq!((failure.class, failure.what.to_string().as_str()), (class, words), "{body}");
        assert_eq!(failure.reached, Reached::No);
    }
}

/// Salesforce, while an earlier request with the same refresh token has no answer yet (its release notes of Spring '24).
const SALESFORCE_IS_BUSY: &str =
    r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#;

/// It counted as a dead refresh token: a login was asked for, or a rotated-out seed presented, which ends the whole chain.
#[test]
fn a_refresh_that_runs_into_another_one_is_no_dead_refresh_token() {
    let of = |body: &str| {
        read(400, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT).unwrap_err()
    };
    for body in [
        SALESFORCE_IS_BUSY,
        r#"{"error":"invalid_grant","error_description":"Refresh token request already in progress"}"#,
        r#"{"error":"invalid_request","error_description":"The refresh token is already being processed"}"#,
        // Ory fosite and Hydra
        r#"{"error":"invalid_request","error_description":"The request is missing a required parameter, includes an invalid parameter value, includes a parameter more than once, or is otherwise malformed. Failed to refresh token because of multiple concurrent requests using the same token which is not allowed."}"#,
        r#"{"error":"invalid_request","error_description":"Failed to refresh token because of multiple concurrent requests using the same token. Please retry the request."}"#,
    ] {
        let failure = of(body);
        assert_eq!(
            (failure.class, failure.reached),
            (Class::Transient, Reached::Perhaps),
            "{body}"
        );
        assert_eq!(failure.what.to_string(), "400 Bad Request (request_in_progress)", "{body}");
    }
    let dead = r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#;
    assert_eq!(of(dead).class, Class::TokenDead);
    let other =
        r#"{"error":"access_denied","error_description":"a check of the account is in progress"}"#;
    assert_eq!(of(other).class, Class::Permanent);
    // The issuer's own code is more precise than its sentence.
    let precise = r#"{"error":"invalid_grant","error_subtype":"invalid_rapt","error_description":"a check is in progress"}"#;
    assert_eq!(of(precise).class, Class::TokenDead);
}

#[test]
fn a_200_that_is_no_token_response_is_transient() {
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":5}"#,
        "{\"access_token\":\"a\\nb\"}",
    ] {
        let failure =
            read(200, &Headers::new(), body.as_bytes(), &TokenFields::default(), SENT).unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{body}");
        assert_eq!(failure.reached, Reached::Perhaps, "{body}");
    }
}

#[test]
fn the_refresh_token_of_an_answer_that_is_no_grant() {
    let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let fields = TokenFields::new(vec![("access_token", path("user.access_token"))]);
    let plain = TokenFields::default();
    let cases = [
        (&plain, r#"{"refresh_token":"r2","token":"x"}"#, Some("r2")),
        (&plain, r#"{"refresh_token":"r2","access_token":5,}"#, Some("r2")),
        (&plain, "{\"refresh_token\":\"r2\",\"access_token\":\"a\\nb\"}", Some("r2")),
        (&plain, r#"{"refresh_token":"r2","access_token":"a"#, Some("r2")),
        (&plain, "refresh_token=r2&token=x", Some("r2")),
        (&plain, r#"{"access_token":"a","refresh_token":"r"#, None),
        (&plain, "{\"refresh_token\":\"r\t2\",\"token\":\"x\"}", None),
        (&plain, r#"{"refresh_token":"","token":"x"}"#, None),
        (&plain, r#"{"refresh_token":2}"#, None),
        (&fields, r#"{"user":{"refresh_token":"r2"},"refresh_token":"other"}"#, Some("r2")),
        (&fields, r#"{"user":{"id":1},"refresh_token":"other"}"#, None),
        (&fields, r#"{"access_token":"a","refresh_token":"other"}"#, None),
    ];
    for (fields, body, expected) in cases {
        let failure = read(200, &Headers::new(), body.as_bytes(), fields, SENT).unwrap_err();
        assert_eq!(failure.next_refresh_token, expected.map(Secret::new), "{body}");
        // Nothing was lost.
        let reached = if expected.is_some() { Reached::No } else { Reached::Perhaps };
        assert_eq!(failure.reached, reached, "{body}");
    }
    let refused = r#"{"error":"invalid_grant","refresh_token":"r2"}"#;
    let failure = read(200, &Headers::new(), refused.as_bytes(), &plain, SENT).unwrap_err();
    assert_eq!(failure.next_refresh_token, None);
}

#[test]
fn retry_after_in_both_forms() {
    let after = |value: &str| {
        let mut headers = Headers::new();
        headers.push("Retry-After", value);
        headers.retry_after_ms(SENT)
    };
    assert_eq!(after("7"), Some(7_000));
    assert_eq!(after("Fri, 15 Jan 2027 08:00:30 GMT"), Some(30_000));
    assert_eq!(after("Fri, 15 Jan 2021 08:00:30 GMT"), None);
    assert_eq!(after("soon"), None);
    assert_eq!(Headers::new().retry_after_ms(SENT), None);
}

#[test]
fn a_gateway_without_an_answer_of_the_issuer_says_nothing_of_the_refresh_token() {
    let sent = Timestamp::from_secs(1_800_000_000);
    let dead = r#"{"error":"invalid_grant"}"#;
    let cases = [
        (502, "<html>", Reached::Perhaps),
        (504, "", Reached::Perhaps),
        (200, "<html>", Reached::Perhaps),
        (400, SALESFORCE_IS_BUSY, Reached::Perhaps),
        // Cloudflare: an odd answer, one too late, and an origin that was not reached.
        (520, "<html>", Reached::Perhaps),
        (524, "error code: 524", Reached::Perhaps),
        (522, "error code: 522", Reached::No),
        (502, dead, Reached::No),
        (500, "", Reached::No),
        (503, "", Reached::No),
        (429, "", Reached::No),
    ];
    for (status, body, expected) in cases {
        let failure = read(status, &Headers::new(), body.as_bytes(), &TokenFields::default(), sent)
            .unwrap_err();
        assert_eq!(failure.reached, expected, "{status} {body}");
    }
}
