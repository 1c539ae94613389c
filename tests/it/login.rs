//! `evertoken login` with the real binary: browser, paste and device, and a running evertoken that takes
//! the login up.

use std::io::Write;
use std::process::ChildStdin;

use evertoken::testing::{Locking, StateFile};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sandbox::issuer::CLIENT_ID;
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Answer, ask, get};
use crate::support::peer::{Peer, answer};
use crate::support::{eventually, unwritable};

/// Makes a running evertoken look for a login, and refresh if there is none.
const FORCED: &str =
    "POST /-/refresh/the-p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

/// An issuer, a provider that says which token it was shown, and a folder with a configuration.
struct Place {
    sandbox: Sandbox,
    provider: Peer,
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    /// `keys` are lines of `auto_refresh_config`, in which `URL` is the sandbox.
    fn new(keys: &str) -> Self {
        let sandbox = Sandbox::start(Options::default()).unwrap();
        let provider = Peer::telling_the_credential();
        let folder = tempfile::tempdir().unwrap();
        let variables = vec![
            ("HOME", "/nonexistent".to_owned()),
            ("ID", CLIENT_ID.to_owned()),
            ("SECRET", sandbox.client_secret()),
        ];
        let place = Self { sandbox, provider, folder, variables };
        place.configure(keys);
        place
    }

    fn configure(&self, keys: &str) {
        let url = self.sandbox.url();
        let lines: String = keys.lines().map(|line| format!("      {line}\n")).collect();
        let config = format!(
            "settings: {{port: 0, state_dir: '{}/state'}}\nproviders:\n  - name: The P\n    type: generic\n    \
             base_url: {}\n    auto_refresh_config:\n      token_url: URL/oauth/token\n      \
             client_id_env: ID\n      client_secret_env: SECRET\n{lines}",
            self.folder.path().display(),
            self.provider.url()
        );
        let config = config.replace("URL", &url);
        std::fs::write(self.folder.path().join("providers.yaml"), config).unwrap();
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(own, _)| *own != name);
        self.variables.push((name, value.to_owned()));
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn start(&self) -> Binary {
        Binary::start(self.folder.path(), &["run"], &self.variables())
    }

    fn login(&self, more: &[&str]) -> (Binary, ChildStdin) {
        let arguments = [&["login", "--provider", "the-p", "--no-browser"], more].concat();
        Binary::start_talking(self.folder.path(), &arguments, &self.variables())
    }

    fn check(&self) -> std::process::Output {
        run(self.folder.path(), &["check"], &self.variables())
    }

    fn state_file(&self) -> StateFile {
        StateFile::new(self.folder.path().join("state"), "the-p")
    }

    /// Logs in with a browser, and expects that to work.
    #[track_caller]
    fn log_in(&self) {
        let (mut login, _stdin) = self.login(&[]);
        let page = visit(&redirect_of(&address_of(&login)));
        assert_eq!(page.status, 200, "{}", page.body);
        assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    }
}

/// The address that a login asks to open.
#[track_caller]
fn address_of(login: &Binary) -> String {
    login.wait_for("  http").trim().to_owned()
}

/// A browser's answer from `url`.
#[track_caller]
fn visit(url: &str) -> Answer {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    ask(authority.parse().unwrap(), get(&format!("/{path}")))
}

/// The issuer's redirect for a browser that opens `address`.
#[track_caller]
fn redirect_of(address: &str) -> String {
    let answer = visit(address);
    assert_eq!(answer.status, 302, "{}", answer.body);
    answer.field("location").unwrap().to_owned()
}

const BROWSER: &str = "authorization_url: URL/oauth/authorize?prompt=consent\nissuer: URL";

