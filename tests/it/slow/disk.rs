//! Disks that are full, read-only or vanish, files that make no sense, and kills in the middle of a write.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Options, Sandbox};

use super::alone;
use crate::support::binary::{Binary, run, text};
use crate::support::client::{Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

fn sandbox(lifetime_secs: u64, overlap_secs: u64) -> Sandbox {
    let lifetime = Duration::from_secs(lifetime_secs);
    let overlap = Duration::from_secs(overlap_secs);
    Sandbox::start(Options { lifetime, overlap, ..Options::default() }).unwrap()
}

/// A folder with a configuration for `url`, its state in `state`.
fn folder(url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "settings: {{port: 0, state_dir: \"{}\"}}\nproviders:\n  - name: P\n    type: anthropic\n    \
         base_url: \"{url}\"\n    auto_refresh_config:\n      enabled: true\n      token_url: \
         \"{url}/oauth/token\"\n      client_id_env: ID\n      client_secret_env: SECRET\n      \
         refresh_token_env: TOKEN\n",
        folder.path().join("state").display()
    );
    std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
    folder
}

/// The environment that goes with a sandbox and a login.
struct Login(String, String);

impl Login {
    fn at(sandbox: &Sandbox) -> Self {
        Self(sandbox.client_secret(), sandbox.login())
    }

    fn variables(&self) -> [(&str, &str); 4] {
        let id = sandbox::issuer::CLIENT_ID;
        [
            ("ID", id),
            ("SECRET", &self.0),
            ("TOKEN", &self.1),
            ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
        ]
    }
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state/p.json")
}

fn evertoken() -> &'static str {
    env!("CARGO_BIN_EXE_evertoken")
}

const MESSAGE: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;

#[track_caller]
fn works(binary: &Binary) {
    assert_eq!(ask(binary.address(), post("/v1/messages", MESSAGE)).status, 200);
}

/// Starts with a state folder of its own file system, made by `mount`, and mended by `mend` from within.
fn costs_no_token(mount: &str, mend: &str) {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let script = format!("exec unshare -m sh -c '{mount}; exec {} run'", evertoken());
    let binary = Binary::start_shell(folder.path(), &script, &login.variables());
    binary.wait_for("can't be written");
    binary.wait_for("Successfully refreshed");
    works(&binary);
    let ready = ask(binary.address(), get("/-/ready"));
    assert!(ready.body.contains("can't be written"), "{ready:?}");
    let id = binary.id().to_string();
    let mend = format!("cd {} && {mend}", folder.path().display());
    let status = Command::new("nsenter").args(["-t", &id, "-m", "sh", "-c", &mend]).status();
    assert!(status.unwrap().success());
    // The next write is at the next refresh, or 30 s after the failed one.
    eventually("the state is written again", || {
        ask(binary.address(), post("/-/refresh/p", ""));
        binary.lines().iter().any(|line| line.contains("is written again"))
    });
    let inside = format!("/proc/{id}/root{}", state(folder.path()).display());
    assert!(std::fs::read_to_string(inside).unwrap().contains("sandbox-rt-"));
    assert_eq!(sandbox.counts().reused, 0);
}

#[test]
fn a_full_disk_costs_no_token() {
    let fill = "mount -t tmpfs -o size=64k none state; dd if=/dev/zero of=state/fill 2>/dev/null";
    costs_no_token(fill, "rm state/fill");
}

/// The check made an empty file, for which there is room.
#[test]
fn a_check_finds_a_full_disk() {
    let folder = folder("http://127.0.0.1:9");
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let fill = "mount -t tmpfs -o size=64k none state; dd if=/dev/zero of=state/fill 2>/dev/null";
    let script = format!("unshare -m sh -c '{fill}; exec {} check'", evertoken());
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("can't be written") && told.contains("No space left"), "{told}");
}

#[test]
fn a_read_only_disk_costs_no_token() {
    costs_no_token("mount -t tmpfs -o ro none state", "mount -o remount,rw state");
}

