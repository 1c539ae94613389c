//! `sandbox serve --manner`: existing kinds and files, and missing ones.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn sandbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.arg("serve").args(arguments).stderr(Stdio::piped());
    command
}

#[test]
fn a_kind_or_a_file_is_served() {
    let own = format!("{}/manners/zoho.yaml", env!("CARGO_MANIFEST_DIR"));
    for (manner, begins) in [("github", "refresh_token=ghr_"), (&own, "refresh_token=1000.")] {
        let mut child = sandbox(&["--manner", manner, "--lifetime", "5"]).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let said: Vec<_> = lines.take(4).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said[0].starts_with("listening on http://127.0.0.1:"), "{said:?}");
        assert!(said[3].starts_with(begins), "{said:?}");
    }
}

#[test]
fn one_that_is_not_there_is_told_with_those_that_are() {
    let output = sandbox(&["--manner", "gitlab"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no kind is called 'gitlab'") && said.contains("github"), "{said}");
}
