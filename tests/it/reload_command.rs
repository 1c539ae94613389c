//! `evertoken reload`: a file with mistakes does not reach the one that runs, and the outcome is waited for.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};

use crate::support::binary::{Binary, run, text};
use crate::support::client::{ask, get};
use crate::support::eventually;

/// Writes a configuration with these providers.
fn configure(folder: &Path, settings: &str, providers: &[&str]) {
    let mut config = format!(
        "settings: {{port: 0, state_dir: \"{}/state\"{settings}}}\nproviders:\n",
        folder.display()
    );
    for name in providers {
        config.extend([
            "  - {name: ",
            name,
            ", type: generic, base_url: 'http://127.0.0.1:9', auth_type: none}\n",
        ]);
    }
    std::fs::write(folder.join("providers.yaml"), config).unwrap();
}

fn reload(folder: &Path, running: &Binary, more: &[&str]) -> Output {
    let id = running.id().to_string();
    run(folder, &[&["reload", "--pid", &id], more].concat(), &[("KEY", "a-key")])
}

#[test]
fn a_good_file_is_in_use_once_the_command_ends() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "a-key")]);
    let address = running.address();
    for names in [&["One", "Two"][..], &["One"]] {
        configure(folder.path(), "", names);
        let output = reload(folder.path(), &running, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "providers.yaml: in use now\n");
        let status = ask(address, get("/-/status")).body;
        assert_eq!(status.contains("\"name\":\"Two\""), names.len() == 2, "{status}");
    }
    // A key that the running one does not know yet is no obstacle.
    configure(folder.path(), ", auth: {enabled: true, api_key_env: KEY}", &["One"]);
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(ask(address, get("/-/status")).status, 401);
    // Settings that need a restart are named, and the others are in use.
    configure(folder.path(), ", max_connections: 7", &["One"]);
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stderr);
    assert!(told.contains("max_connections takes effect at the next start"), "{told}");
}

/// The shell that reloads had the variable, and nothing said that the process it tells to reload can't get it.
#[test]
fn a_variable_that_the_running_one_lacks_is_said_to_come_at_a_start_only() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[]);
    running.address();
    let way_out = format!(
        "The running evertoken (process {}) does not have that variable, and gets variables only at a start: ",
        running.id()
    );
    configure(folder.path(), ", auth: {enabled: true, api_key_env: KEY}", &["One"]);
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("Missing environment variable: 'KEY'\n"), "{told}");
    assert!(told.contains(&way_out), "{told}");
    // A provider's own keeps nothing else from use.
    configure(folder.path(), "", &["One"]);
    let path = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("auth_type: none", "auth_value_env: KEY")).unwrap();
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stderr);
    assert!(told.contains("One: Missing environment variable: 'KEY'\n"), "{told}");
    assert!(told.contains(&way_out), "{told}");
}

/// A shell without the service's variables refused what the running one would have taken.
#[test]
fn a_variable_that_only_the_shell_lacks_keeps_no_reload_from_the_running_one() {
    let folder = tempfile::tempdir().unwrap();
    let auth = ", auth: {enabled: true, api_key_env: KEY}";
    configure(folder.path(), auth, &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "a-key")]);
    running.address();
    let id = running.id().to_string();
    let reload = || run(folder.path(), &["reload", "--pid", &id], &[]);
    configure(folder.path(), auth, &["One", "Two"]);
    let output = reload();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "providers.yaml: in use now\n");
    assert_eq!(text(&output.stderr), "");
    // A mistake for every reader does not reach the running evertoken.
    configure(folder.path(), &format!("{auth}, prot: 1"), &["One"]);
    let output = reload();
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(told.contains("'prot'") && !told.contains("'KEY'"), "{told}");
    // If neither has it, the running one says so.
    configure(folder.path(), &auth.replace("KEY", "NONE"), &["One"]);
    let output = reload();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("'NONE'") && told.contains("gets variables only at a start"), "{told}");
}

#[test]
fn a_broken_file_leaves_the_one_that_runs_alone() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[]);
    let address = running.address();
    configure(folder.path(), ", prot: 1", &["One", "One"]);
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(told.contains("did you mean 'port'?"), "{told}");
    assert!(told.contains("there is another provider called 'One'"), "{told}");
    assert!(
        told.ends_with("providers.yaml: not reloaded, the configuration in use stays\n"),
        "{told}"
    );
    assert_eq!(ask(address, get("/-/ready")).status, 200);
    let lines = running.lines();
    assert!(!lines.iter().any(|line| line.contains("reload")), "{lines:#?}");
    // `check --start` says the same to scripts, and nothing where there is nothing to say.
    let check = |folder: &Path| run(folder, &["check", "--start"], &[]);
    let output = check(folder.path());
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("did you mean 'port'?"));
    configure(folder.path(), ", auth: {enabled: true, api_key_env: NONE}", &["One"]);
    assert_eq!(check(folder.path()).status.code(), Some(78));
    configure(folder.path(), "", &["One"]);
    let output = check(folder.path());
    assert_eq!(
        (output.status.code(), text(&output.stderr), text(&output.stdout)),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn what_the_one_that_runs_refuses_is_said_and_is_1() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), ", auth: {enabled: true, api_key_env: KEY}", &["One"]);
    let arguments = ["run", "--listen", "0.0.0.0:0"];
    let running = Binary::start(folder.path(), &arguments, &[("KEY", "a-key")]);
    running.address();
    // Fine by itself, but not for an address that is open to others.
    configure(folder.path(), "", &["One"]);
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("--listen: an address that is not loopback needs"), "{told}");
    assert!(told.ends_with("not reloaded, the configuration in use stays\n"), "{told}");
}