#[test]
fn a_browser_logs_in_and_the_running_evertoken_serves_with_it() {
    let place = Place::new(BROWSER);
    let words = "There is no refresh token yet; run: evertoken login --provider the-p";
    let check = place.check();
    assert_eq!(check.status.code(), Some(78));
    assert!(text(&check.stderr).contains(words), "{}", text(&check.stderr));
    let running = place.start();
    let address = running.address();
    running.wait_for(words);
    // The log has the line a moment before the page.
    eventually("the page says that a login is needed", || {
        let ready = ask(address, get("/-/ready"));
        ready.status == 503 && ready.body.contains(words)
    });

    let (mut login, _stdin) = place.login(&[]);
    login.wait_for("Logging in to provider: The P");
    let target = redirect_of(&address_of(&login));
    assert!(target.starts_with("http://127.0.0.1:") && target.contains("/callback?"), "{target}");
    // Foreign callbacks are no answer, and do not end the wait.
    for wrong in [target.replace("state=", "state=x"), target.replace("state=", "other=")] {
        let page = visit(&wrong);
        assert!(page.status == 400 && page.body.contains("Ignored"), "{}", page.body);
    }
    login.wait_for("A callback was ignored: its 'state' is not that of this login");
    let page = visit(&target);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("evertoken has its token for The P"), "{}", page.body);
    assert_eq!(page.field("cache-control"), Some("no-store"));
    assert!(page.field("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert_eq!(login.code(), Some(0));
    let stored = place.folder.path().join("state/the-p.json").display().to_string();
    login.wait_for(&format!("Logged in. The tokens are in {stored}"));

    running.wait_for("Using the login that was stored for provider: The P");
    let served = ask(address, get("/x"));
    assert!(served.body.starts_with("Bearer sandbox-at-"), "{}", served.body);
    assert_eq!(ask(address, get("/-/ready")).status, 200);
    assert_eq!(place.check().status.code(), Some(0));
    assert_eq!(place.sandbox.counts().granted, 1, "the login, and no refresh");
}

#[test]
fn before_the_first_login_nobody_is_told_of_a_next_try() {
    let place = Place::new(BROWSER);
    let words = "There is no refresh token yet; run: evertoken login --provider the-p";
    let running = place.start();
    let line = running.wait_for(words);
    assert!(line.ends_with(" (provider: The P; waiting for a login)"), "{line}");
    let refused = ask(running.address(), get("/x"));
    assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
    assert!(refused.body.contains("; waiting for a login\""), "{}", refused.body);
    assert!(refused.body.contains(words), "{}", refused.body);
    assert_eq!(refused.field("retry-after"), None);
    let status = ask(running.address(), get("/-/status")).json();
    let refresh = &status["providers"][0]["refresh"];
    assert_eq!(refresh["trouble"], "login_needed");
    assert!(refresh["next_attempt_at"].is_null(), "{refresh}");
    let page = ask(running.address(), get("/-/")).body;
    assert!(page.contains("no refresh token yet") && !page.contains("Next try"), "{page}");
    // The command makes one try, and there is none after it.
    let once = run(place.folder.path(), &["refresh"], &place.variables());
    let told = text(&once.stderr);
    assert_eq!(once.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("{words} (provider: The P; waiting for a login)")), "{told}");
}

#[test]
fn a_login_without_its_client_names_all_that_is_missing_before_a_browser_opens() {
    let place = Place::new(&format!("{BROWSER}\nrefresh_token_env: SEED"));
    let login = ["login", "--provider", "the-p", "--no-browser"];
    let output = run(place.folder.path(), &login, &[("HOME", "/nonexistent")]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("Missing environment variable: 'ID' and 'SECRET'"), "{told}");
    assert!(!told.contains("Open this address"), "{told}");
}

