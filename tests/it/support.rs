//! The tests' shared parts: a proxy to start, peers that follow a script, a raw client.

pub(crate) mod binary;
pub(crate) mod cases;
pub(crate) mod client;
pub(crate) mod engine;
pub(crate) mod issuer;
pub(crate) mod lockstep;
pub(crate) mod own_tls;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod world;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for anything that must happen before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds`, and fails the test where that does not come.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test waits for a condition in real time")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes `path` a state folder that can be read, and into which nobody, not even root, can write. Where it is
/// removed, a folder can be made in its place.
pub(crate) fn unwritable(path: &Path) {
    std::os::unix::fs::symlink("/proc/sys", path).expect("there is nothing yet");
}

/// Writes a program. A process of its own does it: if this one had the file open, a child that another thread has just
/// forked would have it open too, and until that runs its program nobody could run this one (`ETXTBSY`).
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path);
    let mut shell = shell.stdin(Stdio::piped()).spawn().expect("there is a shell");
    shell.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    assert!(shell.wait().expect("it ends").success(), "{}", path.display());
}

/// Copies a program, in a process of its own for the same reason.
#[cfg(feature = "slow-tests")]
pub(crate) fn copy_program(from: &str, to: &Path) {
    let done = Command::new("cp").arg(from).arg(to).status().expect("there is cp");
    assert!(done.success(), "{}", to.display());
}
