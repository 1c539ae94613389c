//! The page for people in headless Chromium: in every state, on a phone and on a desk, light and dark.
//!
//! The pictures are left in `target/screenshots`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use evertoken::testing::{Clock, Moment, RELEASED_AT};

use super::alone;
use super::chromium::Chromium;
use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// Makes `evertoken login` the remedy.
const LOGIN: &str = "device_authorization_url: \"http://127.0.0.1:9/device\"";
/// The lifetime of the issuers' tokens.
const HOUR_MS: u64 = 3_600_000;

/// More than the least time between two successful refreshes.
const GAP_MS: u64 = 11_000;
/// The number of looks for a refresh before the clock is moved on.
const LOOKS: usize = 200;

/// A clock that stands still unless it is moved.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let moved = self.0.clone();
        Clock::from_fn(move || {
            let moved = moved.load(Ordering::SeqCst);
            let ahead = i64::try_from(moved).unwrap() + 14 * 3_600_000;
            Moment { wall: RELEASED_AT.plus_millis(ahead), steady_ms: moved }
        })
    }

    fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// An issuer that takes its time on that clock, and does what it is told to.
struct Issuer {
    peer: Peer,
    answers: Arc<Mutex<(u16, String)>>,
}

impl Issuer {
    fn start(hand: &Hand) -> Self {
        let token = "{\"access_token\":\"token\",\"expires_in\":3600}";
        let answers = Arc::new(Mutex::new((200, token.to_owned())));
        let (of_peer, hand, count) = (answers.clone(), hand.clone(), AtomicU64::new(0));
        let peer = Peer::answering(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            hand.forward(180 + number * number * 137 % 500);
            let (status, body) = of_peer.lock().unwrap().clone();
            // One that is repeated would not live longer for that.
            answer(status, &body.replace("\"token\"", &format!("\"token-{number}\"")))
        });
        Self { peer, answers }
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answers.lock().unwrap() = (status, body.to_owned());
    }

    fn works(&self) {
        self.answers(200, "{\"access_token\":\"token\",\"expires_in\":3600}");
    }
}

/// A proxy whose providers are in all the states there are.
struct Stage {
    /// Held by the one that is refreshing; dropped first, since the proxy's end waits for the refresh.
    _release: Sender<()>,
    proxy: TestProxy,
    hand: Hand,
    issuers: Vec<Issuer>,
    _silent: Peer,
    _provider: Peer,
}

fn state_of(proxy: &TestProxy, slug: &str) -> String {
    let status = proxy.ask(get("/-/status")).json();
    let providers = status["providers"].as_array().unwrap();
    let found = providers.iter().find(|one| one["slug"] == slug).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// The number of refreshes, whatever their outcome.
fn refreshes(proxy: &TestProxy, slug: &str) -> u64 {
    let status = proxy.ask(get("/-/status")).json();
    let providers = status["providers"].as_array().unwrap();
    let refresh = &providers.iter().find(|one| one["slug"] == slug).unwrap()["refresh"];
    refresh["successes"].as_u64().unwrap() + refresh["failures"].as_u64().unwrap()
}

fn held(released: Receiver<()>) -> Peer {
    Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
    })
}

/// A subscription: much left, little left, nothing left for some models, and a window with the longest name.
fn quota(now_s: i64) -> String {
    let unified = |window: &str, used: &str, in_s: i64| {
        let name = format!("anthropic-ratelimit-unified-{window}");
        format!("{name}-utilization: {used}\r\n{name}-reset: {}\r\n", now_s + in_s)
    };
    let long = "window-with-a-rather-long-name-1";
    format!(
        "{}{}{}x-ratelimit-remaining-{long}: 7\r\nx-ratelimit-limit-{long}: 9\r\n",
        unified("5h", "0.27", 7_200),
        unified("7d", "0.943", 250_000),
        unified("7d_opus", "1.0", 250_000)
    )
}

impl Stage {
    fn set() -> Self {
        let hand = Hand::default();
        let issuers: Vec<_> = (0..4).map(|_| Issuer::start(&hand)).collect();
        let urls: Vec<_> = issuers.iter().map(|issuer| issuer.peer.url()).collect();
        let (release, released) = bounded(0);
        let silent = held(released);
        let clock = hand.clock();
        let provider = Peer::answering(move |seen| {
            if seen.line.contains("limited") {
                answer(429, "slow down")
            } else {
                let usage = "{\"model\":\"claude-sonnet-4-5-20250929\",\"usage\":{\"input_tokens\":12345678,\"output_tokens\":2345678}}";
                let mut limits = quota(clock.wall().as_millis() / 1000);
                if String::from_utf8_lossy(&seen.body).contains("model") {
                    limits += "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h\r\n";
                }
                let fields = format!("\r\ncontent-type: application/json\r\n{limits}");
                answer(200, usage).replacen("\r\n", &fields, 1)
            }
        });
        let api = provider.url();
        let proxy = TestProxy::builder()
            .clock(hand.clock())
            .refreshed("Claude Code Official", &api, &urls[0], "")
            .refreshed("Second account", &api, &urls[1], "")
            .refreshed("Expired account with a name that is rather long", &api, &urls[2], LOGIN)
            .refreshed("Cooling", &api, &urls[3], "")
            .refreshed("Just started", &api, &silent.url(), "")
            .provider("Backup <key>", "openai", &api, "auth_value: fixed\nenabled: false")
            .start();
        let stage =
            Self { proxy, hand, issuers, _release: release, _silent: silent, _provider: provider };
        stage.play();
        stage
    }

