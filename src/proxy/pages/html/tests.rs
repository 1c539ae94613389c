//! The page for people, as text.

use super::*;
use crate::report::words::sample;
use crate::shared::health::StoreReport;

fn report(provider: ProviderReport) -> Report {
    Report {
        version: "1.2.3".into(),
        started_at: Timestamp::from_secs(1_800_000_000),
        now: Timestamp::from_secs(1_800_000_600),
        uptime_seconds: 600,
        in_flight: 0,
        ready: true,
        token_store: None,
        failed_reload: None,
        usage: None,
        listeners: Vec::new(),
        providers: vec![provider],
    }
}

fn token(from: i64, due: i64, to: i64) -> TokenReport {
    let at = |seconds| Some(Timestamp::from_secs(1_800_000_000 + seconds));
    TokenReport {
        source: "refresh".into(),
        obtained_at: at(from),
        expires_at: at(to),
        expires_in_seconds: Some(to - 600),
        refresh_due_at: at(due),
        generation: 1,
    }
}

#[test]
fn what_is_wrong_with_the_token_store_is_on_the_page() {
    let mut report = report(sample("One"));
    assert!(render(&report).contains("<div class=\"problem\" id=\"store\" data-live></div>"));
    report.token_store = Some(StoreReport {
        place: "redis://h".into(),
        clock_offset_ms: Some(-9_000),
        problem: Some("READONLY <b>".into()),
        warning: Some("9.0 s ahead of".into()),
    });
    let page = render(&report);
    assert!(page.contains("<p><strong>READONLY &lt;b&gt;</strong></p>"));
    assert!(page.contains("<p><strong>9.0 s ahead of</strong></p></div>"));
}

#[test]
fn websockets_are_on_the_page_once_there_was_one() {
    let mut provider = sample("One");
    assert!(!render(&report(provider.clone())).contains("WebSockets"));
    (provider.tunnels.total, provider.tunnels.open, provider.tunnels.sent_bytes) = (3, 1, 2_500);
    let page = render(&report(provider));
    let row = "<dt>WebSockets</dt><dd>1 <small>0 B in, 2.5 KB out</small></dd>";
    assert!(page.contains(row), "{page}");
}

/// Below the warning of a missing variable stood "Make it writable", which is about state files.
#[test]
fn a_warning_of_a_missing_secret_does_not_ask_for_a_writable_file() {
    let mut provider = sample("One");
    provider.warning = Some("Missing environment variable: 'X'".into());
    let page = render(&report(provider));
    assert!(page.contains("Missing environment variable: &#39;X&#39;</strong>"), "{page}");
    assert!(!page.contains("writable"), "{page}");
}

#[test]
fn texts_from_outside_stay_texts() {
    let mut provider = sample("<script>alert('1')</script>\" onx=\"{providers}");
    provider.problem = Some("<b>&\"'".into());
    provider.warning = Some("<i>".into());
    provider.base_url = "https://<u>".into();
    provider.slug = "script".into();
    let page = render(&report(provider));
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(
        page.contains(
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onx=&quot;{providers}"
        )
    );
    for tag in ["<b>&\"", "<i>", "<u>"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("&lt;b&gt;&amp;&quot;&#39;"));
    assert_eq!(page.matches("<article").count(), 1);
}

#[test]
fn the_parts_of_a_disabled_provider_are_not_taken_for_those_of_its_namesake() {
    let mut report = report(sample("官方"));
    let off = ProviderReport { enabled: false, ..report.providers[0].clone() };
    report.providers.insert(0, off);
    let page = render(&report);
    for id in ["id=\"p-官方\"", "id=\"p-官方~0\"", "data-post=\"/-/refresh/%E5%AE%98%E6%96%B9\""]
    {
        assert_eq!(page.matches(id).count(), 1, "{id}\n{page}");
    }
}

#[test]
fn commands_are_marked() {
    assert_eq!(with_commands("Do `a <b>` then"), "Do <code>a &lt;b&gt;</code> then");
}

#[test]
fn nothing_of_the_page_is_left_unfilled() {
    let page = render(&report(sample("One")));
    assert!(!page.contains('{') && !page.contains('}'), "{page}");
    assert!(!page.contains(" style=") && !page.contains("onclick"), "the policy forbids them");
}

#[test]
fn the_bar_shows_what_is_left_and_where_it_is_refreshed() {
    let mut provider = sample("One");
    provider.token = Some(token(0, 900, 1200));
    let page = render(&report(provider.clone()));
    assert!(page.contains("class=\"left\" x=\"500\" width=\"500\""));
    assert!(page.contains("class=\"due\" d=\"M750 0V10\""));
    assert!(page.contains(">10 min 00 s</span></b> left"));
    assert!(
        page.contains("</i>refresh in <span class=\"n\" data-until=\"1800000900000\">5 min 00 s")
    );
    provider.token = Some(token(0, 300, 600));
    let page = render(&report(provider));
    assert!(page.contains("class=\"left\" x=\"1000\" width=\"0\""));
    assert!(page.contains("<b>expired</b>") && !page.contains("refresh in"));
}

#[test]
fn another_way_to_a_token_than_a_refresh_token_is_named() {
    let mut provider = sample("One");
    provider.token = Some(token(0, 900, 1200));
    assert!(!render(&report(provider.clone())).contains(">by "));
    provider.grant = Some("token_command".to_owned());
    assert!(render(&report(provider)).contains("<span class=\"muted\">by token_command</span>"));
}

#[test]
fn each_state_has_its_word_and_its_button_where_it_can_be_refreshed() {
    for (state, word) in [
        (State::Ready, " ready</p>"),
        (State::Refreshing, " refreshing</p>"),
        (State::Failing, " failing</p>"),
        (State::Unavailable, " unavailable</p>"),
        (State::CoolingDown, " cooling down</p>"),
        (State::Disabled, " disabled</p>"),
    ] {
        let mut provider = sample("One");
        provider.state = state;
        provider.enabled = state != State::Disabled;
        let page = render(&report(provider.clone()));
        assert!(page.contains(word), "{word}");
        assert_eq!(page.contains("data-post=\"/-/refresh/one\""), provider.enabled);
        provider.credential = CredentialKind::Static;
        assert!(!render(&report(provider)).contains("/-/refresh/one"));
    }
}
