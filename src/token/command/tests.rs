//! Commands that behave and that misbehave, run for real.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rustix::process::{kill_process, test_kill_process};

use super::*;
use crate::secret::Secret;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const PATIENCE: Duration = Duration::from_mins(1);

/// The command of these words, with the usual PATH unless `variables` have another.
pub(super) fn command(words: &[&str], variables: &[(&str, &str)]) -> TokenCommand {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let usual =
        [("PATH", PATH)].into_iter().filter(|_| variables.iter().all(|(name, _)| *name != "PATH"));
    let all = usual.chain(variables.iter().copied());
    TokenCommand {
        program: words[0].clone(),
        arguments: words[1..].to_vec(),
        variables: all.map(|(name, value)| (name.to_owned(), Secret::new(value))).collect(),
        folder: PathBuf::from("/"),
    }
}

fn sh(script: &str) -> TokenCommand {
    command(&["sh", "-c", script], &[])
}

fn run_for(command: &TokenCommand, allowed: Duration) -> Result<String, String> {
    let printed = run(command, allowed, &|| false).map_err(|failure| failure.what.to_string())?;
    Ok(String::from_utf8(printed.stdout).unwrap())
}

fn run_it(command: &TokenCommand) -> Result<String, String> {
    run_for(command, PATIENCE)
}

/// The process whose id is in `file`, once it is there.
fn process_in(file: &Path) -> Pid {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(id) = text.strip_suffix('\n').and_then(|id| id.parse().ok()) {
            return Pid::from_raw(id).unwrap();
        }
        assert!(!deadline.has_passed(), "{}", file.display());
        wait_for([].into_iter());
    }
}

/// True if the process runs; a killed one whose parent has not reaped it counts as ended.
fn lives(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[track_caller]
fn ends(process: Pid) {
    let deadline = Deadline::after(PATIENCE);
    while lives(process) {
        assert!(!deadline.has_passed(), "{process:?} lives on");
        wait_for([].into_iter());
    }
}

#[test]
fn a_command_has_only_its_own_environment_folder_and_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = command(&["env"], &[("PATH", PATH), ("LANG", "C"), ("MINE", "it's mine")]);
    env.folder = folder.path().to_owned();
    let mut lines: Vec<String> = run_it(&env).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["LANG=C", "MINE=it's mine", &format!("PATH={PATH}")]);
    let pwd = TokenCommand { folder: folder.path().to_owned(), ..command(&["pwd", "-P"], &[]) };
    let real = folder.path().canonicalize().unwrap();
    assert_eq!(run_it(&pwd).unwrap().trim_end(), real.to_str().unwrap());
    // It asks a question, and hears at once that nobody is there.
    let asking = sh("printf 'Password: ' >&2; read answer || echo nobody");
    assert_eq!(run_it(&asking).unwrap(), "nobody\n");
    // Nothing is split, expanded or substituted.
    let words = ["printf", "%s|", "a b", "$HOME", "*", "~", "`id`", "", "'"];
    assert_eq!(run_it(&command(&words, &[])).unwrap(), "a b|$HOME|*|~|`id`||'|");
}

#[test]
fn a_command_that_hangs_is_killed_with_everything_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "trap '' TERM INT HUP; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; echo half; echo 'still at it' >&2; wait",
        file.display()
    );
    let looked = Cell::new(false);
    let is_called_off = || {
        // It is called off once its own child is known.
        looked.set(file.exists());
        looked.get()
    };
    let failure = run(&sh(&script), PATIENCE, &is_called_off).err().unwrap();
    assert_eq!(failure.what.to_string(), "the token_command was called off");
    ends(process_in(&file));
    let told = run_for(&sh("echo 'waiting for you' >&2; exec sleep 1000"), Duration::from_secs(1));
    assert_eq!(
        told.unwrap_err(),
        "the token_command did not end within 1 s and was killed: waiting for you"
    );
    assert!(!groups().running.contains(&process_in(&file)));
}