    /// Makes a refresh happen, on order or by itself.
    fn refresh(&self, slug: &str) {
        let before = refreshes(&self.proxy, slug);
        eventually("a refresh", || {
            // The answer is not waited for: within the gap between two refreshes it would not come, as
            // the clock stands still.
            Client::connect(self.proxy.address).send(post(&format!("/-/refresh/{slug}"), ""));
            let done = (0..LOOKS).any(|_| refreshes(&self.proxy, slug) > before);
            if !done {
                self.hand.forward(GAP_MS);
            }
            done
        });
        eventually("it is over", || state_of(&self.proxy, slug) != "refreshing");
    }

    /// A day and a half of it.
    fn play(&self) {
        let slugs = [
            "claude-code-official",
            "second-account",
            "expired-account-with-a-name-that-is-rather-long",
            "cooling",
        ];
        for slug in slugs {
            eventually("it has its first token", || state_of(&self.proxy, slug) == "ready");
        }
        for round in 0..36 {
            self.hand.forward(HOUR_MS - 300_000);
            for (slug, issuer) in slugs.into_iter().zip(&self.issuers) {
                if slug == slugs[0] && round % 17 == 11 {
                    issuer.answers(503, "");
                    self.refresh(slug);
                    issuer.works();
                }
                if slug == slugs[3] && round % 4 > 0 {
                    continue;
                }
                self.refresh(slug);
            }
        }
        let dead = "{\"error\":\"invalid_grant\"}";
        self.issuers[2].answers(400, dead);
        self.refresh(slugs[2]);
        self.hand.forward(HOUR_MS - 200_000);
        for slug in [slugs[0], slugs[3]] {
            self.refresh(slug);
        }
        // The rest of this one's token lies after the next hour.
        self.refresh(slugs[1]);
        self.hand.forward(1_100_000);
        self.issuers[1].answers(503, "");
        for _ in 0..3 {
            self.refresh(slugs[1]);
        }
        for _ in 0..40 {
            let asked = post("/to/claude-code-official/v1/messages", "{}");
            assert_eq!(self.proxy.ask(asked).status, 200);
        }
        // A name without a place to break it, as a client may choose.
        let long = format!("{{\"model\":\"{}\"}}", "long".repeat(40));
        let asked = post("/to/claude-code-official/v1/messages", &long);
        assert_eq!(self.proxy.ask(asked).status, 200);
        assert_eq!(self.proxy.ask(get("/to/cooling/limited")).status, 429);
        for (slug, state) in
            slugs.into_iter().zip(["ready", "failing", "unavailable", "cooling_down"])
        {
            assert_eq!(state_of(&self.proxy, slug), state, "{slug}");
        }
        assert_eq!(state_of(&self.proxy, "just-started"), "refreshing");
        assert_eq!(state_of(&self.proxy, "backup-key"), "disabled");
    }

    fn url(&self) -> String {
        format!("http://{}/-/", self.proxy.address)
    }
}

fn screenshot(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots").join(name)
}

/// Nothing lies beyond the right edge of a screen of this width. The browser's own width would grow with
/// what does.
fn fits(width: u32) -> String {
    format!(
        "document.documentElement.scrollWidth <= {width} && \
         [...document.querySelectorAll('body *')].every((one) => \
         one.closest('.wide, svg') || one.getBoundingClientRect().right <= {width} + 0.5)"
    )
}

/// Every text stands out from what is behind it as much as WCAG 2 asks for (AA).
const CONTRAST: &str = "(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgb(color)[3] !== 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest('svg, noscript') || !one.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push(`${one.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor.join('\\n');
})()";

#[test]
fn every_state_fits_every_screen_and_the_browser_has_nothing_to_complain_about() {
    let _alone = alone();
    let stage = Stage::set();
    let mut browser = Chromium::start();
    for scheme in ["light", "dark"] {
        for width in [360, 1280] {
            browser.screen(width, scheme);
            browser.open(&stage.url());
            browser.wait_for("document.getElementById('link').textContent === 'Live'");
            browser.picture(&screenshot(&format!("{width}-{scheme}.png")));
            assert_eq!(browser.evaluate(&fits(width)), true, "{width} {scheme}");
            assert_eq!(browser.evaluate(CONTRAST), "", "{width} {scheme}");
            browser.evaluate(
                "document.querySelectorAll('details').forEach((one) => { one.open = true; })",
            );
            assert_eq!(browser.evaluate(&fits(width)), true, "{width} {scheme}, unfolded");
            browser.picture(&screenshot(&format!("{width}-{scheme}-unfolded.png")));
            assert_eq!(browser.complaints(), [""; 0], "{width} {scheme}");
        }
    }
}

