//! `evertoken login --discover` with the real binary: from the address of a resource to a provider that serves.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use sandbox::issuer::CLIENT_ID;
use sandbox::{Options, Sandbox};
use tempfile::TempDir;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Answer, ask, get};
use crate::support::peer::{Peer, answer};

const VARIABLES: [(&str, &str); 1] = [("HOME", "/nonexistent")];

/// A folder with this configuration, in which `STATE` is its state folder.
fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let config = config.replace("STATE", &state);
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    folder
}

const EMPTY: &str = "# mine\nsettings: {port: 0, state_dir: 'STATE'}\nproviders: []\n";
const OTHER: &str = "settings: {port: 0, state_dir: 'STATE'}\nproviders:   # all of them\n  - name: \"Other\"\n    \
                     type: openai\n    base_url: https://other.example\n    auth_value: k   # fixed\n\n# the end\n";

fn discover(folder: &TempDir, url: &str, more: &[&str]) -> (Binary, std::process::ChildStdin) {
    let arguments = [&["login", "--no-browser", "--discover", url], more].concat();
    Binary::start_talking(folder.path(), &arguments, &VARIABLES)
}

fn visit(url: &str) -> Answer {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    ask(authority.parse().unwrap(), get(&format!("/{path}")))
}

/// Plays the browser of a login; returns the address that it opened.
#[track_caller]
fn browse(login: &Binary) -> String {
    let address = login.wait_for("  http").trim().to_owned();
    let back = visit(&address).field("location").expect("a redirect").to_owned();
    assert_eq!(visit(&back).status, 200);
    address
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_resource_is_logged_in_to_and_its_provider_serves_at_once() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let url = format!("{}/v1/models", sandbox.url());
    let folder = folder(OTHER);
    let file = folder.path().join("providers.yaml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = std::fs::read_to_string(&file).unwrap();
    let (mut login, _stdin) =
        discover(&folder, &url, &["--write", "providers.yaml", "--name", "Tools"]);
    let address = browse(&login);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    for part in [
        "client_id=sandbox-registered-",
        "scope=offline_access",
        "prompt=consent",
        "code_challenge_method=S256",
    ] {
        assert!(address.contains(part), "{part}: {address}");
    }
    let resource = format!("resource={}", url.replace(':', "%3A").replace('/', "%2F"));
    assert!(address.contains(&resource), "{address}");
    login.wait_for(&format!(
        "{url} is protected by the issuer {}, scope: offline_access",
        sandbox.url()
    ));
    login.wait_for("Registered a client at http://127.0.0.1:");
    login.wait_for("Added the provider 'Tools' to providers.yaml. `evertoken reload` makes");
    login.wait_for("Clients reach it at /to/tools/v1/models");

    // The rest of the file is as it was.
    let after = std::fs::read_to_string(&file).unwrap();
    let (start, end) = before.split_at(before.find("\n# the end").unwrap());
    let entry = after.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).expect(&after);
    assert!(entry.starts_with("  - name: \"Tools\"\n    type: \"generic\"\n"), "{entry}");
    assert_eq!(mode(&file), 0o640);
    let id = folder.path().join("state/tools.client-id");
    assert!(entry.contains(&format!("client_id_file: \"{}\"", id.display())), "{entry}");
    assert_eq!(mode(&id), 0o600);
    assert_eq!(run(folder.path(), &["check"], &VARIABLES).status.code(), Some(0));
    let running = Binary::start(folder.path(), &["run"], &VARIABLES);
    let served = ask(running.address(), get("/to/tools/v1/models"));
    assert_eq!(served.status, 200, "{}", served.body);
    assert_eq!(sandbox.counts().granted, 1, "the login, and no refresh");
    let forced = "POST /-/refresh/tools HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(running.address(), forced).status, 200);
    assert_eq!(sandbox.counts().granted, 2);
}

