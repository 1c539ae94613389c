//! `evertoken token` and `evertoken exec`: for tools that can't be pointed at a proxy.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::Signal;

use crate::support::binary::{Binary, command, need_signal, run, text};
use crate::support::issuer::StrictIssuer;
use crate::support::peer::{Peer, answer};
use crate::support::{eventually, unwritable};

const VARIABLES: [(&str, &str); 3] =
    [("ID", "the-client"), ("SEED", "the-seed"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];

/// A folder with a configuration of one provider with tokens of `token_url`, and one with a fixed credential; `SOCKET`
/// in the settings is the path of a socket there.
fn configured(settings: &str, token_url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let settings = settings.replace("SOCKET", socket.to_str().unwrap());
    let text = format!(
        "settings: {{state_dir: state{settings}}}\nproviders:\n- {{name: The Provider, type: generic, base_url: \
         \"http://127.0.0.1:9\", auto_refresh_config: {{token_url: '{token_url}', client_id_env: ID, client_auth: none, \
         refresh_token_env: SEED}}}}\n- {{name: Fixed, type: generic, base_url: \"http://127.0.0.1:9\", auth_value: \
         fixed-secret}}\n"
    );
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    folder
}

#[track_caller]
fn token(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, &[&["token"], arguments].concat(), &VARIABLES);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The reason why there is no token.
#[track_caller]
fn no_token(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "", "stdout is for tokens");
    assert_eq!(text(&output.stderr).lines().count(), 1, "one line: {}", text(&output.stderr));
    text(&output.stderr)
}

/// Makes the stored access token one that ended long ago, and is otherwise as good as before.
fn let_it_expire(folder: &Path) {
    let path = folder.join("state/the-provider.json");
    let mut state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (name, at) in [
        ("obtained_at", "2026-11-01T00:00:00Z"),
        ("refresh_at", "2026-11-01T00:30:00Z"),
        ("expires_at", "2026-11-01T01:00:00Z"),
    ] {
        let member = &mut state["access"][name];
        assert!(member.is_string() || member.is_number(), "{name}");
        *member = at.into();
    }
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn a_good_token_is_printed_as_it_is_and_an_ended_one_is_refreshed() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    assert_eq!(token(folder.path(), &[]), "access-the-seed-1\n");
    let state = fs::read_to_string(folder.path().join("state/the-provider.json")).unwrap();
    for arguments in [&[][..], &["--provider", "the-provider"], &["-p", "The Provider"]] {
        assert_eq!(token(folder.path(), arguments), "access-the-seed-1\n");
    }
    assert_eq!(issuer.presented(), ["the-seed"], "nothing is rotated");
    assert_eq!(fs::read_to_string(folder.path().join("state/the-provider.json")).unwrap(), state);
    let_it_expire(folder.path());
    assert_eq!(token(folder.path(), &[]), "access-the-seed-2\n");
    assert_eq!(issuer.presented(), ["the-seed", "refresh-the-seed-1"]);
}

#[test]
fn an_expired_token_is_never_printed() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    token(folder.path(), &[]);
    let_it_expire(folder.path());
    issuer.refuse_next(503, "");
    let output = run(folder.path(), &["token"], &VARIABLES);
    let why = no_token(&output);
    assert!(why.contains("No valid token for The Provider") && !why.contains("access-"), "{why}");
    assert!(why.contains("503"), "{why}");
    issuer.refuse_next(400, r#"{"error":"invalid_grant"}"#);
    issuer.refuse_next(400, r#"{"error":"invalid_grant"}"#);
    let why = no_token(&run(folder.path(), &["token", "--format", "header"], &VARIABLES));
    assert!(why.contains("invalid_grant") && why.contains("No valid token"), "{why}");
    // A permanent failure is remembered: the issuer is not asked again by each call.
    let asked = issuer.presented().len();
    let why = no_token(&run(folder.path(), &["token"], &VARIABLES));
    assert!(why.contains("No valid token"), "{why}");
    assert_eq!(issuer.presented().len(), asked, "{why}");
}

#[test]
fn many_at_once_refresh_once() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    token(folder.path(), &[]);
    let_it_expire(folder.path());
    let start = |_| {
        let mut started = command(folder.path(), &["token"], &VARIABLES);
        started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<_> = (0..8).map(start).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), "access-the-seed-2\n", "{}", text(&output.stderr));
    }
    assert_eq!(issuer.presented(), ["the-seed", "refresh-the-seed-1"]);
    assert_eq!(issuer.revoked(), [""; 0]);
}