#[test]
fn a_login_wins_over_a_chain_that_is_fine_and_over_its_seed_but_not_over_a_new_one() {
    let mut place = Place::new(&format!("{BROWSER}\nrefresh_token_env: SEED"));
    place.set("SEED", &place.sandbox.login());
    let running = place.start();
    let address = running.address();
    let before = ask(address, get("/")).body;
    assert!(before.starts_with("Bearer sandbox-at-"), "{before}");
    // A login's machine rarely has the service's environment.
    let seed = place.variables.pop().unwrap();
    let (mut login, _stdin) = place.login(&[]);
    assert_eq!(visit(&redirect_of(&address_of(&login))).status, 200);
    assert_eq!(login.code(), Some(0));
    login.wait_for("Missing environment variable: 'SEED'. If the service has it");
    assert_eq!(ask(address, FORCED).status, 200);
    running.wait_for("Using the login that was stored");
    let after = ask(address, get("/")).body;
    assert_ne!(before, after);
    drop(running);

    place.variables.push(seed);
    let restarted = place.start();
    assert_eq!(ask(restarted.address(), get("/")).body, after, "the old seed changes nothing");
    drop(restarted);
    assert_eq!(place.sandbox.counts().granted, 2);
    place.set("SEED", &place.sandbox.login());
    let restarted = place.start();
    assert_ne!(ask(restarted.address(), get("/")).body, after, "a new seed begins a new chain");
    let counts = place.sandbox.counts();
    assert_eq!((counts.granted, counts.refused, counts.reused), (3, 0, 0));
}

#[test]
fn a_refresh_that_is_asked_for_takes_the_login_and_spends_nothing() {
    let place = Place::new(BROWSER);
    let running = place.start();
    let address = running.address();
    running.wait_for("There is no refresh token yet");
    place.log_in();
    assert_eq!(ask(address, FORCED).status, 200);
    assert!(ask(address, get("/")).body.starts_with("Bearer sandbox-at-"));
    assert_eq!(place.sandbox.counts().granted, 1);
}

#[test]
fn what_the_browser_shows_is_pasted() {
    let shown = "authorization_url: URL/oauth/authorize\nredirect_uri: https://issuer.example/show";
    for whole_address in [false, true] {
        let place = Place::new(shown);
        let (mut login, mut stdin) = place.login(&[]);
        let target = redirect_of(&address_of(&login));
        assert!(target.starts_with("https://issuer.example/show?"), "{target}");
        login.wait_for("Paste the code, or the whole address, here:");
        let value = |name: &str| {
            let query = target.split_once('?').unwrap().1;
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(own, _)| *own == name).unwrap().1.to_owned()
        };
        writeln!(stdin, "{}#wrong", value("code")).unwrap();
        login.wait_for("That is not it: its 'state' is not that of this login");
        let pasted = if whole_address {
            target.clone()
        } else {
            format!("{}#{}", value("code"), value("state"))
        };
        writeln!(stdin, "{pasted}").unwrap();
        assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
        assert!(place.state_file().load().unwrap().unwrap().refresh_token.is_some());
    }
}

#[test]
fn nothing_pasted_and_nonsense_pasted_end_with_1() {
    let place = Place::new("authorization_url: URL/oauth/authorize");
    let (mut login, stdin) = place.login(&["--paste"]);
    assert!(address_of(&login).contains("redirect_uri=http%3A%2F%2F127.0.0.1%3A"));
    drop(stdin);
    assert_eq!(login.code(), Some(1));
    login.wait_for("Nothing was pasted: the input has ended");
    let (mut login, mut stdin) = place.login(&["--paste"]);
    stdin.write_all(b"two words\nno code\n\n").unwrap();
    assert_eq!(login.code(), Some(1));
    login.wait_for("What was pasted was not the code");
    assert_eq!(place.state_file().load().unwrap(), None);
}

#[test]
fn a_device_code_is_waited_for() {
    let place = Place::new("device_authorization_url: URL/oauth/device");
    for agreed in [false, true] {
        let (mut login, _stdin) = place.login(&[]);
        let line = login.wait_for("and type in this code: ");
        let user_code = line.rsplit_once(": ").unwrap().1.to_owned();
        login.wait_for(&format!("/device?user_code={user_code}"));
        let refused = place.sandbox.counts().refused;
        eventually("it asked once in vain", || place.sandbox.counts().refused > refused);
        assert!(place.sandbox.answer_device(&user_code, agreed));
        assert_eq!(login.code(), Some(i32::from(!agreed)), "{:#?}", login.lines());
        login.wait_for(if agreed { "Logged in." } else { "The login was refused" });
        assert_eq!(place.state_file().load().unwrap().is_some(), agreed);
    }
}

