//! The real binary as a child process, its stderr gathered line by line.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Pid;
use tempfile::TempDir;

use super::eventually;

/// A running `evertoken`. Dropping it kills it.
pub(crate) struct Binary {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// The command with an empty environment but for `variables`.
pub(crate) fn command(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evertoken"));
    command.args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(folder, arguments, variables).output().expect("the binary runs")
}

/// The bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Gathers the lines of `output` on a thread of its own.
fn collect(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = lines.clone();
    let read = move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    };
    evertoken::testing::spawn("output", 256 * 1024, read).unwrap().detach();
}

impl Binary {
    /// Starts it in `folder`.
    pub(crate) fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::gather(command(folder, arguments, variables))
    }

    /// Starts it with somebody at the keyboard; what it says to them is gathered too.
    pub(crate) fn start_talking(
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (Self, ChildStdin) {
        let mut command = command(folder, arguments, variables);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdin = child.stdin.take().expect("it is piped");
        let lines = Arc::default();
        collect(child.stdout.take().expect("it is piped"), &lines);
        collect(child.stderr.take().expect("it is piped"), &lines);
        (Self { child, lines }, stdin)
    }

    /// Starts it from a shell, with limits of its own.
    pub(crate) fn start_shell(folder: &Path, script: &str, variables: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).current_dir(folder).env_clear();
        shell.envs(variables.iter().copied()).stdin(Stdio::null());
        Self::gather(shell)
    }

    /// Starts it from a shell whose standard input and output are these.
    pub(crate) fn start_shell_with(
        folder: &Path,
        script: &str,
        variables: &[(&str, &str)],
        stdin: OwnedFd,
        stdout: Option<OwnedFd>,
    ) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).current_dir(folder).env_clear();
        shell.envs(variables.iter().copied()).stdin(Stdio::from(stdin));
        Self::gather_with(shell, stdout.map_or_else(Stdio::null, Stdio::from))
    }

    fn gather(command: Command) -> Self {
        Self::gather_with(command, Stdio::null())
    }

    fn gather_with(mut command: Command, stdout: Stdio) -> Self {
        let mut child =
            command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("it is piped");
        let lines = Arc::default();
        collect(stderr, &lines);
        Self { child, lines }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The id of the process that it traces, where it is strace.
    #[cfg(feature = "slow-tests")]
    pub(crate) fn traced(&self) -> Pid {
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.trim().parse().ok().and_then(Pid::from_raw).expect("it has one child")
    }

    /// Its lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line that holds `part`.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let mut found = None;
        eventually(&format!("a line with '{part}' in {:#?}", self.lines()), || {
            found = self.lines().into_iter().find(|line| line.contains(part));
            found.is_some()
        });
        found.unwrap()
    }

    /// Its address.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.wait_for("Listening on http");
        // In JSON the message ends with a quotation mark.
        let address = line.split("://").nth(1).and_then(|rest| rest.split('"').next());
        address.and_then(|address| address.parse().ok()).expect("an address")
    }

    /// Sends a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        need_signal(signal);
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(id.expect("it has an id"), signal).expect("it runs");
    }

    /// Waits for its end; its exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends, and all that it wrote is read", || {
            status = status.or_else(|| self.child.try_wait().expect("it is ours"));
            // Each reader holds the lines until its stream ends.
            status.is_some() && Arc::strong_count(&self.lines) == 1
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails where the tests ignore `signal`, and so all that they start does: a test would wait for its effect for ever.
#[track_caller]
pub(crate) fn need_signal(signal: rustix::process::Signal) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = field.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    let is_ignored = ignored >> (signal.as_raw() - 1) & 1 == 1;
    assert!(
        !is_ignored,
        "{signal:?} is ignored, as by `nohup` or a script's `&`: run the tests without it"
    );
}

/// A folder whose configuration has one provider, `The P`, with these lines in its `auto_refresh_config`.
pub(crate) fn folder_with_the_p(provider: &str, keys: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = keys.lines().map(|line| format!("      {line}\n")).collect();
    let config = format!(
        "settings: {{port: 0, state_dir: '{}/state'}}\nproviders:\n  - name: The P\n    type: generic\n    \
         base_url: {provider}\n    auto_refresh_config:\n      client_id_env: ID\n{lines}",
        folder.path().display(),
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    folder
}