#[test]
fn the_running_instance_gives_its_token_where_it_may() {
    let issuer = StrictIssuer::start(3600);
    for (settings, is_asked) in [
        (", listen: ['unix:SOCKET'], token_endpoint: true", true),
        (
            ", listen: ['127.0.0.1:0', 'unix:SOCKET'], token_endpoint: true, auth: {enabled: true, api_key: k}",
            true,
        ),
        (", listen: ['unix:SOCKET']", false),
        (", port: 0", false),
    ] {
        let before = issuer.presented().len();
        let folder = configured(settings, &issuer.url());
        let variables = VARIABLES.map(|(name, value)| {
            let seed = format!("seed-{before}");
            (name, if name == "SEED" { seed } else { value.to_owned() })
        });
        let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
        issuer.knows(&format!("seed-{before}"));
        let mut running = Binary::start(folder.path(), &["run"], &variables);
        running.wait_for("Successfully refreshed");
        let printed = run(folder.path(), &["token"], &variables);
        assert_eq!(
            text(&printed.stdout),
            format!("access-seed-{before}-1\n"),
            "{}",
            text(&printed.stderr)
        );
        assert_eq!(issuer.presented().len(), before + 1, "the running one alone refreshed");
        running.signal(Signal::TERM);
        running.code();
        let handed = running
            .lines()
            .iter()
            .any(|line| line.contains("Handed out the token of provider: The Provider"));
        assert_eq!(handed, is_asked, "{settings}");
        assert!(running.lines().iter().all(|line| !line.contains("access-seed")));
        // Without it, the state folder has the token.
        let printed = run(folder.path(), &["token"], &variables);
        assert_eq!(text(&printed.stdout), format!("access-seed-{before}-1\n"));
    }
}

