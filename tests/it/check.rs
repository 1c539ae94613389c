//! `evertoken check`: what it finds, what it says it tried, and where credentials come from.

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use evertoken::testing::Saved;
use evertoken::testing::Secret;
use evertoken::testing::StateFile;

use crate::support::binary::{Binary, run, text};
use crate::support::client::post;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

const SEED: (&str, &str) = ("SEED", "seed-value");

/// A folder whose provider `P` has these lines in its `auto_refresh_config`.
fn folder(keys: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = keys.lines().map(|line| format!("      {line}\n")).collect();
    let config = format!(
        "settings: {{port: 0, state_dir: '{}/state'}}\nproviders:\n  - name: P\n    type: generic\n    \
         base_url: http://127.0.0.1:9\n    auto_refresh_config:\n      token_url: \
         http://127.0.0.1:9/token\n      client_id_env: ID\n{lines}",
        folder.path().display()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    folder
}

fn store(folder: &Path, saved: &Saved) {
    StateFile::new(folder.join("state"), "p").replace(saved).unwrap();
}

/// The output, with paths below the folder starting there.
fn check(folder: &Path, variables: &[(&str, &str)]) -> Output {
    let mut all = vec![("HOME", "/nonexistent"), ("ID", "id")];
    all.extend(variables);
    let output = run(folder, &["check"], &all);
    let root = format!("{}/", folder.display());
    let short = |told: &[u8]| text(told).replace(&root, "").into_bytes();
    Output { stdout: short(&output.stdout), stderr: short(&output.stderr), ..output }
}

#[test]
fn a_relative_state_folder_is_a_warning_and_is_told_with_its_whole_path() {
    let folder = folder("refresh_token_env: SEED");
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let absolute = format!("'{}/state'", folder.path().display());
    std::fs::write(&file, config.replace(&absolute, "./state")).unwrap();
    let variables = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
    let output = run(folder.path(), &["check"], &variables);
    assert_eq!(output.status.code(), Some(0));
    let state = std::fs::canonicalize(folder.path()).unwrap().join("state").display().to_string();
    let warning = format!(
        "warning: 'state_dir' is relative: it is {state} here, and another folder where evertoken is started \
         elsewhere; write it absolute"
    );
    assert!(text(&output.stderr).contains(&warning), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains(&format!("nothing is stored yet in {state}\n")), "{told}");
    assert!(told.contains(": one warning; otherwise "), "{told}");
    let running = Binary::start(folder.path(), &["run"], &variables);
    // A line of the log says by its level that it is a warning.
    running.wait_for(warning.strip_prefix("warning: ").unwrap());
}

/// The record of a login.
fn login() -> Saved {
    Saved {
        login_hash: Some("l".into()),
        refresh_token: Some(Secret::new("chain-value")),
        ..Saved::default()
    }
}

#[test]
fn a_stored_chain_is_enough_and_the_missing_variable_is_no_problem() {
    let folder = folder("refresh_token_env: SEED");
    let missing = check(folder.path(), &[]);
    assert_eq!(missing.status.code(), Some(78));
    let words = "P: Missing environment variable: 'SEED'";
    assert_eq!(text(&missing.stderr).matches(words).count(), 1, "{}", text(&missing.stderr));
    store(folder.path(), &login());
    let stored = check(folder.path(), &[]);
    assert_eq!(stored.status.code(), Some(0), "{}", text(&stored.stderr));
    let told = text(&stored.stdout);
    assert!(
        told.contains(
            "P: the refresh token stored in state/p.json, which a login began (SEED is not set, and not \
             needed)"
        ),
        "{told}"
    );
    assert_eq!(text(&stored.stderr), "");
    // Everything else that is missing stays a problem.
    let output = run(folder.path(), &["check"], &[("HOME", "/nonexistent")]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stderr), "P: Missing environment variable: 'ID'\n");
}

