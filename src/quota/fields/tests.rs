//! The fields of each provider, right and wrong.

use super::glance::{Glance, glance};
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(*name, *value);
    }
    headers
}

/// `name scope ratio reset used-up`, with `-` for what is not said, and times in seconds from now.
fn shown(fields: &[(&str, &str)]) -> Vec<String> {
    let headers = headers(fields);
    let seconds = |at: Option<Timestamp>| {
        at.map_or_else(
            || "-".into(),
            |at| {
                (Duration::from_millis(u64::try_from(at.millis_since(NOW)).unwrap()).as_secs_f64())
                    .to_string()
            },
        )
    };
    let line = |one: &Reading<'_>| {
        let name = String::from_utf8(one.name.to_vec()).unwrap();
        let ratio = one.remaining_ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        let scope = match one.scope {
            Scope::Account => "account",
            Scope::Family => "family",
            Scope::Model => "model",
            Scope::Unknown => "unknown",
        };
        format!("{name} {scope} {ratio} {} {}", seconds(one.reset_at), seconds(one.used_up_until))
    };
    read(&headers, NOW).iter().map(line).collect()
}

type Fields = &'static [(&'static str, &'static str)];

/// The fields of each provider, and the windows in them.
const FORMS: [(&str, Fields, &[&str]); 28] = [
    (
        "no field",
        &[("content-type", "x"), ("x-request-id", "1"), ("anthropic-organization-id", "o")],
        &[],
    ),
    (
        "Anthropic API",
        &[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
            ("anthropic-ratelimit-tokens-limit", "40000"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:30Z"),
            ("anthropic-ratelimit-input-tokens-limit", "20000"),
            ("anthropic-ratelimit-input-tokens-remaining", "10000"),
            ("anthropic-ratelimit-input-tokens-reset", "2027-01-15T08:00:01Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "8000"),
            ("anthropic-ratelimit-output-tokens-reset", "2027-01-15T08:00:00Z"),
        ],
        &[
            "requests model 0.98 5 -",
            "tokens model 0.00 30 30",
            "input-tokens model 0.50 1 -",
            "output-tokens model 1.00 - -",
        ],
    ),
    (
        "Anthropic subscription",
        &[
            ("anthropic-ratelimit-unified-status", "allowed"),
            ("anthropic-ratelimit-unified-reset", "1800003600"),
            ("anthropic-ratelimit-unified-5h-status", "allowed"),
            ("anthropic-ratelimit-unified-5h-reset", "1800003600"),
            ("anthropic-ratelimit-unified-5h-utilization", "0.27"),
            ("anthropic-ratelimit-unified-7d-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-7d-reset", "1800400000"),
            ("anthropic-ratelimit-unified-7d-utilization", "0.91"),
            ("anthropic-ratelimit-unified-7d-surpassed-threshold", "0.9"),
            ("anthropic-ratelimit-unified-7d_opus-status", "rejected"),
            ("anthropic-ratelimit-unified-7d_opus-reset", "1800400000"),
            ("anthropic-ratelimit-unified-7d_opus-utilization", "1.0"),
            ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
            ("anthropic-ratelimit-unified-fallback-percentage", "0.5"),
            ("anthropic-ratelimit-unified-overage-status", "rejected"),
            ("anthropic-ratelimit-unified-overage-disabled-reason", "org_level_disabled"),
        ],
        &[
            "5h account 0.73 3600 -",
            "7d account 0.09 400000 -",
            "7d_opus family 0.00 400000 400000",
            "unified account - - -",
        ],
    ),
    (
        "a subscription that used up five hours, and goes on with extra usage",
        &[
            ("anthropic-ratelimit-unified-status", "allowed"),
            ("anthropic-ratelimit-unified-5h-utilization", "1.02"),
            ("anthropic-ratelimit-unified-5h-reset", "1800003600"),
        ],
        &["5h account 0.00 3600 3600", "unified account - - -"],
    ),
    (
        "the summary alone",
        &[
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1800000040"),
        ],
        &["unified account 0.00 40 40"],
    ),
    (
        "a summary about one family",
        &[
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1800000040"),
            ("anthropic-ratelimit-unified-representative-claim", "seven_day_opus"),
            ("anthropic-ratelimit-unified-5h-utilization", "0.5"),
            ("anthropic-ratelimit-unified-5h-reset", "1800000010"),
        ],
        &["5h account 0.50 10 -", "7d_opus family 0.00 40 40"],
    ),
    (
        "a summary about a window without a status",
        &[
            ("anthropic-ratelimit-unified-5h-utilization", "0.98"),
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1800000040"),
            ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
        ],
        &["5h account 0.00 40 40"],
    ),
    (
        "OpenAI",
        &[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ],
        &["requests model 0.98 1 -", "tokens model 0.00 360 360"],
    ),
    (
        "Azure, without a reset",
        &[("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-remaining-tokens", "0")],
        &["requests model - - -", "tokens model 0.00 - 60"],
    ),
    (
        "Groq",
        &[
            ("x-ratelimit-limit-requests", "14400"),
            ("x-ratelimit-remaining-requests", "14370"),
            ("x-ratelimit-reset-requests", "2m59.56s"),
        ],
        &["requests model 1.00 179.56 -"],
    ),
    (
        "Cerebras, Mistral",
        &[
            ("x-ratelimit-limit-tokens-minute", "60000"),
            ("x-ratelimit-remaining-tokens-minute", "30000"),
            ("x-ratelimit-reset-tokens-minute", "13.5"),
        ],
        &["tokens-minute model 0.50 13.5 -"],
    ),
    (
        "Codex",
        &[
            ("x-codex-plan-type", "plus"),
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-after-seconds", "14520"),
            ("x-codex-secondary-used-percent", "27"),
            ("x-codex-secondary-window-minutes", "10080"),
            ("x-codex-secondary-reset-at", "1800400000"),
            ("x-codex-primary-over-secondary-limit-percent", "0"),
            ("x-codex-bengalfox-primary-used-percent", "100"),
        ],
        &[
            "primary account 0.00 14520 14520",
            "secondary account 0.73 400000 -",
            "bengalfox-primary unknown 0.00 - 60",
        ],
    ),
    (
        "Codex, used up while credits pay for more",
        &[
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-primary-reset-after-seconds", "14520"),
            ("x-codex-secondary-used-percent", "100"),
            ("x-codex-credits-has-credits", "True"),
            ("x-codex-credits-unlimited", "False"),
            ("x-codex-credits-balance", "12.5"),
        ],
        &["primary account 0.00 14520 -", "secondary account 0.00 - -"],
    ),
    (
        "Codex, with credits without end",
        &[
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-credits-has-credits", "false"),
            ("x-codex-credits-unlimited", "true"),
            ("x-codex-credits-balance", ""),
        ],
        &["primary account 0.00 - -"],
    ),
    (
        "Codex, with credits that are spent",
        &[
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-credits-has-credits", "true"),
            ("x-codex-credits-unlimited", "false"),
            ("x-codex-credits-balance", "0"),
        ],
        &["primary account 0.00 - 60"],
    ),
    (
        "Codex, without credits",
        &[("x-codex-primary-used-percent", "100"), ("x-codex-credits-has-credits", "False")],
        &["primary account 0.00 - 60"],
    ),
    (
        "GitHub",
        &[
            ("X-RateLimit-Limit", "5000"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "1800000900"),
            ("X-RateLimit-Used", "5000"),
            ("X-RateLimit-Resource", "core"),
        ],
        &["core account 0.00 900 900"],
    ),
    (
        "GitHub's search, which is one part of its API",
        &[
            ("X-RateLimit-Limit", "30"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "1800000009"),
            ("X-RateLimit-Resource", "search"),
        ],
        &["search unknown 0.00 9 9"],
    ),
    (
        "milliseconds since 1970",
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1800000009500")],
        &["default account 0.00 9.5 9.5"],
    ),
    (
        "with another dash",
        &[("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "1800000009")],
        &["default account 0.00 9 9"],
    ),
    (
        "seconds from now, in a name of their own",
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset-after", "1.5")],
        &["default account 0.00 1.5 1.5"],
    ),
    (
        "the window before the part",
        &[("x-ratelimit-requests-remaining", "0"), ("x-ratelimit-requests-reset", "5")],
        &["requests model 0.00 5 5"],
    ),
    (
        "the draft",
        &[
            ("RateLimit-Policy", "\"default\";q=100;w=60, \"daily\";q=1000;w=86400"),
            ("RateLimit", "\"default\";r=50;t=30, \"daily\";r=0;t=4000"),
        ],
        &["default account 0.50 30 -", "daily account 0.00 4000 4000"],
    ),
    (
        "the draft with names as tokens, blanks and parameters of its own",
        &[("ratelimit", "burst ; r=0 ; t=7 ; pk=:cGs=:")],
        &["burst account 0.00 7 7"],
    ),
    (
        "an earlier draft in one field",
        &[("RateLimit", "limit=100, remaining=50, reset=5")],
        &["default account 0.50 5 -"],
    ),
    (
        "an earlier draft in three",
        &[
            ("RateLimit-Limit", "100, 100;w=60"),
            ("RateLimit-Remaining", "0"),
            ("RateLimit-Reset", "50"),
            ("RateLimit-Policy", "100;w=60"),
        ],
        &["default account 0.00 50 50"],
    ),
    (
        "in any case of letters",
        &[("X-RATELIMIT-REMAINING-TOKENS", " 0 "), ("x-RateLimit-reset-Tokens", "\t2s ")],
        &["TOKENS model 0.00 2 2"],
    ),
    (
        "twice: the last number, the first reset",
        &[
            ("x-ratelimit-remaining", "5"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "2"),
            ("x-ratelimit-reset", "9"),
        ],
        &["default account 0.00 2 2"],
    ),
];

#[test]
fn every_form_is_read() {
    for (name, fields, expected) in FORMS {
        assert_eq!(shown(fields), expected, "{name}");
    }
}

const WRONG: [(&str, Fields, &[&str]); 20] = [
    (
        "garbage",
        &[("x-ratelimit-remaining-tokens", "few"), ("x-ratelimit-reset-tokens", "ages")],
        &[],
    ),
    ("nothing", &[("x-ratelimit-remaining-tokens", "")], &[]),
    (
        "-1 for no limit",
        &[("x-ratelimit-remaining-tokens", "-1"), ("x-ratelimit-limit-tokens", "-1")],
        &[],
    ),
    (
        "a limit of 0 is none",
        &[
            ("x-ratelimit-limit-tokens", "0"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "5s"),
        ],
        &[],
    ),
    ("NaN", &[("x-ratelimit-remaining-tokens", "NaN"), ("x-ratelimit-limit-tokens", "nan")], &[]),
    ("infinite", &[("anthropic-ratelimit-unified-5h-utilization", "inf")], &[]),
    ("percent for a share", &[("anthropic-ratelimit-unified-5h-utilization", "27")], &[]),
    ("a negative share", &[("anthropic-ratelimit-unified-5h-utilization", "-0.2")], &[]),
    ("too many percent", &[("x-codex-primary-used-percent", "100000")], &[]),
    (
        "more left than the limit",
        &[("x-ratelimit-remaining", "20"), ("x-ratelimit-limit", "10"), ("x-ratelimit-reset", "5")],
        &["default account 1.00 5 -"],
    ),
    (
        "a share of one that is left is not nothing",
        &[
            ("x-ratelimit-remaining", "0.25"),
            ("x-ratelimit-limit", "1"),
            ("x-ratelimit-reset", "5"),
        ],
        &["default account 0.25 5 -"],
    ),
    (
        "a reset in the past",
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000000")],
        &["default account - - -"],
    ),
    (
        "a reset in the past, of Codex",
        &[("x-codex-primary-used-percent", "100"), ("x-codex-primary-reset-at", "1700000000")],
        &["primary account - - -"],
    ),
    (
        "a reset in the past, of a share of which something is left",
        &[("x-codex-primary-used-percent", "40"), ("x-codex-primary-reset-at", "1700000000")],
        &["primary account 0.60 - -"],
    ),
    (
        "a reset in the past, as a date",
        &[
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2026-01-15T08:00:30Z"),
        ],
        &["tokens model - - -"],
    ),
    (
        "a reset now",
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "0")],
        &["default account - - -"],
    ),
    (
        "a status that nobody knows",
        &[("anthropic-ratelimit-unified-5h-status", "throttled")],
        &["5h account - - -"],
    ),
    (
        "names that are none",
        &[
            ("x-ratelimit-remaining-", "0"),
            ("RateLimit", "\"a b\";r=0;t=5, \"\";r=0;t=5, \"é\";r=0;t=5"),
        ],
        &[],
    ),
    (
        "a draft that breaks off",
        &[
            ("RateLimit", "\"default;r=0;t=5"),
            ("ratelimit", ";;;r=0,,="),
            ("ratelimit", "\"x\";r;t="),
        ],
        &[],
    ),
    (
        "a codex window without a name",
        &[("x-codex--used-percent", "100"), ("x-codex-used-percent", "100")],
        &[],
    ),
];

/// Such a window was never used up, and shown with nothing left as long as answers stated it.
#[test]
fn a_window_that_is_used_up_without_a_usable_reset_is_so_for_a_minute() {
    for reset in ["2115000000", "later", "never", "-5", "", "9e99", "99999999"] {
        let fields = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)];
        assert_eq!(shown(&fields), ["default account 0.00 - 60"], "{reset}");
        let codex = [("x-codex-primary-used-percent", "100"), ("x-codex-primary-reset-at", reset)];
        assert_eq!(shown(&codex), ["primary account 0.00 - 60"], "{reset}");
    }
}

