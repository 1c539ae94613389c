//! Credentials in files that other programs and people keep: gone, odd, and in every form of time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evertoken::testing::{Clock, Moment, Timestamp};

use crate::support::binary::{run, text};
use crate::support::client::get;
use crate::support::peer::Peer;
use crate::support::proxy::TestProxy;

/// A clock that a test moves, and what moves it: seconds since the start.
fn moving_clock() -> (Clock, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(0));
    let source = seconds.clone();
    let clock = Clock::from_fn(move || {
        let steady_ms = source.load(Ordering::Relaxed) * 1000;
        let wall =
            Timestamp::from_secs(1_800_000_000).plus_millis(i64::try_from(steady_ms).unwrap());
        Moment { wall, steady_ms }
    });
    (clock, seconds)
}

/// A reload ended the minute at once.
#[test]
fn a_credential_file_that_is_removed_serves_its_minute_through_a_reload() {
    let provider = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "from-key\n").unwrap();
    let (clock, seconds) = moving_clock();
    let described = |header: &str| {
        let lines = format!("auth_value_file: \"{}\"\nheaders: {{ {header} }}", key.display());
        TestProxy::builder().provider("key", "generic", &provider.url(), &lines)
    };
    let proxy = described("a: b").clock(clock).start();
    let ask = || proxy.ask(get("/to/key/x"));
    assert_eq!(ask().status, 200);
    std::fs::remove_file(&key).unwrap();
    assert_eq!(ask().status, 200);
    seconds.store(59, Ordering::Relaxed);
    for header in ["a: b", "a: c"] {
        assert_eq!(proxy.reload(&described(header)).status, 200);
        assert!(ask().body.contains("from-key"), "{header}");
    }
    seconds.store(60, Ordering::Relaxed);
    assert_eq!(ask().code(), "token_unavailable");
}

