//! The text of a scrape, and times.

use super::*;
use crate::bound::Bound;
use crate::ingress::tally::ListenerCounts;
use crate::report::TunnelsReport;
use crate::tls::{CertificateNow, Validity};
use crate::usage::table::Counts;

#[test]
fn the_time_until_a_provider_answers_is_estimated_from_its_histogram() {
    let metrics = Metrics::new();
    assert_eq!(metrics.first_byte("A"), None);
    let (first_byte, total) = (Duration::from_millis(70), Duration::from_secs(2));
    metrics.observe(Some(("A", &metrics.of_provider("A"))), Some(200), Some(first_byte), total);
    assert_eq!(metrics.first_byte("A"), Some(Latency { p50_ms: 75, p95_ms: 98 }));
}

fn fine_configuration() -> ConfigurationNow {
    let read_at = Timestamp::default();
    ConfigurationNow { read_at, is_last_reload_fine: true, departed_in_flight: 0 }
}

#[test]
fn every_metric_is_there_and_a_scrape_says_how_things_are_now() {
    let metrics = Metrics::new();
    let own = metrics.of_provider("A \"b\"");
    for status in [200, 404] {
        let (first_byte, total) = (Duration::from_millis(30), Duration::from_secs(2));
        metrics.observe(Some(("A \"b\"", &own)), Some(status), Some(first_byte), total);
    }
    metrics.observe(None, Some(403), None, Duration::ZERO);
    let ci = metrics.of_key("ci");
    for status in [Some(200), Some(429), None, Some(200)] {
        metrics.observe_key("ci", &ci, status);
    }
    metrics.upstream_error("A", "cut");
    metrics.connections_changed(1);
    let now = || ProviderNow {
        name: "A",
        is_ready: Some(true),
        expires_at: Some(Timestamp::from_millis(1_800_000_000_500)),
        refresh_token_expires_at: Some(Timestamp::from_secs(1_900_000_000)),
        successes: 3,
        failures: 1,
        in_flight: 2,
        tunnels: TunnelsReport { open: 1, total: 2, received_bytes: 3, sent_bytes: 4 },
        quota: vec![
            ("5h".into(), Some(0.25), Some(Timestamp::from_secs(1_800_000_300))),
            ("tokens".into(), None, None),
        ],
    };
    let configuration = ConfigurationNow {
        read_at: Timestamp::from_millis(1_700_000_000_250),
        is_last_reload_fine: false,
        departed_in_flight: 3,
    };
    let mut usage = Table::default();
    let counts = Counts {
        input: 1,
        output: 2,
        cache_read: 3,
        cache_write: 4,
        unknown: 5,
        ..Counts::default()
    };
    usage.add("A", "m", "ci", &counts);
    let gone = ProviderNow { name: "gone", ..now() };
    metrics.scrape(&[now(), gone], &[], configuration, 2, &usage);
    // It would begin at 0, which a counter does only at a start.
    let disabled = ProviderNow { name: "off", is_ready: None, successes: 0, in_flight: 0, ..now() };
    let text = metrics.scrape(&[now(), disabled], &[], configuration, 3, &usage);
    assert!(!text.contains("gone") && !text.contains("outcome=\"success\",provider=\"off\""));
    for line in [
        concat!("evertoken_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "evertoken_requests_total{code=\"200\",provider=\"A \\\"b\\\"\"} 1",
        "evertoken_websockets{provider=\"A\"} 1",
        "evertoken_websocket_bytes_total{direction=\"received\",provider=\"A\"} 3",
        "evertoken_websocket_bytes_total{direction=\"sent\",provider=\"A\"} 4",
        "evertoken_requests_total{code=\"404\",provider=\"A \\\"b\\\"\"} 1",
        "evertoken_requests_total{code=\"403\",provider=\"\"} 1",
        "evertoken_key_requests_total{code=\"200\",key=\"ci\"} 2",
        "evertoken_key_requests_total{code=\"429\",key=\"ci\"} 1",
        "evertoken_key_requests_total{code=\"0\",key=\"ci\"} 1",
        "evertoken_requests_in_flight 5",
        "evertoken_request_duration_seconds_bucket{provider=\"A \\\"b\\\"\",le=\"1\"} 0",
        "evertoken_request_duration_seconds_count{provider=\"A \\\"b\\\"\"} 2",
        "evertoken_time_to_first_byte_seconds_sum{provider=\"A \\\"b\\\"\"} 0.06",
        "evertoken_upstream_errors_total{kind=\"cut\",provider=\"A\"} 1",
        "evertoken_refreshes_total{outcome=\"success\",provider=\"A\"} 3",
        "evertoken_refreshes_total{outcome=\"failure\",provider=\"A\"} 1",
        "evertoken_token_expiry_timestamp_seconds{provider=\"A\"} 1800000000.5",
        "evertoken_refresh_token_expiry_timestamp_seconds{provider=\"A\"} 1900000000",
        "evertoken_provider_ready{provider=\"A\"} 1",
        "evertoken_quota_remaining_ratio{provider=\"A\",window=\"5h\"} 0.25",
        "evertoken_quota_reset_timestamp_seconds{provider=\"A\",window=\"5h\"} 1800000300",
        "evertoken_connections 1",
        "evertoken_log_lines_dropped_total 3",
        "evertoken_config_last_reload_successful 0",
        "evertoken_usage_tokens_total{key=\"ci\",kind=\"input\",model=\"m\",provider=\"A\"} 1",
        "evertoken_usage_tokens_total{key=\"ci\",kind=\"output\",model=\"m\",provider=\"A\"} 2",
        "evertoken_usage_tokens_total{key=\"ci\",kind=\"cache_read\",model=\"m\",provider=\"A\"} 3",
        "evertoken_usage_tokens_total{key=\"ci\",kind=\"cache_write\",model=\"m\",provider=\"A\"} 4",
        "evertoken_usage_unknown_answers_total{key=\"ci\",model=\"m\",provider=\"A\"} 5",
        "evertoken_config_last_reload_success_timestamp_seconds 1700000000.25",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
}

/// One of an hour made the slowest answer an hour long.
#[test]
fn a_websocket_does_not_stretch_the_times_of_answers() {
    let metrics = Metrics::new();
    let own = metrics.of_provider("A");
    let (first_byte, total) = (Duration::from_secs(2), Duration::from_secs(3));
    metrics.observe(Some(("A", &own)), Some(200), Some(first_byte), total);
    let alone = metrics.first_byte("A");
    let (first_byte, total) = (Duration::from_millis(1), Duration::from_hours(1));
    metrics.observe(Some(("A", &own)), Some(101), Some(first_byte), total);
    assert_eq!(metrics.first_byte("A"), alone);
    let configuration = fine_configuration();
    let text = metrics.scrape(&[], &[], configuration, 0, &Table::default());
    for line in [
        "evertoken_requests_total{code=\"101\",provider=\"A\"} 1",
        "evertoken_request_duration_seconds_count{provider=\"A\"} 1",
        "evertoken_request_duration_seconds_sum{provider=\"A\"} 3",
        "evertoken_time_to_first_byte_seconds_count{provider=\"A\"} 1",
        "evertoken_websocket_duration_seconds_count{provider=\"A\"} 1",
        "evertoken_websocket_duration_seconds_bucket{provider=\"A\",le=\"900\"} 0",
        "evertoken_websocket_duration_seconds_bucket{provider=\"A\",le=\"3600\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
}

#[test]
fn listeners_have_their_metrics() {
    let bound =
        [Bound::Tls("127.0.0.1:8443".parse().unwrap()), Bound::Unix("/run/evertoken.sock".into())];
    let counts = ListenerCounts {
        open: 1,
        accepted: 2,
        received_bytes: 3,
        sent_bytes: 4,
        failed_handshakes: 5,
    };
    let validity = Validity {
        begins: Timestamp::from_secs(1_700_000_000),
        ends: Timestamp::from_secs(1_800_000_000),
    };
    let listener = |bound, certificate| ListenerNow {
        configured: None,
        bound,
        is_handed: true,
        certificate,
        counts: Some(counts),
    };
    let certificate = |renewal_problem| Some(CertificateNow { validity, renewal_problem });
    let listeners = [listener(&bound[0], certificate(None)), listener(&bound[1], None)];
    let configuration = fine_configuration();
    let text = Metrics::new().scrape(&[], &listeners, configuration, 0, &Table::default());
    for line in [
        "evertoken_listener_connections{listener=\"https://127.0.0.1:8443\"} 1",
        "evertoken_listener_accepted_total{listener=\"unix:/run/evertoken.sock\"} 2",
        "evertoken_listener_bytes_total{direction=\"received\",listener=\"unix:/run/evertoken.sock\"} 3",
        "evertoken_listener_bytes_total{direction=\"sent\",listener=\"https://127.0.0.1:8443\"} 4",
        "evertoken_listener_failed_handshakes_total{listener=\"https://127.0.0.1:8443\"} 5",
        "evertoken_certificate_begin_timestamp_seconds{listener=\"https://127.0.0.1:8443\"} 1700000000",
        "evertoken_certificate_expiry_timestamp_seconds{listener=\"https://127.0.0.1:8443\"} 1800000000",
        "evertoken_certificate_files_usable{listener=\"https://127.0.0.1:8443\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
    assert!(
        !text.contains("evertoken_certificate_expiry_timestamp_seconds{listener=\"unix"),
        "{text}"
    );
    let listeners = [listener(&bound[0], certificate(Some("'c' can't be used".into())))];
    let text = Metrics::new().scrape(&[], &listeners, configuration, 0, &Table::default());
    let line = "evertoken_certificate_files_usable{listener=\"https://127.0.0.1:8443\"} 0";
    assert!(text.lines().any(|own| own == line), "{text}");
}

/// Their labels, one after the other, are the same text, by which they were counted as one.
#[test]
fn a_model_and_a_key_are_not_taken_for_others_that_join_to_the_same_text() {
    let mut usage = Table::default();
    let counts = |input| Counts { input, ..Counts::default() };
    usage.add("A", "gpt-5", "1", &counts(2));
    usage.add("A", "gpt-51", "", &counts(3));
    let text = Metrics::new().scrape(&[], &[], fine_configuration(), 0, &usage);
    for line in [
        "evertoken_usage_tokens_total{key=\"1\",kind=\"input\",model=\"gpt-5\",provider=\"A\"} 2",
        "evertoken_usage_tokens_total{key=\"\",kind=\"input\",model=\"gpt-51\",provider=\"A\"} 3",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
}
