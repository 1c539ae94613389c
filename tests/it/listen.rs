//! `settings.listen`: several addresses, and unix sockets.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evertoken::testing::{Stage, Supervisor, spawn};
use rustix::process::Signal;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Answer, Client, ask, get, post};
use crate::support::own_tls::Pair;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{PATIENCE, eventually};

/// Asks over the unix socket at `path`.
#[track_caller]
fn ask_unix(path: &Path, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect_unix(path);
    client.send(request);
    client.answer()
}

/// A proxy before `peer` with these addresses besides a unix socket, and the path of that.
fn listening(peer: &Peer, others: &str) -> (Builder, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evertoken.sock");
    let builder = TestProxy::builder()
        .settings(&format!("listen: [{others}'unix:{}']", path.display()))
        .provider("P", "anthropic", &peer.url(), "auth_value: fixed")
        .folder(folder);
    (builder, path)
}

/// A folder with a configuration that listens on `listen`.
fn configured(listen: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "settings: {{listen: [{listen}], state_dir: state}}\nproviders: [{{name: P, type: generic, base_url: \
         \"http://127.0.0.1:9\", auth_value_env: KEY}}]\n"
    );
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    folder
}

const KEY: [(&str, &str); 1] = [("KEY", "k")];

#[test]
fn a_check_was_content_with_a_socket_whose_folder_is_missing() {
    for check in [&["check"][..], &["check", "--start"]] {
        let folder = configured("'127.0.0.1:0', 'unix:/nosuch/a.sock'");
        let output = run(folder.path(), check, &KEY);
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(78), "{said}{told}");
        let line = "providers.yaml:1:36: unix:/nosuch/a.sock: its folder /nosuch does not exist: create it, or have \
                    the service manager do so";
        assert!(told.contains(line), "{told}");
        assert!(!said.contains("in order"), "{said}");
        // A file that is no socket.
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let folder = configured(&format!("'unix:{}'", path.display()));
        let output = run(folder.path(), check, &KEY);
        assert_eq!(output.status.code(), Some(78));
        let told = text(&output.stderr);
        assert!(
            told.contains("providers.yaml:1:21: unix:") && told.contains("that is no socket"),
            "{told}"
        );
    }
    // What needs no socket goes on.
    let folder = configured("'unix:/nosuch/a.sock'");
    assert_eq!(text(&run(folder.path(), &["check", "--names"], &KEY).stdout), "p\n");
}

#[test]
fn requests_come_over_a_unix_socket_as_over_a_port() {
    let peer = Peer::answering(|asked| answer(200, &asked.body.len().to_string()));
    let (builder, path) = listening(&peer, "'127.0.0.1:0', 'localhost:0', ");
    let mut proxy = builder.start();
    assert_eq!(proxy.ask(post("/v1/messages", "abc")).body, "3");
    assert_eq!(ask_unix(&path, post("/v1/messages", "abcd")).body, "4");
    let mut client = Client::connect_unix(&path);
    for _ in 0..2 {
        client.send(post("/v1/messages", &"x".repeat(100_000)));
        assert_eq!(client.answer().body, "100000");
    }
    let pages = "GET /-/healthy HTTP/1.1\r\nHost: any.name\r\n\r\n";
    assert_eq!(ask_unix(&path, pages).status, 200, "no name leads a browser to a unix socket");
    let foreign = "GET /-/status HTTP/1.1\r\nHost: any.name\r\nOrigin: http://evil.example\r\n\r\n";
    assert_eq!(ask_unix(&path, foreign).code(), "forbidden_origin");
    let status = ask_unix(&path, get("/-/status")).json();
    assert_eq!(status["providers"][0]["requests"]["total"], 4);
    proxy.stop();
    assert!(!path.exists(), "a stop removes the socket");
}