#[test]
fn a_credential_file_that_is_replaced_behind_its_own_mount_is_said() {
    let provider = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = |token: &str| format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}"}}}}"#);
    std::fs::write(at("theirs.json"), file("first")).unwrap();
    std::fs::write(at("mounted.json"), "").unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders: [{{name: P, type: generic, base_url: \"{}\", \
         auto_refresh_config: {{credentials_file: ./mounted.json}}}}]\n",
        provider.url()
    );
    std::fs::write(at("providers.yaml"), config).unwrap();
    let mount = "mount --bind theirs.json mounted.json";
    let script = format!("exec unshare -m sh -c '{mount}; exec {} run'", evertoken());
    let variables = [("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")];
    let binary = Binary::start_shell(folder.path(), &script, &variables);
    assert!(ask(binary.address(), get("/x")).body.contains("first"));
    // As a program does that writes beside its file and renames.
    std::fs::write(at("new.json"), file("second")).unwrap();
    std::fs::rename(at("new.json"), at("theirs.json")).unwrap();
    assert!(ask(binary.address(), get("/x")).body.contains("first"), "it can't be seen");
    binary.wait_for("was replaced behind a mount of this one file");
    let ready = ask(binary.address(), get("/-/ready"));
    assert!(ready.body.contains("mount the folder that holds it"), "{ready:?}");
}

#[test]
fn a_state_folder_that_vanishes_is_made_again() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let binary = Binary::start(folder.path(), &["run"], &login.variables());
    binary.wait_for("Successfully refreshed");
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    works(&binary);
    eventually("another refresh", || {
        ask(binary.address(), post("/-/refresh/p", ""));
        sandbox.counts().granted == 2
    });
    eventually("the file is there", || state(folder.path()).exists());
    drop(binary);
    let again = Binary::start(folder.path(), &["run"], &login.variables());
    again.wait_for("Using the stored token");
    works(&again);
    assert_eq!(sandbox.counts().reused, 0);
}

#[test]
fn a_state_file_that_makes_no_sense_is_kept_aside_and_the_seed_tried() {
    let sandbox = sandbox(3600, 3600);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    assert!(run(folder.path(), &["refresh"], &login.variables()).status.success());
    let whole = std::fs::read(state(folder.path())).unwrap();
    for garbage in [
        b"".as_slice(),
        b"\0\0\0\0",
        b"{}",
        b"[1]",
        &whole[..whole.len() / 2],
        &vec![0xff; 2_000_000],
    ] {
        std::fs::write(state(folder.path()), garbage).unwrap();
        let done = run(folder.path(), &["refresh"], &login.variables());
        let said = text(&done.stderr);
        assert!(done.status.success() && said.contains("can't be used"), "{said}");
    }
    let aside = std::fs::read_dir(folder.path().join("state")).unwrap();
    let aside = aside.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("p.json.corrupt-")
    });
    assert_eq!(aside.count(), 6);
}

#[test]
fn a_state_file_of_another_user_is_not_overwritten_and_no_seed_is_spent() {
    let sandbox = sandbox(3600, 3600);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    assert!(run(folder.path(), &["refresh"], &login.variables()).status.success());
    let kept = std::fs::read(state(folder.path())).unwrap();
    let state_dir = folder.path().join("state");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for path in [state_dir.clone(), state_dir.join("p.lock")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // The binary may lie where nobody can go.
    let binary = folder.path().join("evertoken");
    crate::support::copy_program(evertoken(), &binary);
    let done = Command::new("setpriv")
        .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"])
        .args([binary.as_os_str(), "refresh".as_ref()])
        .current_dir(folder.path())
        .env_clear()
        .envs(login.variables())
        .output()
        .unwrap();
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("p.json, which can't be read (Permission denied"), "{said}");
    assert_eq!(std::fs::read(state(folder.path())).unwrap(), kept);
    let left: Vec<_> = std::fs::read_dir(&state_dir).unwrap().collect();
    assert_eq!((left.len(), sandbox.counts().granted), (2, 1), "{left:?}");
}