#[test]
fn without_write_the_entry_is_printed_and_is_what_works() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let url = format!("{}/mcp", sandbox.url());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("providers.yaml");
    let home = folder.path().display().to_string();
    // Root's own folder is used without this.
    let variables = [("XDG_STATE_HOME", home.as_str())];
    let arguments = ["login", "--no-browser", "--discover", &url];
    let (mut login, _stdin) = Binary::start_talking(folder.path(), &arguments, &variables);
    browse(&login);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    assert!(folder.path().join("evertoken/127-0-0-1.client-id").exists(), "it is not root's");
    let lines = login.lines();
    let first = lines.iter().position(|line| line == "  - name: \"127.0.0.1\"").expect("an entry");
    let entry: Vec<_> =
        lines[first..].iter().take_while(|line| !line.is_empty()).cloned().collect();
    assert!(!file.exists());
    let config = format!("settings: {{port: 0}}\nproviders:\n{}\n", entry.join("\n"));
    std::fs::write(&file, config).unwrap();
    let running = Binary::start(folder.path(), &["run"], &variables);
    let served = ask(running.address(), get("/to/127-0-0-1/v1/models"));
    assert_eq!(served.status, 200, "{}", served.body);
    drop(running);
    // A name is given once.
    let again = run(folder.path(), &arguments, &variables);
    assert_eq!(again.status.code(), Some(2));
    let told = text(&again.stderr);
    assert!(
        told.contains("there is already a provider called '127.0.0.1'") && told.contains("--name"),
        "{told}"
    );
}

#[test]
fn a_client_that_is_registered_already_and_a_device_code() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let folder = folder(EMPTY);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, sandbox.client_secret()).unwrap();
    let url = format!("{}/mcp", sandbox.url());
    let client = ["--client-id", CLIENT_ID, "--client-secret-file", secret.to_str().unwrap()];
    let more = [&client[..], &["--device", "--name", "d", "--write", "providers.yaml"]].concat();
    let (mut login, _stdin) = discover(&folder, &url, &more);
    let line = login.wait_for("and type in this code: ");
    assert!(sandbox.answer_device(line.rsplit_once(": ").unwrap().1, true));
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    let lines = login.lines();
    assert!(lines.iter().all(|line| !line.contains("Registered")), "{lines:?}");
    let written = std::fs::read_to_string(folder.path().join("providers.yaml")).unwrap();
    assert!(written.starts_with("# mine\n"), "{written}");
    assert!(written.contains("\nproviders:\n  - name: \"d\"\n"), "{written}");
    assert!(!written.contains("redirect_uri"), "{written}");
    let named = format!("      client_secret_file: \"{}\"\n", secret.display());
    assert!(written.contains(&named), "{written}");
    assert_eq!(run(folder.path(), &["check"], &VARIABLES).status.code(), Some(0));
}

#[test]
fn the_hint_to_reload_named_no_file_where_another_than_the_usual_one_was_written() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let folder = folder(EMPTY);
    let at = |name: &str| folder.path().join(name);
    std::fs::rename(at("providers.yaml"), at("my new.yaml")).unwrap();
    let url = format!("{}/mcp", sandbox.url());
    let (mut login, _stdin) = discover(&folder, &url, &["--write", "my new.yaml"]);
    browse(&login);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    login.wait_for("`evertoken reload --config 'my new.yaml'` makes a running evertoken use it.");
}