#[test]
fn a_client_that_signs_its_requests_logs_in_and_out() {
    let signs = "client_auth: client_secret_jwt";
    let place = Place::new(&format!("{BROWSER}\nrevocation_url: URL/oauth/revoke\n{signs}"));
    place.log_in();
    let refresh = run(place.folder.path(), &["refresh"], &place.variables());
    assert_eq!(refresh.status.code(), Some(0), "{}", text(&refresh.stderr));
    let out = run(place.folder.path(), &["logout", "--provider", "the-p"], &place.variables());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(place.sandbox.counts().revoked, 2, "{}", text(&out.stderr));
    // Each poll for a code has an assertion of its own, because the issuer takes each only once.
    place.configure(&format!("device_authorization_url: URL/oauth/device\n{signs}"));
    let (mut login, _stdin) = place.login(&[]);
    let line = login.wait_for("and type in this code: ");
    let user_code = line.rsplit_once(": ").unwrap().1.to_owned();
    let refused = place.sandbox.counts().refused;
    eventually("it asked once in vain", || place.sandbox.counts().refused > refused);
    assert!(place.sandbox.answer_device(&user_code, true));
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
}

#[test]
fn refusals_reach_the_person_in_words() {
    let place = Place::new("authorization_url: URL/oauth/authorize?deny=1");
    let (mut login, _stdin) = place.login(&[]);
    let page = visit(&redirect_of(&address_of(&login)));
    let words = "The login failed: access_denied (it was refused, by you or by the issuer): The sandbox was \
                 told to refuse";
    assert!(page.status == 400 && page.body.contains(words), "{}", page.body);
    assert_eq!(login.code(), Some(1));
    login.wait_for(words);

    place.configure("authorization_url: URL/oauth/authorize\nissuer: https://another.example");
    let (mut login, _stdin) = place.login(&[]);
    visit(&redirect_of(&address_of(&login)));
    assert_eq!(login.code(), Some(1));
    login.wait_for("and not from 'https://another.example'");
    assert_eq!(place.sandbox.counts().granted, 0, "the code was not spent");

    // A code that somebody changed on the way is refused by the issuer.
    place.configure("authorization_url: URL/oauth/authorize");
    let (mut login, _stdin) = place.login(&[]);
    let page = visit(&redirect_of(&address_of(&login)).replace("code=", "code=x"));
    assert!(page.body.contains("did not take the code: 400 Bad Request (invalid_grant)"));
    assert_eq!(login.code(), Some(1));
}

#[test]
fn a_browser_is_opened_where_there_is_a_display() {
    let mut place = Place::new(BROWSER);
    let script = place.folder.path().join("xdg-open");
    let text = "#!/bin/sh\necho \"$@\" > opened.new && mv opened.new opened\n";
    crate::support::write_program(&script, text);
    let opened = place.folder.path().join("opened");
    let path = format!("{}:/usr/bin:/bin", place.folder.path().display());
    place.set("PATH", &path);
    for (display, option, expected) in [
        ("", "--config=providers.yaml", false),
        (":9", "--no-browser", false),
        (":9", "-cproviders.yaml", true),
    ] {
        place.set("DISPLAY", display);
        let arguments = ["login", "--provider", "the-p", option];
        let (mut login, _stdin) =
            Binary::start_talking(place.folder.path(), &arguments, &place.variables());
        let address = address_of(&login);
        if expected {
            eventually("the browser is opened", || opened.exists());
            assert_eq!(std::fs::read_to_string(&opened).unwrap().trim(), address);
        }
        assert_eq!(visit(&redirect_of(&address)).status, 200);
        assert_eq!(login.code(), Some(0));
        assert_eq!(opened.exists(), expected, "{display} {option}");
    }
}