#[test]
fn a_client_that_leaves_a_unix_socket_ends_its_exchange() {
    let (told, steps) = crossbeam_channel::unbounded();
    let peer = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            told.send("asked").unwrap();
            talk.wait_for_close();
            told.send("closed").unwrap();
        }
    });
    let (builder, path) = listening(&peer, "");
    let _proxy = builder.start();
    let mut client = Client::connect_unix(&path);
    client.send(post("/v1/messages", "{}"));
    assert_eq!(steps.recv_timeout(PATIENCE), Ok("asked"));
    drop(client);
    assert_eq!(steps.recv_timeout(PATIENCE), Ok("closed"));
}

#[test]
fn a_stop_finishes_a_request_over_a_unix_socket() {
    let (told, asked) = crossbeam_channel::unbounded();
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let peer = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            told.send(()).unwrap();
            let _ = released.recv();
            talk.answer(200, "late");
        }
    });
    let (builder, path) = listening(&peer, "");
    let mut proxy = builder.start();
    let mut client = Client::connect_unix(&path);
    client.send(post("/v1/messages", "{}"));
    asked.recv_timeout(PATIENCE).unwrap();
    let (cut, counted) = crossbeam_channel::bounded(1);
    let stop = move || cut.send(proxy.stop()).unwrap();
    let _stopping = spawn("stop", 512 * 1024, stop).unwrap();
    eventually("the socket is gone", || !path.exists());
    drop(release);
    assert_eq!(client.answer().body, "late");
    assert_eq!(counted.recv_timeout(PATIENCE), Ok(0));
}

/// Without a free slot, a page that needs none was refused for its Host.
#[test]
fn a_page_over_a_unix_socket_may_have_any_host_without_a_slot_too() {
    let (told, asked) = crossbeam_channel::unbounded();
    let peer = Peer::start(move |mut talk| {
        if talk.request().is_some() {
            told.send(()).unwrap();
            talk.wait_for_close();
        }
    });
    let (builder, path) = listening(&peer, "");
    let _proxy = builder.settings("max_connections: 1").start();
    let mut client = Client::connect_unix(&path);
    client.send(post("/v1/messages", "{}"));
    asked.recv_timeout(PATIENCE).unwrap();
    let page = "GET /-/healthy HTTP/1.1\r\nHost: any.name\r\n\r\n";
    assert_eq!(ask_unix(&path, page).status, 200);
}

#[test]
fn a_reload_leaves_the_addresses_and_says_so() {
    let peer = Peer::answering(|_| answer(200, ""));
    let (builder, path) = listening(&peer, "'127.0.0.1:0', ");
    let proxy = builder.start();
    let other = TestProxy::builder().provider("P", "anthropic", &peer.url(), "auth_value: fixed");
    let notes = proxy.reload(&other).json()["notes"].to_string();
    assert_eq!(notes, "[\"settings.listen takes effect at the next start\"]");
    assert_eq!(ask_unix(&path, get("/-/healthy")).status, 200);
}

#[test]
fn the_watchdog_asks_a_unix_socket_too() {
    let (told, stages) = crossbeam_channel::unbounded();
    let tell = move |stage: &Stage| drop(told.send(stage.clone()));
    let peer = Peer::answering(|_| answer(200, ""));
    let (builder, path) = listening(&peer, "");
    let supervisor = Supervisor::from_fn(tell, Some(Duration::from_millis(200)));
    let _proxy = builder.supervisor(supervisor).start();
    let line = format!("Listening on unix:{}; 1 of 1", path.display());
    let next = || stages.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(next(), Stage::Ready(status) if status.starts_with(&line)));
    assert!(matches!(next(), Stage::Alive(_)));
    fs::remove_file(&path).unwrap();
    // A sign of life may be under way.
    while stages.recv_timeout(Duration::from_millis(600)).is_ok() {}
}