/// A file that can't be changed safely is not changed, and the login is not lost.
#[test]
fn a_file_that_can_not_be_changed_safely_stays_and_the_entry_is_printed() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let config = "settings: {port: 0, state_dir: 'STATE'}\nproviders: [{name: O, type: openai, base_url: 'https://o', auth_value: k}]\n";
    let folder = folder(config);
    let file = folder.path().join("providers.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let (mut login, _stdin) =
        discover(&folder, &format!("{}/mcp", sandbox.url()), &["--write", "providers.yaml"]);
    browse(&login);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    login.wait_for(
        "providers.yaml is not changed: the list of its providers is not clear enough to add to it",
    );
    login.wait_for("Add this to the providers of providers.yaml:");
    // It was in the folder that an evertoken without settings has, where this one would not find it.
    assert!(folder.path().join("state/127-0-0-1.json").exists(), "{:#?}", login.lines());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn what_leads_nowhere_is_told_and_leaves_nothing() {
    let issuer = Peer::answering(|seen| {
        let own = format!("http://{}", seen.field("host").unwrap());
        let fill = |body: &str| answer(200, &body.replace("URL", &own));
        match seen.line.split(' ').nth(1).unwrap() {
            "/.well-known/oauth-protected-resource/other" => {
                fill(r#"{"resource":"https://elsewhere.example","authorization_servers":["URL"]}"#)
            }
            "/.well-known/oauth-protected-resource/manual" => {
                fill(r#"{"resource":"URL/manual","authorization_servers":["URL/no-registration"]}"#)
            }
            "/.well-known/oauth-authorization-server/no-registration" => fill(
                r#"{"issuer":"URL/no-registration","authorization_endpoint":"URL/a","token_endpoint":"URL/t"}"#,
            ),
            "/.well-known/oauth-protected-resource/refused" => {
                fill(r#"{"resource":"URL/refused","authorization_servers":["URL/refused"]}"#)
            }
            "/.well-known/oauth-authorization-server/refused" => fill(
                r#"{"issuer":"URL/refused","token_endpoint":"URL/t","authorization_endpoint":"URL/a","registration_endpoint":"URL/register"}"#,
            ),
            "/register" => answer(400, r#"{"error":"invalid_client_metadata"}"#),
            "/moved" => {
                "HTTP/1.1 307 X\r\nlocation: /moved/\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            _ => answer(404, ""),
        }
    });
    let folder = folder(OTHER);
    let discover = |path: &str| -> Output {
        let url = format!("{}{path}", issuer.url());
        run(folder.path(), &["login", "--no-browser", "--discover", &url], &VARIABLES)
    };
    for (path, part) in [
        ("/none", "/none does not describe itself (http://127.0.0.1:"),
        (
            "/other",
            "is of the resource \"https://elsewhere.example\", and not of \"http://127.0.0.1:",
        ),
        ("/manual", "/no-registration registers no clients by itself: register one there"),
        ("/refused", "No client was registered: http://127.0.0.1:"),
        ("/moved", "/moved redirects to /moved/: write that address, if you trust it"),
    ] {
        let output = discover(path);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path}: {told}");
        assert!(told.contains(part), "{path}: {told}");
        let left = std::fs::read_dir(folder.path().join("state")).unwrap().count();
        assert_eq!(left, 0, "{path}");
    }
}

#[test]
fn a_file_that_can_not_be_written_is_told_before_a_client_is_registered() {
    let folder = folder(OTHER);
    let asked = Peer::answering(|_| answer(404, ""));
    std::fs::write(folder.path().join("old.yaml"), "providers: []\n").unwrap();
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(folder.path().join("old.yaml"), read_only).unwrap();
    for (file, part) in [
        ("none/p.yaml", "the folder none does not exist"),
        ("old.yaml", "it is read-only (mode 444)"),
    ] {
        let url = format!("{}/mcp", asked.url());
        let output =
            run(folder.path(), &["login", "--discover", &url, "--write", file], &VARIABLES);
        assert_eq!(output.status.code(), Some(78));
        let told = text(&output.stderr);
        assert!(told.contains(&format!("{file}: can't be written: {part}")), "{told}");
    }
}

/// `--client-secret-file` may name a file in the state folder, which is its owner's.
#[test]
fn a_login_that_fails_leaves_the_secret_file_that_was_given() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let folder = folder(OTHER);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let secret = state.join("mine");
    std::fs::write(&secret, "a secret\n").unwrap();
    let url = format!("{}/mcp", sandbox.url());
    let more = ["--client-id", CLIENT_ID, "--client-secret-file", secret.to_str().unwrap()];
    let (mut login, _stdin) = discover(&folder, &url, &more);
    let address = login.wait_for("  http").trim().to_owned();
    let back = visit(&format!("{address}&deny=1")).field("location").unwrap().to_owned();
    assert_eq!(visit(&back).status, 400);
    assert_eq!(login.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "a secret\n");
}

/// A client that nobody will use is not left in the state folder.
#[test]
fn a_login_that_fails_leaves_no_client_and_no_entry() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let folder = folder(OTHER);
    let file = folder.path().join("providers.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let url = format!("{}/mcp", sandbox.url());
    let (mut login, _stdin) = discover(&folder, &url, &["--write", "providers.yaml"]);
    let address = login.wait_for("  http").trim().to_owned();
    let back = visit(&format!("{address}&deny=1")).field("location").unwrap().to_owned();
    assert_eq!(visit(&back).status, 400);
    assert_eq!(login.code(), Some(1));
    login.wait_for("The login failed: access_denied");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let state = std::fs::read_dir(folder.path().join("state")).unwrap();
    let names: Vec<_> =
        state.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with(".issuer-")), "{names:?}");
}