#[test]
fn check_says_which_refresh_token_will_be_used() {
    let keys = "refresh_token_env: SEED";
    let begun = |seed: &str| {
        let mut saved = Saved { login_hash: None, ..login() };
        saved.begin_with_seed(&Secret::new(seed));
        saved
    };
    let superseded = Saved { superseded_seeds: vec![Secret::new(SEED.1).hash()], ..login() };
    let cases = [
        (
            keys,
            None,
            "P: the configured refresh token (refresh_token_env); nothing is stored yet in state",
        ),
        (
            keys,
            Some(begun(SEED.1)),
            "P: the refresh token stored in state/p.json, which began with the configured one",
        ),
        (
            keys,
            Some(superseded),
            "P: the refresh token stored in state/p.json, which a login began",
        ),
        (
            keys,
            Some(begun("another-seed")),
            "P: the configured refresh token (refresh_token_env), which is new: it takes the place of the one \
             stored in state/p.json",
        ),
        (
            "client_secret_env: SEED\ngrant_type: client_credentials",
            None,
            "P: the client's own id and secret (client_credentials)",
        ),
    ];
    for (keys, stored, line) in cases {
        let folder = folder(keys);
        if let Some(saved) = &stored {
            store(folder.path(), saved);
        }
        let output = check(folder.path(), &[SEED]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let told = text(&output.stdout);
        assert!(told.lines().any(|own| own.trim() == line), "{line}\nin {told}");
        assert!(!told.contains("chain-value") && !told.contains(SEED.1), "{told}");
    }
}

#[test]
fn credentials_that_are_not_refreshed_are_told_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "the-key").unwrap();
    let provider = |name: &str, keys: &str| {
        format!("  - {{name: {name}, type: generic, base_url: 'http://127.0.0.1:9', {keys}}}\n")
    };
    let config = [
        "settings: {port: 0, state_dir: state}\nproviders:\n".to_owned(),
        provider("A", "auth_type: none"),
        provider("B", "auth_value: passthrough"),
        provider("C", "auth_value_env: SEED"),
        provider("D", "auth_value_file: ./key"),
        provider("E", "enabled: false, auth_type: none"),
    ];
    let path = folder.path().join("providers.yaml");
    std::fs::write(path, config.concat()).unwrap();
    let output = check(folder.path(), &[SEED]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let start = told.find("Credentials come from:\n").unwrap();
    let lines: Vec<_> = told[start..].lines().skip(1).take(4).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "A: nothing is sent",
            "B: the client's own",
            "C: a fixed one of the configuration",
            "D: the file ./key"
        ]
    );
    assert!(!told.contains("E:"), "{told}");
}

#[test]
fn a_failure_for_good_is_a_warning_beside_which_not_everything_is_in_order() {
    let folder = folder("refresh_token_env: SEED");
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("http://127.0.0.1:9/token", &issuer.url())).unwrap();
    let variables = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
    assert_eq!(run(folder.path(), &["refresh"], &variables).status.code(), Some(1));
    let output = check(folder.path(), &[SEED]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stderr);
    assert!(
        told.contains("warning: P: its last refresh failed: 400 Bad Request (invalid_grant)\n"),
        "{told}"
    );
    let told = text(&output.stdout);
    let failed = "its last refresh failed: 400 Bad Request (invalid_grant)\n";
    assert!(told.contains(failed), "where the credential comes from: {told}");
    let last = told.lines().last().unwrap();
    assert!(last.contains("in order, but for the last refresh of P; --online"), "{last}");
    assert!(!last.contains("everything"), "{last}");
}

