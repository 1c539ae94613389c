//! The `sandbox` command does not start with words that it does not know.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// The exit code, standard output and standard error. A sandbox that serves is ended, and has no code.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(sandbox.stderr.take().unwrap());
    let mut told = String::new();
    errors.read_line(&mut told).unwrap();
    if told.starts_with("listening on") {
        sandbox.kill().unwrap();
        sandbox.wait().unwrap();
        return (None, String::new(), told);
    }
    errors.read_to_string(&mut told).unwrap();
    let output = sandbox.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), told)
}

#[test]
fn an_unknown_option_or_a_wish_for_help_started_the_server() {
    for help in
        [&["serve", "--help"][..], &["demo", "-h"], &["--help"], &["serve", "--port", "0", "-h"]]
    {
        let (code, shown, told) = run(help);
        assert_eq!((code, &*told), (Some(0), ""), "{help:?}");
        assert!(shown.starts_with("Usage: sandbox serve") && shown.contains("keycloak"), "{shown}");
    }
    for (arguments, word) in [
        (&["serve", "--prot", "9"][..], "serve knows no '--prot'"),
        (&["serve", "--port", "0", "--lifetime=9"], "serve knows no '--lifetime=9'"),
        (&["serve", "9000"], "serve knows no '9000'"),
        (&["serve", "--dir", "x"], "serve knows no '--dir'"),
        (&["demo", "--evertoken", "x", "--nope"], "demo knows no '--nope'"),
    ] {
        let (code, _, told) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {told}");
        assert!(told.contains(word), "{told}");
    }
    assert_eq!(run(&["serve", "--port", "0", "--lifetime", "9"]).0, None, "it serves");
    assert_eq!(run(&["nope"]).0, Some(2));
}