#[test]
fn who_is_not_there_is_told_no_signal() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let mut other = std::process::Command::new("/bin/cat");
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It has its name for certain once it does something.
    other.stdin.as_mut().unwrap().write_all(b"1").unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let id = other.id().to_string();
    let output = run(folder.path(), &["reload", "--pid", &id], &[]);
    assert_eq!(output.status.code(), Some(1));
    let words = format!("Process {id} is cat, which is no evertoken");
    assert!(text(&output.stderr).contains(&words), "{}", text(&output.stderr));
    assert!(other.try_wait().unwrap().is_none(), "it was not told to end");
    other.kill().unwrap();
    other.wait().unwrap();
    let output = run(folder.path(), &["reload", "--pid", &id], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("can't be told to reload"), "{}", text(&output.stderr));
    let output = run(folder.path(), &["reload"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("name its process with --pid"),
        "{}",
        text(&output.stderr)
    );
}

/// macOS and FreeBSD: it said that nobody listened.
#[cfg(feature = "portable")]
#[test]
fn where_the_system_does_not_tell_who_listens_the_process_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listens.local_addr().unwrap().port();
    configure(folder.path(), "", &["One"]);
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("port: 0", &format!("port: {port}"))).unwrap();
    let output = run(folder.path(), &["reload"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    let words = format!("does not tell who listens on port {port}; name evertoken's process with");
    assert!(told.contains(&words), "{told}");
}

#[test]
fn the_one_that_listens_where_the_configuration_says_is_found() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let file = folder.path().join("providers.yaml");
    let running = Binary::start(folder.path(), &["run"], &[]);
    let address = running.address();
    let config = std::fs::read_to_string(&file).unwrap();
    let port = address.port();
    std::fs::write(&file, config.replace("port: 0", &format!("port: {port}"))).unwrap();
    let output = run(folder.path(), &["reload"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    eventually("it says that it reloaded", || {
        running.lines().iter().any(|line| line.contains("Reloaded the configuration"))
    });
    drop(running);
    let taken = std::net::TcpListener::bind(address).unwrap();
    let output = run(folder.path(), &["reload"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("which is no evertoken"), "{}", text(&output.stderr));
    drop(taken);
}

/// It said that the file was in use, and the one that runs had read its own.
#[test]
fn a_file_that_the_running_one_does_not_use_is_not_said_to_be_in_use() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "a-key")]);
    running.address();
    let own = folder.path().join("providers.yaml");
    std::fs::copy(&own, folder.path().join("other.yaml")).unwrap();
    let output = reload(folder.path(), &running, &["--config", "other.yaml"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("other.yaml: not reloaded: process ") && told.contains("/providers.yaml"),
        "{told}"
    );
    // Another way to the same file is the same file.
    std::os::unix::fs::symlink(&own, folder.path().join("link.yaml")).unwrap();
    let output = reload(folder.path(), &running, &["--config", "link.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The command waited 30 s where nobody wrote.
#[test]
fn a_reload_that_moves_the_state_folder_says_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "", &["One"]);
    let running = Binary::start(folder.path(), &["run"], &[("KEY", "a-key")]);
    running.address();
    let path = folder.path().join("providers.yaml");
    let text_before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text_before.replace("/state\"", "/elsewhere\"")).unwrap();
    let output = reload(folder.path(), &running, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The first address alone was looked at.
#[test]
fn a_running_one_is_found_at_any_of_its_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = folder.path().join("s");
    let listen = format!("listen: ['unix:{}', '{free}']", socket.display());
    configure(folder.path(), "", &["One"]);
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap().replace("port: 0", &listen);
    std::fs::write(&file, config).unwrap();
    let running = Binary::start(folder.path(), &["run"], &[]);
    running.wait_for(&format!("Listening on http://{free}"));
    std::fs::remove_file(&socket).unwrap();
    let output = run(folder.path(), &["reload"], &[]);
    assert_eq!(text(&output.stdout), "providers.yaml: in use now\n", "{}", text(&output.stderr));
    drop(running);
    let output = run(folder.path(), &["reload"], &[]);
    let told = text(&output.stderr);
    assert!(told.contains("No visible evertoken listens on unix:"), "{told}");
}