/// The login was for `p-2`, which is the name of a state file and no provider.
#[test]
fn the_login_for_a_changed_client_is_one_that_works_and_the_cause_is_told() {
    let folder = folder("authorization_url: http://127.0.0.1:9/authorize");
    let client = Some(Secret::new("http://127.0.0.1:9/token\nid").hash());
    store(folder.path(), &Saved { client, ..login() });
    assert_eq!(check(folder.path(), &[]).status.code(), Some(0));
    let output = run(folder.path(), &["check"], &[("HOME", "/nonexistent"), ("ID", "other")]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(told.contains("run: evertoken login --provider p\n"), "{told}");
    assert!(
        told.contains(
            "state/p.json holds tokens of another token_url or client_id than provider P has"
        ),
        "{told}"
    );
}

#[test]
fn a_state_file_that_makes_no_sense_is_a_problem_and_left_alone() {
    let folder = folder("refresh_token_env: SEED");
    store(folder.path(), &login());
    let file = folder.path().join("state/p.json");
    std::fs::write(&file, "{").unwrap();
    let output = check(folder.path(), &[SEED]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(told.contains("P: the state file state/p.json can't be used: "), "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{");
}

#[test]
fn check_online_says_what_it_tried_and_what_it_did_not() {
    for (status, said) in [
        (405, "reachable; a HEAD is refused there (405 Method Not Allowed), which is usual; "),
        (401, "reachable; a HEAD is refused there (401 Unauthorized), which is usual; "),
        (200, "reachable (200 OK); "),
    ] {
        let folder = folder("refresh_token_env: SEED");
        let issuer = Peer::answering(move |_| answer(status, ""));
        let file = folder.path().join("providers.yaml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace("http://127.0.0.1:9", &issuer.url())).unwrap();
        let variables = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
        let output = run(folder.path(), &["check", "--online"], &variables);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let told = text(&output.stdout);
        let line = told.lines().find(|line| line.contains("token_url")).unwrap();
        let expected = format!(
            "P: token_url {}/token: {said}client, secret and refresh token were not tried",
            issuer.url()
        );
        assert_eq!(line, expected);
        let line = told.lines().find(|line| line.contains("base_url")).unwrap();
        assert!(line.ends_with("the credential was not tried"), "{line}");
        let last = told.lines().last().unwrap();
        assert_eq!(
            last,
            "providers.yaml: everything that was tried is in order; `evertoken refresh --provider p` tries the \
             rest, and uses the refresh token"
        );
        assert!(issuer.seen().iter().all(|seen| seen.line.starts_with("HEAD ")));
    }
}

/// The cached answer of a CDN was a wrong clock, and exit code 78.
#[test]
fn check_online_compares_clocks_but_not_with_the_answer_of_a_cache() {
    for (more, is_wrong) in [("", true), ("age: 3600\r\n", false)] {
        let folder = folder("refresh_token_env: SEED");
        let issuer = Peer::answering(move |_| {
            let hour_ago = evertoken::testing::Clock::system().wall().plus_millis(-3_600_000);
            let date = httpdate::fmt_http_date(hour_ago.to_system_time());
            format!("HTTP/1.1 200 OK\r\ndate: {date}\r\n{more}content-length: 0\r\n\r\n")
        });
        let file = folder.path().join("providers.yaml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace("http://127.0.0.1:9", &issuer.url())).unwrap();
        let variables = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
        let output = run(folder.path(), &["check", "--online"], &variables);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(if is_wrong { 78 } else { 0 }), "{told}");
        for endpoint in
            [format!("base_url {}/", issuer.url()), format!("token_url {}/token", issuer.url())]
        {
            let start = format!("P: {endpoint}: answers, but its clock and this machine's are ");
            let seconds =
                told.lines().find_map(|line| line.strip_prefix(&*start)?.strip_suffix(" s apart"));
            assert_eq!(seconds.is_some(), is_wrong, "{told}");
            let fits = |seconds: &str| (3600..=3660).contains(&seconds.parse::<u64>().unwrap());
            assert!(seconds.is_none_or(fits), "{told}");
        }
    }
}

/// An endpoint's answer to a method.
type Answering = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Each of these was in order, and the first refresh failed.
#[test]
fn check_online_says_of_a_token_url_that_it_redirects_fails_or_is_not_there() {
    let redirect = |status: u16| {
        move |_: &str| {
            let head = format!(
                "HTTP/1.1 {status} X\r\nlocation: /oauth/token\r\ncontent-length: 0\r\n\r\n"
            );
            head
        }
    };
    let always = |status: u16| move |_: &str| answer(status, "");
    let not_to_head = |status: u16| {
        move |method: &str| if method == "HEAD" { answer(status, "") } else { answer(400, "") }
    };
    let moved = |status: &str| {
        format!(
            "answers {status} to ISSUER/oauth/token: token requests do not follow redirects; write that address"
        )
    };
    let untried = "client, secret and refresh token were not tried";
    let cases: Vec<(Answering, u8, String)> = vec![
        (Box::new(redirect(301)), 78, moved("301 Moved Permanently")),
        (Box::new(redirect(302)), 78, moved("302 Found")),
        (
            Box::new(always(404)),
            0,
            "answers 404 Not Found: is its path right? Client, secret and refresh token were not tried".into(),
        ),
        (
            Box::new(always(503)),
            0,
            format!("reachable, but it fails (503 Service Unavailable); {untried}"),
        ),
        (
            Box::new(not_to_head(404)),
            0,
            format!("reachable (404 Not Found to a HEAD, 400 Bad Request to an empty POST); {untried}"),
        ),
        (
            Box::new(not_to_head(302)),
            0,
            format!("reachable (302 Found to a HEAD, 400 Bad Request to an empty POST); {untried}"),
        ),
    ];
    for (answering, code, said) in cases {
        let folder = folder("refresh_token_env: SEED");
        let issuer =
            Peer::answering(move |seen| answering(seen.line.split(' ').next().unwrap_or_default()));
        let base = Peer::answering(|_| answer(200, ""));
        let file = folder.path().join("providers.yaml");
        let config = std::fs::read_to_string(&file).unwrap();
        let config = config.replace("http://127.0.0.1:9/token", &format!("{}/token", issuer.url()));
        std::fs::write(&file, config.replace("http://127.0.0.1:9", &base.url())).unwrap();
        let variables = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
        let output = run(folder.path(), &["check", "--online"], &variables);
        let (told, wrong) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(i32::from(code)), "{said}: {told}{wrong}");
        let line = format!(
            "P: token_url {}/token: {}",
            issuer.url(),
            said.replace("ISSUER", &issuer.url())
        );
        let is_fine = said.contains("to an empty POST");
        let wanted = match (code, is_fine) {
            (0, true) => format!("{told}\n"),
            _ => wrong.clone(),
        };
        assert!(
            wanted.lines().any(|own| own.trim_start_matches("warning: ") == line),
            "{line}: {told}{wrong}"
        );
        if code == 0 {
            let verdict = if is_fine {
                "providers.yaml: everything that"
            } else {
                "providers.yaml: one warning; otherwise"
            };
            assert!(told.lines().last().unwrap().starts_with(verdict), "{told}");
        }
        // Nothing is spent, and nothing shown that could be.
        assert!(
            issuer
                .seen()
                .iter()
                .all(|seen| seen.body.is_empty() && seen.field("authorization").is_none())
        );
    }
}

/// A check by root left a folder of root's, in which the service's user could store nothing.
#[test]
fn check_makes_no_state_folder() {
    let folder = folder("refresh_token_env: SEED");
    let output = check(folder.path(), &[SEED]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!folder.path().join("state").exists());
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::os::unix::fs::symlink("none", folder.path().join("nowhere")).unwrap();
    for (dir, is_fine) in [
        ("a/b/c", true),
        ("./state", true),
        ("providers.yaml/state", false),
        ("nowhere", false),
        ("providers.yaml", false),
    ] {
        let absolute = format!("'{}/state'", folder.path().display());
        std::fs::write(&file, config.replace(&absolute, &format!("'{dir}'"))).unwrap();
        let output = check(folder.path(), &[SEED]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(if is_fine { 0 } else { 78 }), "{dir}: {told}");
        assert_eq!(told.contains("can't be written"), !is_fine, "{dir}: {told}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "the configuration and the link"
    );
}

#[test]
fn check_without_online_says_that_nothing_was_asked() {
    let output = check(folder("refresh_token_env: SEED").path(), &[SEED]);
    let told = text(&output.stdout);
    let last = told.lines().last().unwrap();
    assert_eq!(last, "providers.yaml: everything is in order; --online also tries the endpoints");
}

#[test]
fn one_mistake_is_told_in_one_line() {
    let provider =
        |keys: &str| format!("[{{name: A, type: generic, base_url: 'https://a', {keys}}}]");
    let refresh = |keys: &str| {
        let needed = "token_url: 'https://i/t', client_id_env: ID";
        provider(&format!("auth_type: auth_token, auto_refresh_config: {{{needed}{keys}}}"))
    };
    let cases = [
        ("[1, two, null]".to_owned(), 3),
        (provider("auth_type: auth_token, auto_refresh_config: yes"), 1),
        (provider("auth_type: auth_token, auto_refresh_config: [1]"), 1),
        (provider("auth_type: auth_tokn"), 1),
        (refresh(", refresh_token_env: SEED, client_auth: basic"), 1),
        (refresh(", refresh_token_env: SEED, client_auth: [none]"), 1),
        (refresh(", grant_type: client_credential"), 1),
        (refresh(""), 1),
        (provider("auth_type: auth_token"), 1),
    ];
    for (providers, lines) in cases {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("{{port: 0, state_dir: '{}'}}", folder.path().display());
        let config = format!("settings: {settings}\nproviders: {providers}\n");
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
        let told = text(&check(folder.path(), &[SEED]).stderr);
        assert_eq!(told.lines().count(), lines, "{providers}:\n{told}");
    }
}

/// `check --route`, and requests that every provider refuses, so that they meet all of them.
#[test]
fn the_order_that_a_check_tells_is_the_order_that_requests_meet() {
    let met = Arc::new(Mutex::new(Vec::new()));
    let peers = ["Work", "Home", "Local", "Codex"].map(|name| {
        let met = met.clone();
        let peer = Peer::answering(move |_| {
            met.lock().unwrap().push(name);
            answer(503, "no")
        });
        (name, peer)
    });
    let mut builder = TestProxy::builder().settings("failure_cooldown: 0").routes(
        "model_routes:\n  'a*': [{provider: Codex, priority: 2}, {provider: Home, priority: 1, model: x}]\n",
    );
    for ((name, peer), kind) in peers.iter().zip(["anthropic", "anthropic", "generic", "openai"]) {
        builder = builder.provider(name, kind, &peer.url(), "auth_type: none");
    }
    let builder = builder.provider("Old", "anthropic", "http://127.0.0.1:9", "enabled: false");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("providers.yaml"), builder.text(folder.path())).unwrap();
    let proxy = builder.start();
    for (model, path, expected) in [
        ("a1", "/v1/messages", &["Home", "Codex"][..]),
        ("b1", "/v1/messages", &["Work", "Home", "Local"]),
        ("b1", "/v1/chat/completions", &["Codex", "Local"]),
        ("b1", "/v1beta/models/a1:generateContent", &["Local"]),
        ("b1", "/to/codex/v1/messages", &["Codex"]),
        ("b1", "/register", &[]),
    ] {
        let named = if path.contains("v1beta") {
            "{}".to_owned()
        } else {
            format!("{{\"model\":\"{model}\"}}")
        };
        proxy.ask(post(path, &named));
        let met = std::mem::take(&mut *met.lock().unwrap());
        let output = run(folder.path(), &["check", "--route", model, "--path", path], &[]);
        let told = text(&output.stdout);
        let order: Vec<_> = told
            .lines()
            .filter_map(|line| {
                line.trim_start()
                    .split_once(". ")
                    .filter(|(number, _)| number.parse::<u8>().is_ok())
            })
            .map(|(_, rest)| rest.split(' ').next().unwrap())
            .collect();
        assert_eq!((&met[..], &order[..]), (expected, expected), "{told}");
        assert_eq!(output.status.code(), Some(i32::from(expected.is_empty())), "{told}");
        assert!(path.starts_with("/to/") || told.contains("not Old: it is disabled"), "{told}");
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_line_end_in_a_name_on_the_command_line_became_one_in_the_answer() {
    let folder = folder("refresh_token_env: SEED");
    let odd = "m\n  1. Q\u{202e}\u{1b}[2J";
    let (path, page) = (format!("/v1/messages{odd}"), format!("/-/status{odd}"));
    for options in [
        &["--route", odd][..],
        &["--route", odd, "--key", odd],
        &["--route", "m", "--path", &path],
        &["--route", "m", "--path", &page],
        &["--route", "m", "--path", &format!("/to/{odd}/v1/messages")],
    ] {
        let all = [("HOME", "/nonexistent"), ("ID", "id"), SEED];
        let output = run(folder.path(), &[&["check"], options].concat(), &all);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(told.contains("m\\n  1. Q\\u{202e}\\u{1b}[2J"), "{told}");
        assert!(!told.contains("\n  1. Q") && !told.contains(['\u{202e}', '\u{1b}']), "{told}");
    }
}

#[test]
fn a_route_without_an_answer_says_why_by_its_exit_code_too() {
    let folder = folder("refresh_token_env: SEED");
    let ask = |options: &[&str], variables: &[(&str, &str)]| {
        let all = [&[("HOME", "/nonexistent"), ("ID", "id")], variables].concat();
        let output = run(folder.path(), &[&["check", "--route", "m"], options].concat(), &all);
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let (code, told) = ask(&[], &[SEED]);
    assert!(code == Some(0) && told.contains("\n  1. P\n"), "{told}");
    let (code, told) = ask(&[], &[]);
    let why = "P comes last, since it has no credential: Missing environment variable: 'SEED'";
    assert!(code == Some(1) && told.contains(why), "{told}");
    let (code, told) = ask(&["--key", "ci"], &[SEED]);
    assert!(
        code == Some(2) && told.contains("There is no key 'ci': settings.auth is off"),
        "{told}"
    );
    for options in [&["--online"][..], &["--path", "v1"], &["--path", ""]] {
        assert_eq!(ask(options, &[SEED]).0, Some(2), "{options:?}");
    }
    for alone in
        [&["check", "--path", "/x"][..], &["check", "--key", "k"], &["check", "--route", ""]]
    {
        assert_eq!(run(folder.path(), alone, &[]).status.code(), Some(2), "{alone:?}");
    }
    let file = folder.path().join("providers.yaml");
    let wrong = std::fs::read_to_string(&file).unwrap().replace("type: generic", "type: generis");
    std::fs::write(&file, wrong).unwrap();
    let (code, told) = ask(&[], &[SEED]);
    assert!(code == Some(78) && told.contains("'type' must be one of"), "{told}");
}
