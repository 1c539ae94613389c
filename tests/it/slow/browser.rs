//! Pages of another origin in headless Chromium: what they try, and that none of it reaches a provider.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::subject::Subject;
use crate::support::eventually;
use crate::support::peer::Peer;

/// Tries everything a page can make a browser send, to each of the hosts, and tells its own server what
/// it could read.
const PAGE: &str = r"<!doctype html><body><script>
const hosts = HOSTS;
const readable = [];
const attempt = async (name, make) => {
  try {
    const answer = await make();
    const text = answer && answer.text ? await answer.text() : '';
    if (text) readable.push(name + ': ' + text);
  } catch (error) { /* refused, as it should be */ }
};
const form = (host) => new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.name = 'f' + host;
  frame.onload = () => done();
  document.body.append(frame);
  const form = document.createElement('form');
  form.method = 'post'; form.action = host + '/v1/messages?form'; form.target = frame.name;
  form.enctype = 'text/plain';
  document.body.append(form);
  form.submit();
});
const element = (tag, host) => new Promise((done) => {
  const one = document.createElement(tag);
  one.onload = one.onerror = () => done();
  one.src = host + '/v1/models?' + tag;
  document.body.append(one);
});
(async () => {
  for (const host of hosts) {
    const json = { 'content-type': 'application/json' };
    await attempt('get', () => fetch(host + '/v1/models'));
    await attempt('opaque get', () => fetch(host + '/v1/models', { mode: 'no-cors' }));
    await attempt('status', () => fetch(host + '/-/status'));
    await attempt('post', () => fetch(host + '/v1/messages', { method: 'POST', body: '{}', mode: 'no-cors' }));
    await attempt('preflight', () => fetch(host + '/v1/messages', { method: 'POST', body: '{}', headers: json }));
    await attempt('refresh', () => fetch(host + '/-/refresh/p', { method: 'POST', mode: 'no-cors' }));
    navigator.sendBeacon(host + '/v1/messages?beacon', '{}');
    await form(host);
    await element('img', host);
    await element('script', host);
    await element('iframe', host);
  }
  await fetch('/report', { method: 'POST', body: 'readable: ' + JSON.stringify(readable) });
})();
</script>";

/// A browser, ended when it is dropped.
struct Browser(Child, #[expect(dead_code, reason = "its profile")] tempfile::TempDir);

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg("--host-resolver-rules=MAP evil.example 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is installed");
        Self(child, profile)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the page, and takes its report.
fn page(proxy: SocketAddr) -> Peer {
    let port = proxy.port();
    let hosts = format!(
        "['http://127.0.0.1:{port}', 'http://localhost:{port}', 'http://evil.example:{port}']"
    );
    let html = PAGE.replace("HOSTS", &hosts);
    Peer::answering(move |_| {
        let length = html.len();
        format!(
            "HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{html}"
        )
    })
}

fn report(page: &Peer) -> Option<String> {
    let seen = page.seen().into_iter().find(|seen| seen.line.contains("/report"))?;
    Some(String::from_utf8(seen.body).unwrap())
}

#[test]
fn a_page_of_another_origin_reaches_no_provider_and_reads_nothing() {
    let subject = Subject::start_logging("debug");
    let page = page(subject.address);
    for origin in ["127.0.0.1", "evil.example"] {
        let before = page.seen().len();
        let browser = Browser::open(&format!("http://{origin}:{}/", page.address.port()));
        eventually("the page has tried everything", || {
            page.seen()[before..].iter().any(|seen| seen.line.contains("/report"))
        });
        drop(browser);
        assert_eq!(report(&page).unwrap(), "readable: []", "from {origin}");
    }
    let reached: Vec<_> = subject.peer.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(reached, ["GET /v1/messages?normal HTTP/1.1"], "only what the test itself sent");
    // It did try: a page, a form, a preflight, a beacon, and under a name that is not ours.
    let lines = subject.binary.lines();
    for tried in [
        "GET /v1/models -> 403",
        "POST /v1/messages -> 403",
        "OPTIONS /v1/messages -> 403",
        "GET /-/status -> 403",
        "POST /-/refresh/p -> 403",
    ] {
        assert!(lines.iter().any(|line| line.contains(tried)), "{tried}: {lines:#?}");
    }
}