#[test]
fn the_binary_listens_with_the_mode_that_was_asked_for() {
    let folder = configured("'127.0.0.1:0', 'unix:SOCKET?mode=0660'");
    let path = folder.path().join("s");
    let file = folder.path().join("providers.yaml");
    let configuration =
        fs::read_to_string(&file).unwrap().replace("SOCKET", path.to_str().unwrap());
    fs::write(&file, &configuration).unwrap();
    // As if an earlier one had been killed.
    drop(UnixListener::bind(&path).unwrap());
    let script = format!("umask 077; exec {} run", env!("CARGO_BIN_EXE_evertoken"));
    let mut first = Binary::start_shell(folder.path(), &script, &KEY);
    first.wait_for(&format!("Listening on unix:{}", path.display()));
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o660);
    assert_eq!(ask(first.address(), get("/-/healthy")).status, 200);
    assert_eq!(ask_unix(&path, get("/-/healthy")).status, 200);

    let second = run(folder.path(), &["run"], &KEY);
    assert_eq!(second.status.code(), Some(69));
    let told = text(&second.stderr);
    let owner =
        format!("the socket is in use by evertoken, process {}; settings.listen", first.id());
    assert!(told.contains(&owner), "{told}");
    assert_eq!(ask_unix(&path, get("/-/healthy")).status, 200, "the first one is unharmed");

    // The configuration names the socket alone for these.
    fs::write(&file, configuration.replace("'127.0.0.1:0', ", "")).unwrap();
    let url = format!("unix:{}", path.display());
    for arguments in [&["status"][..], &["status", "--url", &url], &["status", "--quiet"]] {
        let status = run(folder.path(), arguments, &KEY);
        assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    }
    let reload = run(folder.path(), &["reload"], &KEY);
    assert_eq!(reload.status.code(), Some(0), "{}", text(&reload.stderr));
    assert!(text(&reload.stdout).contains("in use now"));
    first.signal(Signal::TERM);
    assert_eq!(first.code(), Some(0));
    assert!(!path.exists());
    let status = run(folder.path(), &["status"], &KEY);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stderr).contains("is it running?"), "{}", text(&status.stderr));
    let reload = run(folder.path(), &["reload"], &KEY);
    assert!(text(&reload.stderr).contains("No visible evertoken listens on unix:"));
}

/// The folder of the tokens was made after the addresses were bound, so the first start failed.
#[test]
fn a_socket_in_the_state_folder_needs_no_earlier_start() {
    let folder = configured("'unix:FOLDER/state/s'");
    let file = folder.path().join("providers.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    let running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for("Listening on unix:");
    assert_eq!(ask_unix(&folder.path().join("state/s"), get("/-/healthy")).status, 200);
}

#[test]
fn what_stands_in_the_way_of_a_socket_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("file");
    fs::write(&taken, "mine").unwrap();
    let nowhere = folder.path().join("none/s");
    for (path, part) in [
        (&taken, "a file stands there that is no socket, and it is left alone"),
        (&nowhere, "its folder does not exist"),
    ] {
        let configured = configured(&format!("'unix:{}'", path.display()));
        let output = run(configured.path(), &["run"], &KEY);
        assert_eq!(output.status.code(), Some(69));
        let told = text(&output.stderr);
        assert!(told.contains(part) && told.contains("can't listen on unix:"), "{told}");
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
    let configured = configured(&format!("'unix:{}'", taken.display()));
    let check = run(configured.path(), &["check"], &KEY);
    assert_eq!(check.status.code(), Some(78));
    assert!(
        text(&check.stderr).contains("file: a file stands there that is no socket"),
        "{}",
        text(&check.stderr)
    );
}

/// It asked the first one alone.
#[test]
fn status_asks_the_next_address_if_the_first_one_can_t_be_asked() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = configured(&format!("'unix:FOLDER/closed/s', '{free}'"));
    let at = |name: &str| folder.path().join(name);
    let file = at("providers.yaml");
    let configuration =
        fs::read_to_string(&file).unwrap().replace("FOLDER", folder.path().to_str().unwrap());
    fs::write(&file, &configuration).unwrap();
    fs::create_dir(at("closed")).unwrap();
    let mut running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for(&format!("Listening on http://{free}"));
    let allow =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(&at("closed"), 0);
    allow(folder.path(), 0o755);
    // Root may connect to every socket.
    let as_nobody = |arguments: &str| {
        let script = format!(
            "if [ $(id -u) = 0 ]; then exec setpriv --reuid 65534 --clear-groups {0} {arguments}; fi; exec {0} {arguments}",
            env!("CARGO_BIN_EXE_evertoken")
        );
        Binary::start_shell(folder.path(), &script, &[KEY[0], ("PATH", "/usr/bin:/bin")])
    };
    for form in ["", "--quiet", "--json"] {
        let mut status = as_nobody(&format!("status {form}"));
        assert_eq!(status.code(), Some(0), "{:?}", status.lines());
    }
    let mut closed = as_nobody(&format!("status --url unix:{}/closed/s", folder.path().display()));
    assert_eq!(closed.code(), Some(1));
    let line = closed.wait_for("Permission denied");
    assert!(line.contains("run this as the user that runs evertoken, or as root"), "{line}");
    assert!(!line.contains("is it running?"), "{line}");
    running.signal(Signal::TERM);
    assert_eq!(running.code(), Some(0));
    // Both have a line.
    let status = run(folder.path(), &["status"], &KEY);
    assert_eq!(status.status.code(), Some(1));
    let told = text(&status.stderr);
    assert!(told.contains("closed/s can't be reached"), "{told}");
    assert!(told.contains(&format!("http://{free} can't be reached")), "{told}");
}