/// A provider that counts fractions of requests was asked with 0.4 of one left.
#[test]
fn less_than_one_left_is_nothing() {
    for (left, limit, expected) in [
        ("0.4", "10", "default account 0.00 5 5"),
        ("0.99", "1.5", "default account 0.00 5 5"),
        ("1", "10", "default account 0.10 5 -"),
        ("1.0", "1", "default account 1.00 5 -"),
    ] {
        let fields = [
            ("x-ratelimit-remaining", left),
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-reset", "5"),
        ];
        assert_eq!(shown(&fields), [expected], "{left}");
    }
    let alone = [("x-ratelimit-remaining-tokens", "0.4"), ("x-ratelimit-reset-tokens", "5")];
    assert_eq!(shown(&alone), ["tokens model 0.00 5 5"]);
    assert_eq!(glance(&headers(&alone)), Glance::MayBeUsedUp);
}

/// A wrong value is as if it were not there, and never makes a window count as used up.
#[test]
fn wrong_values_do_no_harm() {
    for (name, fields, expected) in WRONG {
        assert_eq!(shown(fields), expected, "{name}");
    }
    let mut raw = Headers::new();
    raw.push("x-ratelimit-remaining", b"\xff0");
    assert_eq!(read(&raw, NOW), []);
}

/// A closer look finds nothing that the first one missed.
#[test]
fn the_first_look_is_never_too_hopeful() {
    let others = [
        ("date", "Tue, 24 Nov 2026 08:00:00 GMT"),
        ("request-id", "req_011"),
        ("x-request-id", "r"),
        ("cf-ray", "0"),
        ("x-robots-tag", "none"),
        ("anthropic-organization-id", "o"),
        ("retry-after", "0"),
        ("age", "0"),
        ("via", "0"),
    ];
    assert_eq!(glance(&headers(&others)), Glance::Nothing);
    let (mut left, mut used_up) = (0, 0);
    for (name, fields, _) in FORMS.iter().chain(&WRONG) {
        let headers = headers(fields);
        let readings = read(&headers, NOW);
        let counts = |one: &Reading<'_>| one.used_up_until.is_some() && one.scope != Scope::Unknown;
        let expected = match readings.iter().any(counts) {
            true => Glance::MayBeUsedUp,
            false if readings.is_empty() => continue,
            false => Glance::SomethingLeft,
        };
        let found = glance(&headers);
        assert!(found == expected || found == Glance::MayBeUsedUp, "{name}: {found:?}");
        used_up += u32::from(found == Glance::MayBeUsedUp);
        left += u32::from(found == Glance::SomethingLeft);
    }
    assert!(left > 3 && used_up > 12, "{left} {used_up}");
    let subscription = [
        ("anthropic-ratelimit-unified-status", "allowed"),
        ("anthropic-ratelimit-unified-5h-status", "allowed_warning"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.27"),
        ("anthropic-ratelimit-unified-7d-utilization", "0"),
        ("anthropic-ratelimit-unified-7d-reset", "1800400000"),
        ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
        ("anthropic-ratelimit-unified-fallback-percentage", "0.5"),
        ("anthropic-ratelimit-unified-overage-status", "rejected"),
        ("anthropic-ratelimit-unified-overage-disabled-reason", "org_level_disabled"),
        ("anthropic-ratelimit-tokens-remaining", "100"),
        ("anthropic-ratelimit-tokens-limit", "100"),
        ("x-ratelimit-remaining-tokens", "1"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("x-codex-primary-used-percent", "99"),
        ("x-codex-primary-reset-at", "1800400000"),
    ];
    for field in subscription {
        assert_eq!(glance(&headers(&[field])), Glance::SomethingLeft, "{field:?}");
    }
}

#[test]
fn the_number_of_windows_and_the_length_of_names_are_limited() {
    let windows = |count: usize| {
        let mut headers = Headers::new();
        for index in 0..count {
            headers.push(format!("x-ratelimit-remaining-w{index}"), "0");
        }
        read(&headers, NOW).len()
    };
    assert_eq!((windows(WINDOWS_MAX), windows(WINDOWS_MAX + 1), windows(1000)), (12, 12, 12));
    let named = |length: usize| {
        let mut headers = Headers::new();
        headers.push(format!("x-ratelimit-remaining-{}", "w".repeat(length)), "0");
        read(&headers, NOW).len()
    };
    assert_eq!((named(NAME_MAX_BYTES), named(NAME_MAX_BYTES + 1)), (1, 0));
}

#[test]
fn fields_that_say_that_one_model_has_nothing_left() {
    let cases: [(Fields, bool); 6] = [
        (&[("x-ratelimit-remaining-tokens", "0")], true),
        (&[("anthropic-ratelimit-requests-remaining", "0")], true),
        (&[("x-ratelimit-remaining-tokens", "1")], false),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-remaining-tokens", "0")], false),
        (&[("anthropic-ratelimit-unified-5h-status", "rejected")], false),
        (&[], false),
    ];
    for (fields, expected) in cases {
        assert_eq!(is_of_model(&headers(fields), NOW), expected, "{fields:?}");
    }
}

#[test]
fn resets_of_used_up_windows() {
    let cases: [(Fields, Option<u64>); 12] = [
        (
            &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")],
            Some(360_000),
        ),
        (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "20ms")], Some(20)),
        (
            &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1h1.5s")],
            Some(3_601_500),
        ),
        (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "ages")], None),
        (&[("x-ratelimit-remaining-tokens", "0")], None),
        (&[("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "9s")], None),
        (
            &[
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
            ],
            Some(5_000),
        ),
        (
            &[
                ("anthropic-ratelimit-tokens-remaining", "9"),
                ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:05Z"),
            ],
            None,
        ),
        (
            &[
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-reset", "1800000040"),
                ("anthropic-ratelimit-unified-overage-status", "rejected"),
                ("anthropic-ratelimit-unified-overage-reset", "1800090000"),
            ],
            Some(40_000),
        ),
        (
            &[
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-reset", "1700000000"),
            ],
            None,
        ),
        (
            &[
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
                ("anthropic-ratelimit-tokens-remaining", "0"),
                ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:01:00Z"),
            ],
            Some(60_000),
        ),
        (
            &[
                ("X-RateLimit-Remaining", "0"),
                ("X-RateLimit-Reset", "1800000009"),
                ("X-RateLimit-Resource", "search"),
            ],
            Some(9_000),
        ),
    ];
    for (fields, expected_ms) in cases {
        let reset = reset(&headers(fields), NOW);
        assert_eq!(reset, expected_ms.map(Duration::from_millis), "{fields:?}");
    }
}