#[test]
fn a_running_instance_without_a_token_says_why() {
    let issuer = Peer::answering(|_| answer(400, r#"{"error":"invalid_grant"}"#));
    let folder = configured(", listen: ['unix:SOCKET'], token_endpoint: true", &issuer.url());
    let running = Binary::start(folder.path(), &["run"], &VARIABLES);
    running.wait_for("Failed to refresh");
    let asked = issuer.seen().len();
    let why = no_token(&run(folder.path(), &["token"], &VARIABLES));
    assert!(
        why.contains("No valid token for The Provider") && why.contains("invalid_grant"),
        "{why}"
    );
    assert_eq!(why.lines().count(), 1, "{why}");
    assert_eq!(issuer.seen().len(), asked, "it knows, so nobody asks the issuer again");
}

#[test]
fn the_forms_of_a_token() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    assert_eq!(
        token(folder.path(), &["--format", "header"]),
        "Authorization: Bearer access-the-seed-1\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&token(folder.path(), &["--format", "json"])).unwrap();
    assert_eq!(
        (&json["access_token"], &json["token_type"]),
        (&"access-the-seed-1".into(), &"Bearer".into())
    );
    assert!((3500..=3600).contains(&json["expires_in"].as_i64().unwrap()), "{json}");
    let arguments = ["token", "--format", "exec-credential"];
    let beta = r#"{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","spec":{"interactive":false}}"#;
    for (info, version) in [("", "v1"), (beta, "v1beta1")] {
        let variables = [&VARIABLES[..], &[("KUBERNETES_EXEC_INFO", info)]].concat();
        let output = run(folder.path(), &arguments, &variables);
        let json: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        assert_eq!(json["apiVersion"], format!("client.authentication.k8s.io/{version}"));
        assert_eq!(
            (&json["kind"], &json["status"]["token"]),
            (&"ExecCredential".into(), &"access-the-seed-1".into())
        );
        assert_eq!(
            json["status"]["expirationTimestamp"].as_str().unwrap().len(),
            "2027-01-15T08:00:00Z".len()
        );
    }
    let variables = [&VARIABLES[..], &[("KUBERNETES_EXEC_INFO", "x")]].concat();
    assert!(no_token(&run(folder.path(), &arguments, &variables)).contains("KUBERNETES_EXEC_INFO"));
}

#[test]
fn who_is_asked_for_and_has_none_is_told() {
    let folder = configured("", "http://127.0.0.1:9");
    let why = no_token(&run(folder.path(), &["token", "-p", "fixed"], &VARIABLES));
    assert!(why.contains("Fixed has no access token") && !why.contains("fixed-secret"), "{why}");
    let unknown = run(folder.path(), &["token", "-p", "none"], &VARIABLES);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("there are: the-provider, fixed"));
    let path = folder.path().join("providers.yaml");
    let key_file = "- {name: Key File, type: generic, base_url: \"http://127.0.0.1:9\", auth_value_file: key}\n";
    fs::write(folder.path().join("key"), "fixed-secret").unwrap();
    fs::write(&path, fs::read_to_string(&path).unwrap() + key_file).unwrap();
    let why = no_token(&run(folder.path(), &["token", "-p", "key-file"], &VARIABLES));
    assert!(why.contains("Key File has no access token") && !why.contains("fixed-secret"), "{why}");
    let kept = "- {name: Kept, type: generic, base_url: \"http://127.0.0.1:9\", auto_refresh_config: {credentials_file: \
                'kept', credentials_fields: {access_token: a, expires_at: e}}}\n";
    fs::write(&path, fs::read_to_string(&path).unwrap() + kept).unwrap();
    let several = run(folder.path(), &["token"], &VARIABLES);
    assert_eq!(several.status.code(), Some(2));
    assert!(
        text(&several.stderr).contains("--provider: the-provider, kept"),
        "{}",
        text(&several.stderr)
    );
    let file = folder.path().join("kept");
    fs::write(&file, r#"{"a":"of-a-file","e":1900000000}"#).unwrap();
    assert_eq!(token(folder.path(), &["-p", "kept"]), "of-a-file\n");
    fs::write(&file, r#"{"a":"of-a-file","e":1700000000}"#).unwrap();
    assert!(
        no_token(&run(folder.path(), &["token", "-p", "kept"], &VARIABLES)).contains("expired")
    );
    fs::write(&path, "settings: {prot: 1}\n").unwrap();
    assert_eq!(run(folder.path(), &["token"], &VARIABLES).status.code(), Some(78));
}

#[test]
fn a_command_that_prints_a_token_runs_for_each_call() {
    let folder = tempfile::tempdir().unwrap();
    let text = "settings: {state_dir: state}\nproviders:\n- {name: C, type: generic, base_url: \"http://127.0.0.1:9\", \
                auto_refresh_config: {token_command: [sh, -c, 'echo of-a-command; echo x >> count']}}\n";
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    for count in ["x\n", "x\nx\n"] {
        let output = run(folder.path(), &["token"], &VARIABLES);
        assert_eq!(text_of(&output), "of-a-command\n");
        assert_eq!(fs::read_to_string(folder.path().join("count")).unwrap(), count);
    }
    let path = folder.path().join("providers.yaml");
    fs::write(&path, text.replace("echo of-a-command;", "exit 3;")).unwrap();
    let why = no_token(&run(folder.path(), &["token"], &VARIABLES));
    assert!(why.contains("No valid token for C") && why.contains("exit code 3"), "{why}");
}

#[test]
fn nobody_who_reads_is_no_panic() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    token(folder.path(), &[]);
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut started = command(folder.path(), &["token"], &VARIABLES);
    let output =
        started.stdout(write).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), ""));
}

#[test]
fn a_variable_that_the_running_instance_alone_has_is_no_obstacle() {
    let issuer = StrictIssuer::start(3600);
    let settings = ", listen: ['unix:SOCKET'], token_endpoint: true, auth: {enabled: true}";
    let folder = configured(settings, &issuer.url());
    let with_key = [&VARIABLES[..], &[("EVERTOKEN_API_KEY", "k")]].concat();
    let running = Binary::start(folder.path(), &["run"], &with_key);
    running.wait_for("Successfully refreshed");
    assert_eq!(token(folder.path(), &[]), "access-the-seed-1\n");
}