#[test]
fn it_is_whole_without_a_script() {
    let _alone = alone();
    let stage = Stage::set();
    let mut browser = Chromium::start();
    browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    browser.screen(360, "light");
    browser.open(&stage.url());
    browser.picture(&screenshot("360-light-without-script.png"));
    let shown = browser.evaluate("document.body.innerText");
    let shown = shown.as_str().unwrap();
    for part in ["Claude Code Official", "invalid_grant", "Log in again", "need JavaScript", "min"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("Refresh now"), "a button that does nothing is not shown");
}

#[test]
fn it_keeps_itself_up_to_date_and_its_buttons_work_by_keyboard() {
    let _alone = alone();
    let hand = Hand::default();
    let issuer = Issuer::start(&hand);
    let provider = Peer::answering(|_| answer(200, "fine"));
    let describe = || {
        TestProxy::builder().clock(hand.clock()).refreshed(
            "One",
            &provider.url(),
            &issuer.peer.url(),
            LOGIN,
        )
    };
    let proxy = describe().start();
    eventually("it is ready", || proxy.ask(get("/-/ready")).status == 200);
    let mut browser = Chromium::start();
    browser.screen(360, "light");
    browser.open(&format!("http://{}/-/", proxy.address));
    browser.wait_for("document.getElementById('link').textContent === 'Live'");
    // Its message vanishes after a while, so the test records it.
    browser.evaluate(
        "window.said = []; new MutationObserver(() => said.push(document.getElementById('told').textContent))\
         .observe(document.getElementById('told'), { childList: true })",
    );
    let shows =
        |text: &str| format!("document.getElementById('h-one').innerText.includes('{text}')");
    browser.wait_for(&shows("1 succeeded, 0 failed"));
    // Events elsewhere show up without a new load of the page.
    browser.evaluate("window.mark = 1");
    hand.forward(60_000);
    assert_eq!(proxy.ask(post("/-/refresh/one", "")).status, 200);
    browser.wait_for(&shows("2 succeeded, 0 failed"));
    proxy.ask(get("/v1/messages"));
    browser.wait_for("document.getElementById('r-one').innerText.startsWith('Requests\\n1')");
    // By keyboard: what has the focus is said and seen.
    hand.forward(60_000);
    reach(&mut browser, "Refresh now");
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.evaluate(outline), "solid");
    browser.press("Enter");
    browser.wait_for(&shows("3 succeeded, 0 failed"));
    browser.wait_for("said.includes('One: refreshed.')");
    assert_eq!(browser.evaluate("document.activeElement.id"), "b-one", "the focus stays");
    issuer.answers(400, "{\"error\":\"invalid_grant\"}");
    hand.forward(60_000);
    browser.press("Enter");
    browser.wait_for("document.getElementById('told').textContent.includes('invalid_grant')");
    browser.wait_for("document.getElementById('p-one').dataset.state === 'failing'");
    browser.wait_for("document.getElementById('w-one').innerText.includes('login --provider one')");
    // Another configuration: the stream ends, comes again, and the page shows it.
    let both = describe().provider("Two", "openai", &provider.url(), "auth_type: none");
    let file = proxy.folder().join("providers.yaml");
    std::fs::write(file, both.text(proxy.folder())).unwrap();
    reach(&mut browser, "Reload configuration");
    browser.press("Enter");
    browser.wait_for("Boolean(document.getElementById('p-two'))");
    browser.wait_for("document.getElementById('link').textContent === 'Live'");
    browser.wait_for("!document.getElementById('b-one').hidden");
    assert_eq!(browser.evaluate("window.mark"), 1, "it was never loaded again");
    // One with mistakes: each on a line of its own, and which one stays.
    let broken = describe().provider("Two", "openai", &provider.url(), "auth_typ: none\nheader: 1");
    std::fs::write(proxy.folder().join("providers.yaml"), broken.text(proxy.folder())).unwrap();
    reach(&mut browser, "Reload configuration");
    browser.press("Enter");
    browser.wait_for("document.getElementById('told').textContent.includes(' stays in use.')");
    let lines = browser.evaluate("document.getElementById('told').innerText");
    let lines: Vec<_> = lines.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("'auth_typ'") && lines[1].contains("'header'"), "{lines:#?}");
    assert!(lines[2].starts_with("The configuration from 20"), "{lines:#?}");
    assert_eq!(
        browser.evaluate("getComputedStyle(document.getElementById('told')).whiteSpace"),
        "pre-line"
    );
    // The failed refresh and the failed reload are said by the browser too.
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|one| one.contains("502") || one.contains("422")),
        "{complaints:#?}"
    );
    drop(browser);
    eventually("only the connection that asks is left", || {
        proxy.ask(get("/-/metrics")).body.contains("evertoken_connections 1\n")
    });
}

/// Goes to the button by the Tab key alone.
fn reach(browser: &mut Chromium, label: &str) {
    let label = serde_json::json!(label);
    for _ in 0..20 {
        browser.press("Tab");
        if browser.evaluate(&format!("document.activeElement.textContent === {label}")) == true {
            return;
        }
    }
    panic!("{label} can't be reached");
}
