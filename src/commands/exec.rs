//! `evertoken exec`: runs a command with an access token in its environment.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::cli::Files;
use crate::logger;

use crate::commands::common::{Done, USAGE, tell};
use crate::commands::obtain::obtain;

/// The exit codes of a shell for a command that it can't run, or that there is not (POSIX, XCU 2.8.2).
const CANT_RUN: u8 = 126;
const NO_COMMAND: u8 = 127;

/// Becomes `command`, with a token of the provider called `wanted` in `variables`. Returns only if that fails.
pub(crate) fn run(
    files: &Files,
    wanted: Option<&str>,
    variables: &[String],
    command: &[OsString],
) -> Done {
    let Some((program, arguments)) = command.split_first() else {
        return Err(tell("There is no command after --", USAGE));
    };
    let (_, token) = obtain(files, wanted)?;
    // The threads of this process end without a word.
    logger::flush();
    let variables = variables.iter().map(|name| (name, token.secret.expose()));
    let error = Command::new(program).args(arguments).envs(variables).exec();
    let code = if error.kind() == ErrorKind::NotFound { NO_COMMAND } else { CANT_RUN };
    let is_there = program.to_string_lossy().contains('/') && Path::new(program).exists();
    let why = match error.kind() {
        // The system says the same of the program and of what it needs.
        ErrorKind::NotFound if is_there => {
            "the interpreter that it names does not exist".to_owned()
        }
        _ => error.to_string(),
    };
    let shown = if program.is_empty() { "''".into() } else { program.display().to_string() };
    Err(tell(format_args!("{shown} can't be run: {why}"), code))
}
