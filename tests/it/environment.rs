//! Variables from a file: those of the service are not in the shell that checks and logs in for it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::support::binary::{Binary, run, text};
use crate::support::peer::{Peer, answer};

/// A folder as `/etc/evertoken`: a configuration and the variables that it names.
fn folder(issuer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: \"{0}/state\"}}\nproviders:\n  - name: P\n    type: generic\n    \
         base_url: http://127.0.0.1:9\n    auto_refresh_config:\n      token_url: {issuer}/token\n      \
         client_id_env: ID\n      client_secret_env: SECRET\n      refresh_token_env: SEED\n      \
         authorization_url: {issuer}/authorize\n",
        folder.path().display()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    write(
        folder.path(),
        "# of the service\nID=the-id\nSECRET=\"the secret\"\nexport SEED='the-seed'\n",
    );
    folder
}

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("environment"), text).unwrap();
    set_mode(folder, 0o600);
}

fn set_mode(folder: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder.join("environment"), permissions).unwrap();
}

#[test]
fn variables_that_others_can_read_are_a_warning() {
    let folder = folder("http://127.0.0.1:9");
    let check = || run_on(folder.path(), &["check"], &[]);
    for (mode, is_open) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        set_mode(folder.path(), mode);
        let output = check();
        assert_eq!(output.status.code(), Some(0), "{mode:o}");
        let warning = format!(
            "{}/environment: warning: this file has mode {mode:o}, so group or others can read the secrets in \
             it; chmod 600 it\n",
            folder.path().display()
        );
        assert_eq!(text(&output.stderr), if is_open { warning } else { String::new() });
        let told = text(&output.stdout);
        assert_eq!(told.contains(": one warning; otherwise "), is_open, "{mode:o}: {told}");
    }
    // A file without variables has nothing to hide.
    write(folder.path(), "# none\n");
    set_mode(folder.path(), 0o644);
    assert!(!text(&check().stderr).contains("chmod"));
}