#[test]
fn what_is_to_be_run_names_the_configuration_in_use() {
    let place = Place::new(BROWSER);
    let folder = place.folder.path();
    std::fs::rename(folder.join("providers.yaml"), folder.join("my providers.yaml")).unwrap();
    let command = "evertoken login --config 'my providers.yaml' --provider the-p";
    let arguments = ["--config", "my providers.yaml"];
    let check = run(folder, &[&["check"], &arguments[..]].concat(), &place.variables());
    let words = format!("There is no refresh token yet; run: {command}");
    assert!(text(&check.stderr).contains(&words), "{}", text(&check.stderr));
    let running = Binary::start(folder, &arguments, &place.variables());
    let address = running.address();
    running.wait_for(&words);
    eventually("it is said", || ask(address, get("/-/ready")).body.contains(&words));
    let status = ask(address, get("/-/status")).body;
    assert!(status.contains(&format!("Log in: `{command}`")), "{status}");
}

#[test]
fn exit_codes() {
    let place = Place::new("refresh_token_env: SEED");
    let login = |arguments: &[&str]| {
        let all = [&["login"], arguments].concat();
        let output = run(place.folder.path(), &all, &place.variables());
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(login(&[]).0, 2);
    assert_eq!(login(&["-p", "the-p", "--paste", "--device"]).0, 2);
    let (code, told) = login(&["-p", "nobody"]);
    assert!(
        code == 2 && told.contains("There is no provider 'nobody'; there are: the-p"),
        "{told}"
    );
    let (code, told) = login(&["-p", "The P"]);
    let words = "Provider The P: auto_refresh_config needs an 'authorization_url'";
    assert!(code == 78 && told.contains(words), "{told}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    place.configure(&format!(
        "authorization_url: URL/oauth/authorize\nredirect_uri: http://localhost:{port}/cb"
    ));
    let (code, told) = login(&["-p", "the-p"]);
    assert!(code == 69 && told.contains("end what uses the port, or use --paste"), "{told}");
    place.configure(BROWSER);
    let variables = [("ID", "x"), ("SECRET", "y")];
    let output = run(place.folder.path(), &["login", "-p", "the-p", "--paste"], &variables);
    assert_eq!(output.status.code(), Some(1), "the input has ended");
    std::fs::remove_dir_all(place.folder.path().join("state")).unwrap();
    std::fs::write(place.folder.path().join("state"), "").unwrap();
    let (code, told) = login(&["-p", "the-p"]);
    assert!(code == 78 && told.contains("can't be written"), "{told}");
    std::fs::remove_file(place.folder.path().join("state")).unwrap();
    std::fs::create_dir_all(place.folder.path().join("state/the-p.json")).unwrap();
    let (code, told) = login(&["-p", "the-p"]);
    assert!(
        code == 1 && told.contains("so a login could not be stored; mend that first"),
        "{told}"
    );
}

