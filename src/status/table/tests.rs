//! The table as a text.

use super::*;
use crate::clock::Timestamp;
use crate::report::listeners::{self, ConnectionsReport, ListenerReport};
use crate::report::words::sample;
use crate::report::{Latency, TokenReport};

fn report(providers: Vec<ProviderReport>) -> Report {
    Report {
        version: "1.2.3".into(),
        started_at: Timestamp::from_secs(1_800_000_000),
        now: Timestamp::from_secs(1_800_000_600),
        uptime_seconds: 600,
        in_flight: 3,
        ready: false,
        token_store: None,
        failed_reload: None,
        usage: None,
        listeners: Vec::new(),
        providers,
    }
}

fn providers() -> Vec<ProviderReport> {
    let mut ready = sample("Claude Code Official");
    ready.token = Some(TokenReport {
        source: "refresh".into(),
        obtained_at: None,
        expires_at: None,
        expires_in_seconds: Some(2530),
        refresh_due_at: None,
        generation: 1,
    });
    (ready.refresh.successes, ready.refresh.failures) = (17, 2);
    ready.requests.total = 12_345;
    (ready.tunnels.open, ready.tunnels.received_bytes) = (2, 1500);
    ready.requests.first_byte = Some(Latency { p50_ms: 240, p95_ms: 1200 });
    let mut dead = sample("备用账户");
    (dead.state, dead.refresh.failures) = (State::Unavailable, 1);
    dead.problem = Some("Failed to refresh token: 400 Bad Request (invalid_grant)".into());
    dead.advice = Some("Log in again: evertoken login --provider backup. ".repeat(2));
    dead.refresh.next_attempt_at = Some(Timestamp::from_secs(1_800_000_660));
    let mut fixed = sample("A name that is longer than its column");
    (fixed.credential, fixed.state) = (Kind::Static, State::CoolingDown);
    fixed.cooldown_until = Some(Timestamp::from_secs(1_800_000_605));
    vec![ready, dead, fixed]
}

#[test]
fn a_table() {
    let expected = "\
evertoken 1.2.3 at http://127.0.0.1:8080, up 10 min 00 s, 3 in flight
2 of 3 providers need attention

PROVIDER          STATE         TOKEN LEFT   REFRESHES  REQUESTS  ERRORS     P50
Claude Code Off…  ready         42 min 10 s  17, 2 bad    12,345       0  240 ms
  2 WebSockets open; 1.5 KB in, 0 B out.
备用账户          unavailable   none         0, 1 bad          0       0       -
  Failed to refresh token: 400 Bad Request (invalid_grant)
  Next try in 1 min 00 s.
  Log in again: evertoken login --provider backup. Log in again: evertoken login
  --provider backup.
A name that is …  cooling down  fixed        -                 0       0       -
  Passed over for 5 s more.
";
    let shown = render(&report(providers()), "http://127.0.0.1:8080", false, WIDTH_MAX);
    assert_eq!(shown, expected, "\n{shown}");
    assert!(shown.lines().all(|line| line.width() <= WIDTH_MAX));
}

#[test]
fn listeners_stand_below_and_the_problem_of_their_certificate_above() {
    let mut report = report(vec![sample("One")]);
    report.now = Timestamp::from_secs(1_800_014_400);
    let unix = "unix:/run/evertoken.sock";
    report.listeners = vec![
        listeners::sample(),
        ListenerReport {
            address: unix.into(),
            configured: Some(unix.into()),
            certificate: None,
            connections: Some(ConnectionsReport::default()),
            ..listeners::sample()
        },
    ];
    let shown = render(&report, "u", false, WIDTH_MAX);
    let above = "The certificate of settings.tls expires at 18 Jan 12:00 UTC; replace it before\nthat\n\nPROVIDER";
    let below = "

LISTENING ON
https://127.0.0.1:8443: 3 open of 1,234 connections; 1.2 MB in, 999 B out;
configured as <localhost>:8443; 2 handshakes failed; certificate expires in 3 d
00 h
unix:/run/evertoken.sock: 0 open of 0 connections; 0 B in, 0 B out
";
    assert!(shown.contains(above) && shown.ends_with(below), "{shown}");
}

#[test]
fn what_is_left_of_a_quota_is_a_line() {
    let now = Timestamp::from_secs(1_800_000_600);
    let window = |name: &str, remaining_ratio, reset_s: Option<i64>, is_used_up: bool| {
        let reset_at = reset_s.map(|seconds| now.plus_millis(seconds * 1000));
        let used_up_until = reset_at.filter(|_| is_used_up);
        WindowReport {
            window: name.into(),
            model: None,
            remaining_ratio,
            reset_at,
            used_up_until,
            stated_at: now,
        }
    };
    let mut provider = sample("One");
    provider.quota = vec![
        window("5h", Some(0.734), Some(3600), false),
        window("7d", Some(0.0), Some(86_400), true),
        window("tokens", None, None, false),
    ];
    let shown = render(&report(vec![provider]), "u", false, 200);
    let line = "  Quota: 5h 73 % left, reset in 1 h 00 min; 7d used up, reset in 1 d 00 h; tokens something left.";
    assert!(shown.lines().any(|own| own == line), "{shown}");
}

#[test]
fn on_a_narrow_terminal_the_last_columns_give_way() {
    let expected = "\
evertoken 1.2.3
at http://127.0.0.1:8080, up 10 min 00 s, 3 in
flight
2 of 3 providers need attention

PROVIDER  STATE         TOKEN LEFT   REFRESHES
Claude …  ready         42 min 10 s  17, 2 bad
  2 WebSockets open; 1.5 KB in, 0 B out.
备用账户  unavailable   none         0, 1 bad
  Failed to refresh token: 400 Bad Request
  (invalid_grant)
  Next try in 1 min 00 s.
  Log in again: evertoken login --provider
  backup. Log in again: evertoken login
  --provider backup.
A name …  cooling down  fixed        -
  Passed over for 5 s more.
";
    let shown = |width| render(&report(providers()), "http://127.0.0.1:8080", false, width);
    assert_eq!(shown(46), expected, "\n{}", shown(46));
    for width in 35..=WIDTH_MAX {
        assert!(shown(width).lines().all(|line| line.width() <= width), "{width}");
    }
    assert!(!shown(45).contains("REFRESHES"));
    assert!(shown(0).contains("unavailable"));
}

#[test]
fn colours_only_where_they_are_wanted_and_nothing_that_a_terminal_obeys() {
    let mut provider = sample("\x1b[2Jname\n");
    provider.problem = Some("\x07bell \u{202e}".into());
    let report = report(vec![provider]);
    let bare = render(&report, "u\x1b", false, WIDTH_MAX);
    assert!(
        !bare.contains(['\x1b', '\x07', '\u{202e}']) && bare.contains("\u{fffd}[2Jname\u{fffd}")
    );
    let coloured = render(&report, "u", true, WIDTH_MAX);
    assert!(coloured.contains("\x1b[32mready"));
    assert!(coloured.contains("\x1b[31m"));
}

#[test]
fn names_are_cut_and_lines_broken_by_columns() {
    assert_eq!(cut(&"x".repeat(24), 24).width(), 24);
    assert_eq!(cut(&"x".repeat(25), 24).width(), 24);
    assert_eq!(cut(&"中".repeat(13), 24).width(), 23);
    assert_eq!(wrapped("ab cd", 5), ["ab cd"]);
    assert_eq!(wrapped("ab cde", 5), ["ab", "cde"]);
    assert_eq!(wrapped("abcdefg h", 5), ["abcdefg", "h"]);
}