fn granting() -> Peer {
    Peer::answering(|_| {
        answer(200, r#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#)
    })
}

/// Runs it from another folder, as somebody with nothing in the environment.
fn run_on(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let config = folder.join("providers.yaml");
    let all = [arguments, &["--config", config.to_str().unwrap()]].concat();
    run(Path::new("/"), &all, variables)
}

fn body(issuer: &Peer, index: usize) -> String {
    String::from_utf8(issuer.seen()[index].body.clone()).unwrap()
}

#[test]
fn the_file_beside_the_configuration_is_read_by_what_a_person_runs() {
    let issuer = granting();
    let folder = folder(&issuer.url());
    let check = run_on(folder.path(), &["check"], &[]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let refresh = run_on(folder.path(), &["refresh"], &[]);
    assert_eq!(refresh.status.code(), Some(0), "{}", text(&refresh.stderr));
    for part in ["refresh_token=the-seed", "client_id=the-id", "client_secret=the+secret"] {
        assert!(body(&issuer, 0).contains(part), "{}", body(&issuer, 0));
    }
    let config = folder.path().join("providers.yaml");
    let arguments = ["login", "-p", "p", "--paste", "--config", config.to_str().unwrap()];
    let (mut login, mut stdin) = Binary::start_talking(Path::new("/"), &arguments, &[]);
    let address = login.wait_for("  http");
    assert!(address.contains("client_id=the-id"), "{address}");
    let state = address.split("state=").nth(1).unwrap().split('&').next().unwrap();
    writeln!(stdin, "code#{state}").unwrap();
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    assert!(body(&issuer, 1).contains("client_secret=the+secret"), "{}", body(&issuer, 1));
    assert!(!login.lines().iter().any(|line| line.contains("Missing")), "{:#?}", login.lines());
}

#[test]
fn variables_of_the_process_win_and_an_empty_one_is_none() {
    let issuer = granting();
    let folder = folder(&issuer.url());
    let variables = [("ID", "other-id"), ("SECRET", "")];
    let refresh = run_on(folder.path(), &["refresh"], &variables);
    assert_eq!(refresh.status.code(), Some(0), "{}", text(&refresh.stderr));
    for part in ["client_id=other-id", "client_secret=the+secret"] {
        assert!(body(&issuer, 0).contains(part), "{}", body(&issuer, 0));
    }
}

#[test]
fn a_file_that_is_named_is_read_and_has_to_be_there() {
    let issuer = granting();
    let folder = folder(&issuer.url());
    let (beside, named) = (folder.path().join("environment"), folder.path().join("variables"));
    std::fs::rename(&beside, &named).unwrap();
    let missing = run_on(folder.path(), &["check"], &[]);
    assert_eq!(missing.status.code(), Some(78));
    let with = |command| {
        run_on(folder.path(), &[command, "--environment-file", named.to_str().unwrap()], &[])
    };
    assert_eq!(with("check").status.code(), Some(0));
    // A service manager hands variables to `run`: it reads a file only where it is told to.
    write(folder.path(), "ID=beside");
    let config = folder.path().join("providers.yaml");
    let plain = ["run", "--config", config.to_str().unwrap()];
    let running = Binary::start(Path::new("/"), &plain, &[]);
    running.wait_for("Missing environment variable: 'ID', 'SECRET' and 'SEED'");
    drop(running);
    let told = [&plain[..], &["--environment-file", named.to_str().unwrap()]].concat();
    let running = Binary::start(Path::new("/"), &told, &[]);
    running.wait_for("Successfully refreshed token");
    drop(running);
    std::fs::remove_file(&named).unwrap();
    for command in ["check", "run", "login", "refresh", "reload"] {
        let provider: &[&str] = if command == "login" { &["-p", "p"] } else { &[] };
        let arguments = [&[command, "--environment-file", "/none"], provider].concat();
        let output = run_on(folder.path(), &arguments, &[]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let told = text(&output.stderr);
        assert!(told.contains("/none: can't be read: "), "{command}: {told}");
    }
}

/// Somebody else's `status` called a good file broken: what it lacked stood in the service's environment, which is root's.
#[test]
fn status_does_not_call_a_file_broken_for_variables_that_it_can_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |port: u16, more: &str| {
        let config = format!(
            "settings: {{port: {port}, state_dir: '{}/state', auth: {{enabled: true, api_key_env: KEY}}}}\nproviders:\n  \
             - {{name: P, type: generic, base_url: 'http://127.0.0.1:9', auth_type: none}}\n{more}",
            folder.path().display()
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    };
    write(0, "");
    let config = folder.path().join("providers.yaml");
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "the-inbound-key")]);
    write(running.address().port(), "");
    // As with one that only root may read, for a test that root runs.
    std::fs::write(folder.path().join("environment"), b"KEY=\xff").unwrap();
    let status = |variables: &[(&str, &str)]| {
        let arguments = ["status", "--config", config.to_str().unwrap()];
        let output = run(Path::new("/"), &arguments, variables);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let file = format!("{}/environment: can't be read: ", folder.path().display());
    let (code, table, told) = status(&[("EVERTOKEN_API_KEY", "the-inbound-key")]);
    assert!(code == 0 && table.contains("ready"), "{code} {table} {told}");
    assert!(told.starts_with(&file) && told.lines().count() == 1, "{told}");
    // It is asked first, and says that it wants a key.
    let (code, _, told) = status(&[]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(code, 1);
    assert!(lines[0].contains("wants a key") && lines[1].starts_with(&file), "{told}");
    assert_eq!(lines.len(), 2, "{told}");
    // Mistakes that do not depend on variables are still reported.
    write(running.address().port(), "provders: []\n");
    let (_, _, told) = status(&[("EVERTOKEN_API_KEY", "the-inbound-key")]);
    assert!(
        told.contains("unknown key 'provders'") && told.contains("the file is broken"),
        "{told}"
    );
}

#[test]
fn what_is_unclear_in_the_file_is_said_without_what_stands_there() {
    let folder = folder("http://127.0.0.1:9");
    write(folder.path(), "ID=i\nSECRET=s\nSEED=t\na-secret that lost its name\n");
    let check = run_on(folder.path(), &["check"], &[]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let told = text(&check.stderr);
    assert!(told.contains("environment:4: warning: this is not NAME=value"), "{told}");
    assert!(!told.contains("a-secret"), "{told}");
    // A user without the permission to read the file is told so.
    let file = folder.path().join("environment");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&file).is_err() {
        let told = text(&run_on(folder.path(), &["check"], &[]).stderr);
        assert!(told.contains("so its variables are missing"), "{told}");
    }
}

/// A shell without the service's variables called a good file broken, which a reload would refuse.
#[test]
fn status_does_not_call_a_file_broken_for_variables_that_are_not_set_here() {
    let folder = tempfile::tempdir().unwrap();
    let write = |port: u16, more: &str| {
        let config = format!(
            "settings: {{port: {port}, state_dir: '{}/state', auth: {{enabled: true, api_key_env: KEY}}}}\nproviders:\n  \
             - {{name: P, type: generic, base_url: 'http://127.0.0.1:9', auth_type: none{more}}}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    };
    write(0, "");
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "the-inbound-key")]);
    let port = running.address().port();
    write(port, "");
    let status = || {
        let output = run(folder.path(), &["status"], &[("EVERTOKEN_API_KEY", "the-inbound-key")]);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, told) = status();
    assert_eq!(code, 0, "{told}");
    let here = "providers.yaml: not set here, but the running evertoken may have it, which alone counts: 'KEY'\n";
    assert_eq!(told, here);
    // A mistake for every reader stays a mistake, even if its words contain the variable's name.
    for odd in [", odd: 1", ", KEY: 1"] {
        write(port, odd);
        let (code, told) = status();
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("the file is broken") && told.ends_with(here), "{told}");
    }
}