#[test]
fn a_command_runs_with_the_token_and_takes_the_place_of_evertoken() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    let exec = |arguments: &[&str]| {
        run(
            folder.path(),
            &[&["exec", "--env", "A", "--env", "B", "--"], arguments].concat(),
            &VARIABLES,
        )
    };
    let output = exec(&["sh", "-c", "echo $A $B $1 $ID; exit 7", "sh", "--env"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "access-the-seed-1 access-the-seed-1 --env the-client\n");
    let killed = exec(&["sh", "-c", "kill -TERM $$"]);
    assert_eq!(killed.status.signal(), Some(15), "a shell shows 143");
    // A pipe that nobody reads ends the command as in a shell.
    assert_eq!(exec(&["sh", "-c", "kill -PIPE $$"]).status.signal(), Some(13));
    let missing = exec(&["no-such-command-here"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(
        text(&missing.stderr).contains("no-such-command-here can't be run: "),
        "{}",
        text(&missing.stderr)
    );
    fs::write(folder.path().join("plain"), "x").unwrap();
    assert_eq!(exec(&["./plain"]).status.code(), Some(126));
    assert_eq!(exec(&["./"]).status.code(), Some(126));
    let no_token =
        run(folder.path(), &["exec", "-p", "fixed", "--env", "A", "--", "true"], &VARIABLES);
    assert_eq!(no_token.status.code(), Some(1));
    assert_eq!(issuer.presented(), ["the-seed"]);
}

#[test]
fn signals_reach_the_command() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    let script = "for s in INT HUP QUIT USR1 USR2 WINCH; do trap \"echo $s\" $s; done; trap 'echo TERM; exit 3' TERM; \
                  echo ready; while :; do read -r line || :; done";
    // Before the child begins, which nobody would end.
    for signal in [Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::TERM]
    {
        need_signal(signal);
    }
    let mut started =
        command(folder.path(), &["exec", "--env", "A", "--", "sh", "-c", script], &VARIABLES);
    let mut child = started.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut out = child.stdout.take().unwrap();
    let mut hear = |part: &str| {
        while !said.contains(part) {
            let mut piece = [0; 64];
            let count = out.read(&mut piece).unwrap();
            assert!(count > 0, "{said}");
            said.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
    };
    hear("ready\n");
    let id = rustix::process::Pid::from_child(&child);
    for (signal, name) in [
        (Signal::INT, "INT\n"),
        (Signal::HUP, "HUP\n"),
        (Signal::QUIT, "QUIT\n"),
        (Signal::USR1, "USR1\n"),
        (Signal::USR2, "USR2\n"),
        (Signal::WINCH, "WINCH\n"),
        (Signal::TERM, "TERM\n"),
    ] {
        rustix::process::kill_process(id, signal).unwrap();
        hear(name);
    }
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn no_output_but_the_token_holds_a_secret_at_trace_level() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    let variables = [&VARIABLES[..], &[("RUST_LOG", "trace")]].concat();
    for arguments in [&["token"][..], &["exec", "--env", "A", "--", "true"]] {
        let output = run(folder.path(), arguments, &variables);
        assert_eq!(output.status.code(), Some(0));
        let told = text(&output.stderr);
        assert!(arguments[0] == "exec" || told.contains("Starting token refresh"), "{told}");
        for secret in ["the-seed", "access-the", "refresh-the", "the-client"] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
    }
}

/// A signal ended the command at once: the issuer had used up the refresh token, and the next one was lost.
#[test]
fn a_signal_during_a_refresh_costs_no_refresh_token() {
    for arguments in [&["token"][..], &["refresh"], &["exec", "--env", "A", "--", "true"]] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let issuer = StrictIssuer::start(3600);
            let folder = configured("", &issuer.url());
            let held = issuer.hold_next();
            let mut started = Binary::start(folder.path(), arguments, &VARIABLES);
            eventually("the issuer is asked", || issuer.presented().len() == 1);
            started.signal(signal);
            started.wait_for("a second signal ends this at once");
            drop(held);
            assert_eq!(started.code(), None, "it ends by the signal");
            assert_eq!(
                token(folder.path(), &[]),
                "access-the-seed-1\n",
                "{arguments:?} {signal:?}"
            );
            assert_eq!(issuer.presented(), ["the-seed"]);
        }
    }
}

#[test]
fn a_second_signal_ends_a_command_at_once() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    let held = issuer.hold_next();
    let mut started = Binary::start(folder.path(), &["token"], &VARIABLES);
    eventually("the issuer is asked", || issuer.presented().len() == 1);
    started.signal(Signal::INT);
    started.wait_for("a second signal ends this at once");
    started.signal(Signal::TERM);
    assert_eq!(started.code(), None);
    drop(held);
}