/// Runs a command while strace injects this into its calls on the file at `path`.
fn injected(
    folder: &Path,
    path: &Path,
    inject: &str,
    command: &str,
    variables: &[(&str, &str)],
) -> Output {
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P", path.to_str().unwrap()])
        .args(["-e", &format!("inject={inject}"), evertoken(), command])
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Any error of the open or the read, which strace injects.
#[test]
fn a_state_file_that_gives_an_error_costs_no_chain() {
    for error in ["EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "EACCES", "ETIMEDOUT"] {
        for call in ["openat", "read"] {
            let sandbox = sandbox(3600, 0);
            let login = Login::at(&sandbox);
            let folder = folder(&sandbox.url());
            assert!(run(folder.path(), &["refresh"], &login.variables()).status.success());
            let kept = std::fs::read(state(folder.path())).unwrap();
            let path = state(folder.path());
            let inject = format!("{call}:error={error}");
            let traced = injected(folder.path(), &path, &inject, "refresh", &login.variables());
            let said = text(&traced.stderr);
            assert_eq!(traced.status.code(), Some(1), "{call} {error}: {said}");
            // A shortage of our own is reported as such.
            let is_told = said.contains("p.json, which can't be read")
                || said.contains("Provider P was not refreshed: waiting since");
            assert!(is_told, "{call} {error}: {said}");
            assert_eq!(std::fs::read(&path).unwrap(), kept, "{call} {error}");
            assert_eq!(sandbox.counts().granted, 1);
            // Afterwards nothing is lost.
            let again = run(folder.path(), &["refresh"], &login.variables());
            assert!(again.status.success(), "{call} {error}: {}", text(&again.stderr));
            assert_eq!(sandbox.counts().reused, 0);
        }
    }
}

/// The state file was replaced each time, and called unwritable for ever.
#[test]
fn a_folder_whose_file_system_can_not_sync_it_is_written_all_the_same() {
    for (error, code) in [("EINVAL", 0), ("EOPNOTSUPP", 0), ("EBADF", 0), ("EIO", 1)] {
        let sandbox = sandbox(3600, 0);
        let login = Login::at(&sandbox);
        let folder = folder(&sandbox.url());
        let state_dir = folder.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        let inject = format!("fsync:error={error}");
        let traced = injected(folder.path(), &state_dir, &inject, "refresh", &login.variables());
        let said = text(&traced.stderr);
        assert_eq!(traced.status.code(), Some(code), "{error}: {said}");
        assert_eq!(said.contains("can't be written"), code != 0, "{error}: {said}");
        assert!(state(folder.path()).exists(), "{error}");
    }
}

/// evertoken, for which each call of a kind on a file takes 25 s. (strace counts the calls of each thread by itself, so
/// it can't be told to delay the first one alone.)
struct Delayed {
    binary: Binary,
    child: Option<Pid>,
}

impl Delayed {
    fn start(folder: &Path, file: &Path, call: &str, login: &Login) -> Self {
        let script = format!(
            "exec strace -f -qq -o /dev/null -P {} -e inject={call}:delay_enter=25000000 {} run",
            file.display(),
            evertoken()
        );
        let binary = Binary::start_shell(folder, &script, &login.variables());
        Self { binary, child: None }
    }

    /// The answer to a request that comes after the disk has not answered for 10 s.
    fn refusal(&mut self) -> String {
        self.binary.wait_for("The refresher of provider P is waiting since");
        self.child = Some(self.binary.traced());
        let answer = ask(self.binary.address(), post("/v1/messages", MESSAGE));
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.body
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        // The tracer's end would leave it running.
        if let Some(child) = self.child {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

#[test]
fn a_disk_that_does_not_answer_is_said_and_waited_for() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let state = folder.path().join("state");
    let mut delayed = Delayed::start(folder.path(), &state, "fsync", &login);
    let refusal = delayed.refusal();
    assert!(refusal.contains("for the disk of the state file"), "{refusal}");
    let status = ask(delayed.binary.address(), get("/-/status")).json();
    let waiting = &status["providers"][0]["waiting"]["for"];
    assert!(waiting.as_str().is_some_and(|what| what.contains("does not answer")), "{status}");
    assert_eq!(sandbox.counts().reused, 0);
}

#[test]
fn a_state_folder_that_does_not_answer_at_the_start_is_said() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    assert!(run(folder.path(), &["refresh"], &login.variables()).status.success());
    let state = state(folder.path());
    let mut delayed = Delayed::start(folder.path(), &state, "openat", &login);
    delayed.binary.wait_for("The configuration is waiting since");
    // The refresher's own look takes as long, and it alone is held up by that.
    eventually("it listens", || {
        delayed.binary.lines().iter().any(|line| line.contains("Listening on"))
    });
    let refusal = delayed.refusal();
    assert!(refusal.contains("does not answer"), "{refusal}");
    assert_eq!((sandbox.counts().granted, sandbox.counts().reused), (1, 0));
}

/// Delays each look of a running process at a file by 25 s, until it is dropped.
struct Delay {
    strace: std::process::Child,
    /// It would end where it can't say something.
    _said: BufReader<std::process::ChildStderr>,
}

impl Delay {
    fn of(binary: &Binary, file: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-p", &binary.id().to_string()]);
        strace.arg("-P").arg(file).args(["-e", "inject=statx:delay_enter=25000000"]);
        let mut strace = strace.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let delay = Self { strace, _said: said };
        assert!(line.contains(" attached"), "{line}");
        delay
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Each request for its provider waited for the disk, and so did each request that asked whether its provider had a
/// credential, and the door with its pages.
#[test]
fn a_credential_file_whose_disk_does_not_answer_holds_up_one_request_alone() {
    let provider = Peer::telling_the_credential();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, r#"{"claudeAiOauth":{"accessToken":"from-file"}}"#).unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state, max_connections: 2, max_connections_per_address: 2}}\nproviders:\n  \
         - {{name: Hung, type: generic, base_url: \"{url}\", auto_refresh_config: {{credentials_file: \"{}\"}}}}\n  \
         - {{name: Other, type: generic, base_url: \"{url}\", auth_value_env: KEY}}\n",
        file.display(),
        url = provider.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[("KEY", "from-variable")]);
    let address = binary.address();
    assert!(ask(address, get("/to/hung/x")).body.contains("from-file"));
    let _delay = Delay::of(&binary, &file);
    // This one looks at the file.
    let mut hanging = Client::connect(address);
    hanging.send(get("/to/hung/x"));
    let mut other = Client::connect(address);
    for (path, credential) in
        [("/to/other/x", "from-variable"), ("/to/hung/x", "from-file"), ("/v1beta/x", "from-file")]
    {
        other.send(get(path));
        let served = other.answer();
        assert!(served.body.contains(credential), "{path}: {served:?}");
    }
    // With all connections in use, the door answers.
    assert_eq!(ask(address, get("/-/ready")).status, 200);
    assert_eq!(ask(address, get("/-/status")).status, 200);
    eventually("it is said", || {
        let ready = ask(address, get("/-/ready"));
        ready.status == 200 && ready.body.contains("its disk does not answer")
    });
}

/// Nobody read the signals before the start was over.
#[test]
fn a_stop_ends_a_start_that_waits_for_a_disk() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    assert!(run(folder.path(), &["refresh"], &login.variables()).status.success());
    let (file, state_dir) = (state(folder.path()), folder.path().join("state"));
    // The look for a chain, and the first of all looks at the disk.
    for (call, path) in [("openat", &file), ("statx", &state_dir)] {
        let mut delayed = Delayed::start(folder.path(), path, call, &login);
        delayed.binary.wait_for("The configuration is waiting since");
        let child = delayed.binary.traced();
        delayed.child = Some(child);
        kill_process(child, Signal::TERM).unwrap();
        assert_eq!(delayed.binary.code(), Some(0), "{call}");
        delayed.child = None;
        let said = delayed.binary.lines().join("\n");
        assert!(said.contains("Stopped before the start was over"), "{call}: {said}");
        assert!(!said.contains("Listening on"), "{call}: {said}");
    }
    assert_eq!((sandbox.counts().granted, sandbox.counts().reused), (1, 0));
}

/// The health check of the image read the configuration, and hung with the disk of a file that this names.
#[test]
fn status_asks_though_the_disk_of_a_credential_file_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, r#"{"claudeAiOauth":{"accessToken":"x"}}"#).unwrap();
    let config = |port: u16| {
        format!(
            "settings: {{port: {port}, state_dir: state}}\nproviders:\n  - {{name: P, type: generic, base_url: 'http://127.0.0.1:9', \
             auto_refresh_config: {{credentials_file: \"{}\"}}}}\n",
            file.display()
        )
    };
    let written = folder.path().join("providers.yaml");
    std::fs::write(&written, config(0)).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[]);
    std::fs::write(&written, config(binary.address().port())).unwrap();
    let inject = "statx,openat:delay_enter=5000000";
    let status = injected(folder.path(), &file, inject, "status", &[]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    assert!(text(&status.stderr).contains("of a file that it names does not answer"));
}

#[test]
fn a_kill_at_any_system_call_of_a_write_costs_no_chain() {
    // An answer that is on its way when the kill comes is saved by the overlap.
    let sandbox = sandbox(3600, 3600);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let mut killed = 0;
    loop {
        let inject = format!(
            "inject=openat,write,fsync,rename,renameat,renameat2,flock,unlink:signal=KILL:when={}",
            killed + 1
        );
        let traced = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=all",
                "-e",
                &inject,
                evertoken(),
                "refresh",
            ])
            .current_dir(folder.path())
            .env_clear()
            .envs(login.variables())
            .output()
            .unwrap();
        let again = run(folder.path(), &["refresh"], &login.variables());
        assert!(again.status.success(), "after call {killed}: {}", text(&again.stderr));
        assert!(!text(&again.stderr).contains("can't be used"), "a whole file at any time");
        if traced.status.success() {
            break;
        }
        killed += 1;
        assert!(killed < 500, "it is never left alone: {}", text(&traced.stderr));
    }
    assert!(killed > 10, "{killed}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("state")).unwrap().collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    assert_eq!(sandbox.counts().reused, 0);
}

#[test]
fn two_processes_on_one_state_folder_use_no_token_twice() {
    let _alone = alone();
    let sandbox = sandbox(2, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let one = Binary::start(folder.path(), &["run"], &login.variables());
    let two = Binary::start(folder.path(), &["run"], &login.variables());
    eventually("several refreshes", || {
        works(&one);
        works(&two);
        sandbox.counts().granted >= 6
    });
    assert_eq!(
        (sandbox.counts().reused, sandbox.counts().refused, sandbox.requests().1),
        (0, 0, 0)
    );
}

#[test]
fn a_stop_during_a_refresh_stores_what_was_rotated() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let issuer = Peer::start(move |mut talk| {
        while talk.request().is_some() {
            let _ = released.recv();
            let grant = r#"{"access_token":"a","refresh_token":"rotated","expires_in":3600}"#;
            talk.send(answer(200, grant));
        }
    });
    let folder = folder(&issuer.url());
    let variables = [("ID", "i"), ("SECRET", "s"), ("TOKEN", "t")];
    let mut binary = Binary::start(folder.path(), &["run"], &variables);
    eventually("the refresh is under way", || issuer.seen().len() == 1);
    binary.signal(Signal::TERM);
    binary.wait_for("Stopping;");
    release.send(()).unwrap();
    assert_eq!(binary.code(), Some(0));
    assert!(std::fs::read_to_string(state(folder.path())).unwrap().contains("rotated"));
}

/// A process that holds the provider's lock until it is dropped, as one would that hangs in a refresh.
struct Holder(std::process::Child);

impl Holder {
    fn of(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("state")).unwrap();
        let lock = folder.join("state/p.lock");
        let script = format!("flock -x {} sh -c 'echo held; exec sleep 120'", lock.display());
        let mut holder = Command::new("setsid")
            .args(["sh", "-c", &format!("exec {script}")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The process group: `sleep` holds the lock too.
        let group = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process_group(group.unwrap(), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn who_holds_the_lock_for_10_s_is_named_in_the_log_the_status_and_the_503() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let holder = Holder::of(folder.path());
    let mut binary = Binary::start(folder.path(), &["run"], &login.variables());
    let line = binary.wait_for("is waiting since");
    let named = format!("another process, process {} (flock), which holds the lock", holder.0.id());
    assert!(line.contains(&named), "{line}");
    let status = ask(binary.address(), get("/-/status")).json();
    let provider = &status["providers"][0];
    for shown in [&provider["problem"], &provider["waiting"]["for"]] {
        assert!(shown.as_str().unwrap().contains(&named), "{provider}");
    }
    let ready = ask(binary.address(), get("/-/ready"));
    assert!(ready.status == 503 && ready.body.contains(&named), "{ready:?}");
    let refused = ask(binary.address(), post("/v1/messages", MESSAGE));
    assert!(refused.status == 503 && refused.body.contains(&named), "{refused:?}");
    drop(holder);
    binary.wait_for("is over after");
    works(&binary);
    let said = binary.lines().iter().filter(|line| line.contains("waiting since")).count();
    assert_eq!(said, 1, "{:?}", binary.lines());
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_who_holds_the_lock() {
    let sandbox = sandbox(3600, 0);
    let login = Login::at(&sandbox);
    let folder = folder(&sandbox.url());
    let _holder = Holder::of(folder.path());
    let mut binary = Binary::start(folder.path(), &["run"], &login.variables());
    binary.wait_for("Listening on");
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    assert_eq!(sandbox.counts().granted, 0);
}
