//! The new start after a panic. Each test runs itself once more as the process that panics.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evertoken::testing::{Program, spawn};

/// Names the folder of the process that panics.
const FOLDER: &str = "EVERTOKEN_TEST_RESTART";
const STACK_BYTES: usize = 256 * 1024;
/// The panicking process has run for as long as it must have to be started again.
const UPTIME: Duration = Duration::from_secs(10);
/// The most time that a process waits for its end by the panic.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs the test `name` as a process of its own, and returns its process ID and the IDs that it wrote, one for each start.
fn starts_of(name: &str) -> (u32, Vec<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().expect("a test is a program");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]).env(FOLDER, folder.path());
    let mut child = command.spawn().unwrap();
    let process = child.id();
    child.wait().unwrap();
    let starts = fs::read_to_string(folder.path().join("starts")).unwrap();
    (process, starts.lines().map(|line| line.parse().unwrap()).collect())
}

/// Notes this process as started; true for its first start.
fn is_first_start(folder: &Path) -> bool {
    let file = folder.join("starts");
    let before = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{before}{}\n", std::process::id())).unwrap();
    before.is_empty()
}

#[expect(clippy::disallowed_methods, reason = "the test runs itself, and tells itself so")]
fn folder_of_panicking() -> Option<OsString> {
    std::env::var_os(FOLDER)
}

#[test]
fn a_thread_that_lasts_and_panics_is_replaced_by_a_new_start_of_the_same_process() {
    let Some(folder) = folder_of_panicking() else {
        let name = "restart::a_thread_that_lasts_and_panics_is_replaced_by_a_new_start_of_the_same_process";
        let (process, starts) = starts_of(name);
        assert_eq!(starts, [process, process], "the same process started twice");
        return;
    };
    if !is_first_start(Path::new(&folder)) {
        return;
    }
    let arguments = std::env::args_os().skip(1).collect();
    let program = Program {
        file: std::env::current_exe().unwrap(),
        arguments,
        handed: Vec::new(),
        kept: Vec::new(),
    };
    program.start_after_panics(|| UPTIME);
    let panicking = spawn("refresher", STACK_BYTES, || panic!("on purpose")).unwrap();
    let (_open, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(WAIT_MAX);
    drop(panicking);
}