/// `nohup` and a shell's background jobs ignore signals, and what they start is to ignore them too.
#[test]
fn signals_that_are_ignored_stay_so_for_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let text = "settings: {state_dir: state}\nproviders:\n- {name: C, type: generic, base_url: \"http://127.0.0.1:9\", \
                auto_refresh_config: {token_command: [echo, of-a-command]}}\n";
    fs::write(folder.path().join("providers.yaml"), text).unwrap();
    let script = format!(
        "trap '' HUP INT; exec {} exec --env A -- grep SigIgn /proc/self/status",
        env!("CARGO_BIN_EXE_evertoken")
    );
    let shell = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = text_of(&shell);
    let set = u64::from_str_radix(said.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(set & 0b11, 0b11, "{said}");
}

/// The refresh token was used up, and the next one could not be stored.
#[test]
fn a_command_spends_no_refresh_token_whose_successor_it_can_t_store() {
    for arguments in [&["token"][..], &["refresh"], &["exec", "--env", "A", "--", "true"]] {
        let issuer = StrictIssuer::start(3600);
        let folder = configured("", &issuer.url());
        unwritable(&folder.path().join("state"));
        let output = run(folder.path(), arguments, &VARIABLES);
        let why = text(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
        assert!(why.contains("can't be written") && why.contains("settings.state_dir"), "{why}");
        assert_eq!(issuer.presented(), [""; 0], "{arguments:?}");
        fs::remove_file(folder.path().join("state")).unwrap();
        assert_eq!(token(folder.path(), &[]), "access-the-seed-1\n");
    }
}

/// The tokens of an instance of another user are not ours to refresh: two chains from one seed end each other.
#[test]
fn an_instance_that_refuses_is_not_gone_around() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured(", listen: ['unix:SOCKET'], token_endpoint: true", &issuer.url());
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let answering = evertoken::testing::spawn("instance", 256 * 1024, move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut head = [0; 4096];
            if connection.read(&mut head).unwrap_or(0) == 0 {
                continue;
            }
            let body =
                r#"{"error":{"code":"not_allowed","message":"Process 7 belongs to user 1001"}}"#;
            let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n", body.len());
            connection.write_all((head + body).as_bytes()).unwrap();
            return;
        }
    });
    let why = no_token(&run(folder.path(), &["token"], &VARIABLES));
    assert!(why.contains("gives no token: Process 7 belongs to user 1001"), "{why}");
    assert_eq!(issuer.presented(), [""; 0]);
    drop(answering);
}

#[test]
fn a_command_that_can_t_be_run_is_told_from_one_whose_interpreter_is_missing() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    let script = folder.path().join("script");
    crate::support::write_program(&script, "#!/no/such/interpreter\n");
    for (command, part) in [("./script", "interpreter"), ("", "'' can't be run")] {
        let output = run(folder.path(), &["exec", "--env", "A", "--", command], &VARIABLES);
        assert_eq!(output.status.code(), Some(127));
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

/// The log had the failure too, and a missing variable that a good token does not need.
#[test]
fn a_stored_token_needs_no_variable_and_no_word() {
    let issuer = StrictIssuer::start(3600);
    let folder = configured("", &issuer.url());
    token(folder.path(), &[]);
    let output = run(folder.path(), &["token", "-p", "the-provider"], &[("ID", "the-client")]);
    assert_eq!(text_of(&output), "access-the-seed-1\n");
    assert_eq!(text(&output.stderr), "");
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let output = run(folder.path(), &["token", "-p", "the-provider"], &[("ID", "the-client")]);
    assert!(no_token(&output).contains("Missing environment variable: 'SEED'"));
}

/// Its tokens are not ours, and its owner must not get our key.
#[test]
fn an_instance_of_another_user_gets_no_key() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can be two users.
    }
    let issuer = StrictIssuer::start(3600);
    let settings =
        ", listen: ['unix:SOCKET'], token_endpoint: true, auth: {enabled: true, api_key: the-key}";
    let folder = configured(settings, &issuer.url());
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(folder.path(), 0o755);
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let ask = || {
        let mut asked = command(folder.path(), &["token"], &VARIABLES);
        std::os::unix::process::CommandExt::uid(&mut asked, 65534);
        asked.output()
    };
    for (mode, part) in
        [(0o600, "Permission denied"), (0o666, "of user 0, which gives us no token")]
    {
        open(&socket, mode);
        // Another user may not be able to reach the program.
        let Ok(output) = ask() else { return };
        let why = no_token(&output);
        assert!(why.contains(part), "{why}");
    }
    listener.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    while let Ok((mut connection, _)) = listener.accept() {
        connection.read_to_end(&mut heard).unwrap();
    }
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
    assert_eq!(issuer.presented(), [""; 0]);
}