#[test]
fn a_credential_file_that_is_removed_serves_a_minute_longer_and_is_said() {
    let provider = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let (key, json) = (folder.path().join("key"), folder.path().join("auth.json"));
    std::fs::write(&key, "from-key\n").unwrap();
    std::fs::write(&json, r#"{"claudeAiOauth":{"accessToken":"from-json"}}"#).unwrap();
    let (clock, seconds) = moving_clock();
    let proxy = TestProxy::builder()
        .provider(
            "key",
            "generic",
            &provider.url(),
            &format!("auth_value_file: \"{}\"", key.display()),
        )
        .provider(
            "json",
            "generic",
            &provider.url(),
            &format!("auto_refresh_config: {{credentials_file: \"{}\"}}", json.display()),
        )
        .clock(clock)
        .start();
    let ask = |slug: &str| proxy.ask(get(&format!("/to/{slug}/x")));
    let status = |index: usize| proxy.ask(get("/-/status")).json()["providers"][index].clone();
    assert_eq!((ask("key").status, ask("json").status), (200, 200));
    assert_eq!(proxy.ask(get("/-/ready")).status, 200);

    std::fs::remove_file(&key).unwrap();
    std::fs::write(&json, "").unwrap();
    for (index, slug) in ["key", "json"].into_iter().enumerate() {
        assert!(ask(slug).body.contains(&format!("from-{slug}")), "{slug}");
        assert_eq!(status(index)["state"], "ready", "{slug}");
        let warning = status(index)["warning"].to_string();
        assert!(warning.contains("its last credential serves until"), "{slug}: {warning}");
    }
    let ready = proxy.ask(get("/-/ready"));
    assert_eq!((ready.status, ready.json()["warnings"].as_array().map(Vec::len)), (200, Some(2)));
    seconds.store(59, Ordering::Relaxed);
    assert_eq!((ask("key").status, ask("json").status), (200, 200));
    seconds.store(60, Ordering::Relaxed);
    for (index, (slug, part)) in
        [("key", "can't be read: No such file"), ("json", "holds no JSON")].into_iter().enumerate()
    {
        let refused = ask(slug);
        assert_eq!((refused.status, refused.code()), (503, "token_unavailable"), "{slug}");
        assert!(refused.body.contains(part), "{slug}: {}", refused.body);
        assert_eq!(status(index)["state"], "unavailable", "{slug}");
        assert!(status(index)["problem"].to_string().contains(part), "{slug}");
    }
    assert_eq!(proxy.ask(get("/-/ready")).status, 503);

    std::fs::write(&key, "from-key-again\n").unwrap();
    assert!(ask("key").body.contains("from-key-again"));
    assert_eq!(status(0)["state"], "ready");
}

/// A file with a credential, which is asked for first, and a provider beside it; each tells the credential that it got.
struct Beside {
    _folder: tempfile::TempDir,
    _peers: [Peer; 2],
    file: PathBuf,
    seconds: Arc<AtomicU64>,
    proxy: TestProxy,
}

impl Beside {
    /// The first provider's answers have these fields too.
    fn new(fields: &'static str) -> Self {
        let told = Peer::answering(move |seen| {
            let body = seen.field("authorization").unwrap_or_default();
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\n\r\n{body}")
        });
        let other = Peer::telling_the_credential();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        write_token(&file, "one", 60);
        let (clock, seconds) = moving_clock();
        let first = format!("auto_refresh_config: {{credentials_file: \"{}\"}}", file.display());
        let proxy = TestProxy::builder()
            .provider("first", "openai", &told.url(), &first)
            .provider("beside", "openai", &other.url(), "auth_value: beside")
            .clock(clock)
            .start();
        Self { _folder: folder, _peers: [told, other], file, seconds, proxy }
    }

    fn asked_at(&self, seconds: u64) -> String {
        self.seconds.store(seconds, Ordering::Relaxed);
        self.proxy.ask(get("/v1/chat/completions")).body
    }
}

/// Writes a token that ends so many seconds after the clock's start.
fn write_token(file: &Path, token: &str, ends: u64) {
    let ends = (1_800_000_000 + ends) * 1000;
    let new = file.with_extension("new");
    let text = format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}","expiresAt":{ends}}}}}"#);
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Beside another provider, a thread that looked at the file kept the request from looking itself.
#[test]
fn the_first_request_after_a_change_of_the_file_had_the_old_credential() {
    let beside = Beside::new("");
    assert_eq!(beside.asked_at(0), "Bearer one");
    for at in 1..10 {
        write_token(&beside.file, &format!("token-{at}"), 100);
        assert_eq!(beside.asked_at(2 * at), format!("Bearer token-{at}"));
    }
}

#[test]
fn a_token_that_was_renewed_in_time_lost_its_request_to_the_provider_beside_it() {
    let beside = Beside::new("");
    assert_eq!(beside.asked_at(0), "Bearer one");
    write_token(&beside.file, "two", 200);
    assert_eq!(beside.asked_at(100), "Bearer two");
    assert_eq!(beside.asked_at(200), "Bearer beside", "it has ended");
    // In the same second as the last look.
    write_token(&beside.file, "three", 300);
    assert_eq!(beside.asked_at(200), "Bearer three");
}

#[test]
fn another_account_in_the_file_was_not_seen_while_the_old_one_had_nothing_left() {
    let beside = Beside::new(
        "anthropic-ratelimit-unified-5h-status: rejected\r\n\
         anthropic-ratelimit-unified-5h-reset: 1800018000\r\n",
    );
    assert_eq!(beside.asked_at(0), "Bearer one");
    assert_eq!(beside.asked_at(1), "Bearer beside", "the first has nothing left");
    write_token(&beside.file, "of-another-account", 60);
    assert_eq!(beside.asked_at(2), "Bearer of-another-account");
}

/// The output of `evertoken check` for a provider with these lines in its `auto_refresh_config`.
fn check(folder: &Path, lines: &str, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let lines: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    let config = format!(
        "settings: {{state_dir: '{}/state'}}\nproviders:\n  - name: P\n    type: generic\n    base_url: \
         http://127.0.0.1:9\n    auto_refresh_config:\n{lines}",
        folder.display()
    );
    std::fs::write(folder.join("providers.yaml"), config).unwrap();
    let mut all = vec![("HOME", folder.to_str().unwrap())];
    all.extend(variables);
    let output = run(folder, &["check"], &all);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_reads_what_other_programs_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    let fields =
        "credentials_file: ~/auth.json\ncredentials_fields: {access_token: a.t, expires_at: a.e}";
    // {"exp":1900000000}
    let jwt = "aa.eyJleHAiOjE5MDAwMDAwMDB9.cc";
    let until = "until 2030-03-17T17:46:40.000Z";
    let known = [
        r#"{"a":{"t":"secret-token","e":1900000000.0}}"#,
        r#"{"a":{"t":"secret-token","e":"1900000000"}}"#,
        r#"{"a":{"t":"secret-token","e":1900000000000}}"#,
        r#"{"a":{"t":"secret-token","e":"2030-03-18T01:46:40+08:00"}}"#,
        r#"{"a":{"t":"secret-token","e":"2030-03-18T01:46:40.000"}}"#,
        r#"{"a":{"t":"secret-token","e":"2030-03-18 01:46:40"}}"#,
        &format!(r#"{{"a":{{"t":"{jwt}"}}}}"#),
    ];
    for content in known {
        std::fs::write(&file, content).unwrap();
        let (code, out, err) = check(folder.path(), fields, &[("TZ", "CST-8")]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{content}");
        assert!(out.contains(until), "{content}: {out}");
    }
    std::fs::write(&file, r#"{"a":{"t":"secret-token","e":"next week"}}"#).unwrap();
    let (code, out, err) = check(folder.path(), fields, &[]);
    assert_eq!(code, Some(0));
    assert!(
        err.contains("warning: P: ") && err.contains("holds no known time format at 'a.e'"),
        "{err}"
    );
    assert!(!format!("{out}{err}").contains("secret-token") && !err.contains("next week"), "{err}");
    std::fs::write(&file, r#"{"b":1}"#).unwrap();
    let (code, _, err) = check(folder.path(), fields, &[]);
    assert_eq!(code, Some(78));
    assert!(err.contains("has no text at 'a.t'"), "{err}");
}

#[test]
fn secrets_as_editors_and_env_files_leave_them() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "token_url: http://127.0.0.1:9/t\nclient_id_env: ID\nrefresh_token_file: token";
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("token"), bytes).unwrap();
    write(b"\xef\xbb\xbfseed-value\r\n");
    let (code, _, err) = check(folder.path(), lines, &[("ID", "the-id")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    write(b"\xff\xfes\0e\0e\0d\0");
    let (code, _, err) = check(folder.path(), lines, &[("ID", "the-id")]);
    assert_eq!(code, Some(78));
    assert!(err.contains("it is UTF-16, as PowerShell's '>' writes it; save it as UTF-8"), "{err}");
    write(b"\"seed-value\"\n");
    let (code, out, err) = check(folder.path(), lines, &[("ID", " the-id ")]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("the secret in token stands in quotes"), "{err}");
    assert!(err.contains("the value of the variable 'ID' has spaces around it"), "{err}");
    assert!(!format!("{out}{err}").contains("seed-value"), "{out}{err}");
    write(b"seed-value");
    let empty = format!("{lines}\nclient_secret_env: ''");
    let (code, _, err) = check(folder.path(), &empty, &[("ID", "the-id")]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("'client_secret_env' is empty"), "{err}");
}