#[test]
fn a_program_that_a_command_leaves_behind_does_not_hold_its_token_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let left = |start: &str| {
        let script = format!("{start} sleep 1000 & echo $! > {}; echo t0ken", file.display());
        assert_eq!(run_it(&sh(&script)).unwrap(), "t0ken\n");
        process_in(&file)
    };
    ends(left(""));
    // A program in a session of its own keeps running, as behind a shell, and keeps the pipes open.
    let daemon = left("exec setsid");
    assert!(test_kill_process(daemon).is_ok());
    kill_process(daemon, Signal::KILL).unwrap();
}

#[test]
fn an_output_is_read_up_to_a_limit_and_the_standard_error_to_its_end() {
    let most = TOKEN_ANSWER_MAX_BYTES;
    let flood = |bytes: usize| sh(&format!("head -c {bytes} /dev/zero | tr '\\0' x"));
    assert_eq!(run_it(&flood(most)).unwrap().len(), most);
    let told = run_it(&flood(most + 1)).unwrap_err();
    assert_eq!(told, "the token_command printed more than 1 MiB and was killed");
    let told = run_it(&sh("echo first >&2; exec yes")).unwrap_err();
    assert_eq!(told, "the token_command printed more than 1 MiB and was killed: first");
    // A full pipe of the standard error would stop it for ever.
    let noisy = sh("echo first line >&2; yes second | head -c 3000000 >&2; echo t0ken");
    let printed = run(&noisy, PATIENCE, &|| false).ok().unwrap();
    assert_eq!(printed.stdout, b"t0ken\n");
    assert_eq!(printed.said.as_deref(), Some("first line"));
    // It closes both, and works on.
    let closed = sh("exec >&- 2>&-; sleep 0.1; exit 3");
    assert_eq!(run_it(&closed).unwrap_err(), "the token_command ended with exit code 3");
}

#[test]
fn a_command_that_fails_says_how_and_keeps_its_secrets() {
    let cases = [
        ("exit 1", "the token_command ended with exit code 1"),
        ("echo out; exit 2", "the token_command ended with exit code 2"),
        ("echo; echo ' why ' >&2; echo more >&2; exit 255", "ended with exit code 255: why"),
        ("kill -9 $$", "the token_command was ended by signal 9"),
        ("kill -TERM $$", "the token_command was ended by signal 15"),
        ("nosuchprogram", "ended with exit code 127: sh: 1: nosuchprogram: not found"),
    ];
    for (script, end) in cases {
        let told = run_it(&sh(script)).unwrap_err();
        assert!(told.ends_with(end), "{script}: {told}");
    }
    let leaky =
        "echo plaintoken; echo \"plaintoken of $PASS and ghp_0123456789abcdef0123\" >&2; exit 1";
    let leaky = command(&["sh", "-c", leaky], &[("PASS", "hunter2"), ("LANG", "C")]);
    assert_eq!(
        run_it(&leaky).unwrap_err(),
        "the token_command ended with exit code 1: *** of *** and ***"
    );
}

#[test]
fn a_program_that_can_not_be_started_says_why() {
    let folder = tempfile::tempdir().unwrap();
    // Another process writes it: a child that another test has just forked would have a file open that this one writes, and
    // nobody could run it.
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", write]).arg(&path).arg(text).status().unwrap().success());
        path.to_str().unwrap().to_owned()
    };
    let gone = TokenCommand { folder: folder.path().join("gone"), ..command(&["true"], &[]) };
    let cases = [
        (command(&["nosuchprogram"], &[]), "there is no program 'nosuchprogram' in PATH"),
        (
            command(&[&script("a", "#!/no/such/interpreter\n")], &[]),
            "the interpreter that the first line of",
        ),
        (command(&[&script("b", "echo t0ken\n")], &[]), "neither a program nor a script with #!"),
        (gone, "its working folder"),
        (command(&[folder.path().to_str().unwrap()], &[]), "is no program but a folder"),
    ];
    for (command, part) in cases {
        let told = run_it(&command).unwrap_err();
        assert!(told.starts_with("the token_command can't be run: "), "{told}");
        assert!(told.contains(part), "{told}");
    }
}