#[test]
fn without_a_refresh_token_nothing_is_stored() {
    let issuer = Peer::answering(|_| answer(200, r#"{"access_token":"a","expires_in":60}"#));
    let place = Place::new("authorization_url: URL/oauth/authorize");
    let file = place.folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let token_url = format!("{}/oauth/token", place.sandbox.url());
    std::fs::write(&file, config.replace(&token_url, &issuer.url())).unwrap();
    let (mut login, _stdin) = place.login(&[]);
    let page = visit(&redirect_of(&address_of(&login)));
    assert!(page.status == 400 && page.body.contains("no refresh token"), "{}", page.body);
    assert_eq!(login.code(), Some(1));
    login.wait_for("The issuer gave no refresh token, so nothing was stored");
    assert_eq!(place.state_file().load().unwrap(), None);
}

#[test]
fn a_refresh_of_another_process_is_waited_for() {
    let place = Place::new(BROWSER);
    let Locking::Ours(lock) = place.state_file().try_lock().unwrap() else { panic!() };
    let (mut login, _stdin) = place.login(&[]);
    let target = redirect_of(&address_of(&login));
    let asking = evertoken::testing::spawn("browser", 256 * 1024, move || {
        assert_eq!(visit(&target).status, 200);
    });
    eventually("the code was taken", || place.sandbox.counts().granted == 1);
    assert_eq!(place.state_file().load().unwrap(), None);
    drop(lock);
    drop(asking.unwrap());
    assert_eq!(login.code(), Some(0));
    assert!(place.state_file().load().unwrap().unwrap().login_hash.is_some());
}

#[test]
fn a_chain_that_could_not_be_stored_does_not_overwrite_a_login() {
    let mut place = Place::new(&format!("{BROWSER}\nrefresh_token_env: SEED"));
    place.set("SEED", &place.sandbox.login());
    let state = place.folder.path().join("state");
    unwritable(&state);
    let mut running = place.start();
    let address = running.address();
    running.wait_for("can't be written");
    running.wait_for("Successfully refreshed");
    std::fs::remove_file(&state).unwrap();
    place.log_in();
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.code(), Some(0));
    let _ = address;
    let stored = place.state_file().load().unwrap().unwrap();
    assert!(stored.login_hash.is_some(), "the login is still there");
}

/// The state file kept the login, or the logout, that a new refresh token replaced, because the disk was full. It was taken
/// for a new one, and the chain in memory was given up for it.
#[test]
fn a_login_or_logout_that_a_new_seed_replaced_does_not_come_back_while_the_disk_is_full() {
    for is_logged_out in [false, true] {
        let mut place = Place::new(&format!("{BROWSER}\nrefresh_token_env: SEED"));
        place.set("SEED", &place.sandbox.login());
        place.log_in();
        if is_logged_out {
            let logout = ["logout", "--provider", "the-p"];
            let output = run(place.folder.path(), &logout, &place.variables());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
        place.set("SEED", &place.sandbox.login());
        let script = format!("ulimit -S -f 0; exec {} run", env!("CARGO_BIN_EXE_evertoken"));
        let running = Binary::start_shell(place.folder.path(), &script, &place.variables());
        running.wait_for("can't be written");
        running.wait_for("Successfully refreshed");
        let address = running.address();
        // Before it refreshes, it looks for a login.
        for _ in 0..2 {
            assert_eq!(ask(address, FORCED).status, 200, "{:#?}", running.lines());
        }
        assert!(ask(address, get("/")).body.starts_with("Bearer sandbox-at-"));

        let id = i32::try_from(running.id()).ok().and_then(Pid::from_raw);
        let unlimited = Rlimit { current: None, maximum: None };
        prlimit(id, Resource::Fsize, unlimited).unwrap();
        eventually("it is written again", || {
            assert_eq!(ask(address, FORCED).status, 200);
            running.lines().iter().any(|line| line.contains("is written again"))
        });
        let stored = place.state_file().load().unwrap().unwrap();
        assert_eq!((stored.login_hash, stored.logged_out_at), (None, None));
        assert!(stored.refresh_token.is_some());
        assert!(!running.lines().iter().any(|line| line.contains("Using the login")));
        let granted = place.sandbox.counts().granted;

        place.log_in();
        assert_eq!(ask(address, FORCED).status, 200);
        running.wait_for("Using the login that was stored");
        let counts = place.sandbox.counts();
        assert_eq!((counts.granted, counts.refused, counts.reused), (granted + 1, 0, 0));
    }
}

const DEVICE_CODE: &str = "device-code-e5f6";

#[test]
fn nothing_secret_is_said_at_trace_level() {
    let tokens = r#"{"access_token":"login-access-a1b2","refresh_token":"login-refresh-c3d4","expires_in":3600}"#;
    let issuer = Peer::answering(move |seen| {
        let device = format!(
            r#"{{"device_code":"{DEVICE_CODE}","user_code":"AB","verification_uri":"http://x","interval":0}}"#
        );
        answer(200, if seen.line.contains("/device") { &device } else { tokens })
    });
    let mut place = Place::new("authorization_url: URL/oauth/authorize");
    let file = place.folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let token_url = format!("{}/oauth/token", place.sandbox.url());
    std::fs::write(&file, config.replace(&token_url, &issuer.url())).unwrap();
    place.set("RUST_LOG", "trace");
    let (mut login, _stdin) = place.login(&[]);
    let target = redirect_of(&address_of(&login));
    let wrong = visit(&target.replace("state=", "state=x"));
    let page = visit(&target);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    let sent = String::from_utf8(issuer.seen()[0].body.clone()).unwrap();
    let value = |name: &str| {
        let start = sent.find(&format!("{name}=")).unwrap() + name.len() + 1;
        sent[start..].split('&').next().unwrap().to_owned()
    };
    let secrets = [
        value("code_verifier"),
        value("code"),
        place.sandbox.client_secret(),
        "login-access-a1b2".to_owned(),
        "login-refresh-c3d4".to_owned(),
        DEVICE_CODE.to_owned(),
    ];
    assert!(secrets.iter().all(|secret| secret.len() > 10), "{secrets:?}");
    let mut outputs = login.lines();
    assert!(outputs.len() > 3);
    // A device code is as good as a token.
    place.configure(&format!("device_authorization_url: {}/device", issuer.url()));
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace(&token_url, &issuer.url())).unwrap();
    let (mut login, _stdin) = place.login(&[]);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    outputs.extend(login.lines());
    assert!(String::from_utf8_lossy(&issuer.seen()[2].body).contains(DEVICE_CODE));
    for page in [wrong, page] {
        outputs.push(format!("{:?}{}", page.fields, page.body));
    }
    for output in outputs {
        for secret in &secrets {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
}

/// A code in an answer is told to the person, and an issuer may quote in it what it was sent.
#[test]
fn a_refusal_that_quotes_a_secret_of_a_device_login_is_told_without_it() {
    const SECRET: &str = "client-secret-0c1d";
    for (path, quoted, told) in [
        ("/oauth/device", SECRET, "The issuer gives no device code: 400 Bad Request"),
        ("/oauth/token", DEVICE_CODE, "The issuer ended the login: 400 Bad Request"),
        ("/oauth/token", SECRET, "The issuer ended the login: 400 Bad Request"),
    ] {
        let issuer = Peer::answering(move |seen| {
            if seen.line.contains(path) {
                return answer(400, &format!(r#"{{"error":"{quoted}"}}"#));
            }
            let code = r#""user_code":"AB","verification_uri":"http://x","interval":0"#;
            answer(200, &format!(r#"{{"device_code":"{DEVICE_CODE}",{code}}}"#))
        });
        let mut place = Place::new("device_authorization_url: URL/oauth/device");
        let file = place.folder.path().join("providers.yaml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace(&place.sandbox.url(), &issuer.url())).unwrap();
        place.set("SECRET", SECRET);
        let (mut login, _stdin) = place.login(&[]);
        assert_eq!(login.code(), Some(1), "{:#?}", login.lines());
        login.wait_for(told);
        let lines = login.lines();
        assert!(!lines.iter().any(|line| line.contains(quoted)), "{lines:#?}");
    }
}

#[test]
fn the_address_that_was_to_be_opened_was_pasted_back() {
    let place = Place::new("authorization_url: URL/oauth/authorize");
    let (mut login, mut stdin) = place.login(&["--paste"]);
    let address = address_of(&login);
    writeln!(stdin, "{address}").unwrap();
    login.wait_for("That is the address to open; paste the one that the browser shows at the end");
    writeln!(stdin, "{}", redirect_of(&address)).unwrap();
    assert_eq!(login.code(), Some(0));
}
