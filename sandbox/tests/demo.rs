//! `sandbox demo` ends together with the program that it started, however it is ended.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The longest wait for anything that must happen before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stands in for evertoken: prints that it runs, and the number of signals to end.
const PROGRAM: &str = "#!/bin/sh
trap 'echo told >> told; exit 7' TERM
trap 'echo reload >> told' HUP
echo $$ > started
for _ in $(seq 1200); do sleep 0.05; done
";

#[expect(clippy::disallowed_methods, reason = "a test waits for a process in real time")]
fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(folder: &Path) -> Child {
    let program = folder.join("program");
    // Another process writes it: a child that another test has just forked would have a file open that this one writes, and
    // nobody could run it.
    let write = "printf %s \"$1\" > \"$0\" && chmod 700 \"$0\"";
    let mut shell = Command::new("sh");
    assert!(shell.args(["-c", write]).arg(&program).arg(PROGRAM).status().unwrap().success());
    let mut demo = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    demo.args(["demo", "--port", "0", "--dir", "demo", "--evertoken"]).arg(&program);
    demo.current_dir(folder).stderr(Stdio::null()).spawn().unwrap()
}

/// The second one removed the state of the first.
#[test]
fn a_second_demo_leaves_the_first_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
    let mut demos = vec![start(folder.path())];
    let first = eventually("it runs", || read("started").filter(|id| id.ends_with('\n')));
    let token = folder.path().join("demo/state/sandbox-anthropic.json");
    std::fs::write(&token, "kept").unwrap();
    let config = read("demo/providers.yaml").unwrap();
    demos.push(start(folder.path()));
    eventually("the other runs", || {
        read("started").filter(|id| id.ends_with('\n') && *id != first)
    });
    assert_eq!(std::fs::read_to_string(&token).unwrap(), "kept");
    assert_eq!(read("demo/providers.yaml").unwrap(), config);
    assert!(read("demo-2/providers.yaml").unwrap().contains("demo-2/state"));
    for mut demo in demos {
        kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
        eventually("the demo ends", || demo.try_wait().unwrap());
    }
    // The rest is used again.
    let mut again = start(folder.path());
    eventually("its state is new", || (!token.exists()).then_some(()));
    kill_process(Pid::from_child(&again), Signal::TERM).unwrap();
    eventually("the demo ends", || again.try_wait().unwrap());
    assert!(!folder.path().join("demo-3").exists());
}

#[test]
fn whatever_ends_the_demo_ends_evertoken_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = start(folder.path());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        eventually("it runs", || read("started").filter(|id| id.ends_with('\n')));
        kill_process(Pid::from_child(&demo), signal).unwrap();
        let ended = eventually("the demo ends", || demo.try_wait().unwrap());
        assert_eq!(ended.code(), Some(7), "with the code of what it started");
        assert_eq!(read("told").as_deref(), Some("told\n"), "{signal:?}");
    }
}