#[test]
fn a_url_with_a_relative_path_is_told_as_such() {
    let folder = configured("'127.0.0.1:0'");
    let status = run(folder.path(), &["status", "--url", "unix:run/s"], &KEY);
    assert_eq!(status.status.code(), Some(2));
    let told = text(&status.stderr);
    assert!(told.contains("write the absolute path of a socket file"), "{told}");
}

/// The advice was to set `settings.tls`, which is not for unix sockets.
#[test]
fn a_client_that_speaks_tls_to_a_unix_socket_is_told_what_helps() {
    let folder = configured("'unix:FOLDER/s'");
    let file = folder.path().join("providers.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    let running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for("Listening on unix:");
    let mut client = Client::connect_unix(&folder.path().join("s"));
    client.send(b"\x16\x03\x01\x00\x05hello");
    client.rest(&mut Vec::new());
    let line = running.wait_for("it speaks TLS, and unix sockets take plain HTTP");
    assert!(!line.contains("give evertoken a certificate"), "{line}");
    if cfg!(not(feature = "portable")) {
        assert!(line.contains(&format!("from process {}", std::process::id())), "{line}");
    }
}

/// `--listen`, as in the container, came without the warning.
#[test]
fn an_address_of_the_command_line_that_others_reach_without_tls_is_told_once() {
    let tls = ", tls: {cert_file: cert.pem, key_file: key.pem}";
    for (host, more, listen, told) in [
        (
            "127.0.0.1",
            "",
            "0.0.0.0:0",
            Some("--listen: other machines reach 0.0.0.0:0 without TLS"),
        ),
        (
            "0.0.0.0",
            "",
            "[::]:0",
            Some("providers.yaml:1:18: other machines reach 0.0.0.0:0 without"),
        ),
        ("127.0.0.1", "", "127.0.0.1:0", None),
        ("127.0.0.1", tls, "0.0.0.0:0", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        Pair::new().write(folder.path());
        let text = format!(
            "settings: {{host: '{host}', port: 0, state_dir: state, auth: {{enabled: true, api_key_env: KEY}}{more}}}\n\
             providers: [{{name: P, type: generic, base_url: \"http://127.0.0.1:9\", auth_value_env: KEY}}]\n"
        );
        fs::write(folder.path().join("providers.yaml"), text).unwrap();
        let running = Binary::start(folder.path(), &["run", "--listen", listen], &KEY);
        running.wait_for("Listening on ");
        let lines = running.lines();
        let warnings: Vec<_> = lines.iter().filter(|line| line.contains("without TLS")).collect();
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{lines:#?}");
        let is_right =
            |line: &&String| told.is_some_and(|told| line.contains(&format!("[WARN] {told}")));
        assert!(warnings.iter().all(is_right), "{lines:#?}");
    }
}
