//! The commands, one file each.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{self, Command};
use crate::commands::common::{
    Done, USAGE, keep_ended_children, say_out, survive_file_size_limit, tell, well_printed,
};
use crate::logger;

mod check;
mod check_route;
mod common;
mod discover;
mod exec;
mod interruption;
mod key;
mod login;
mod logout;
mod obtain;
mod refresh;
mod reload;
pub(crate) mod restart;
mod rewrite;
mod run;
mod status;
mod token;
mod token_format;
mod unset;
mod usage;

/// Runs the command that `arguments` ask for, without the program's own name; its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    survive_file_size_limit();
    keep_ended_children();
    let done = well_printed(dispatch(arguments));
    logger::flush();
    done.err().unwrap_or(ExitCode::SUCCESS)
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Done {
    match cli::parse(arguments) {
        Ok(Command::Run { files, listen, log }) => run::run(files, listen, log),
        Ok(Command::Check { files, extent }) => check::run(&files, extent),
        Ok(Command::CheckRoute { files, question }) => check_route::run(&files, &question),
        Ok(Command::Reload { files, process }) => reload::run(&files, process),
        Ok(Command::Refresh { files, provider, log }) => {
            refresh::run(&files, provider.as_deref(), log)
        }
        Ok(Command::Status { config, place, options }) => {
            status::run(config.as_deref(), &place, options)
        }
        Ok(Command::Login { files, provider, options }) => login::run(&files, &provider, options),
        Ok(Command::Discover { files, asked, options }) => discover::run(&files, &asked, options),
        Ok(Command::Logout { files, provider }) => logout::run(&files, &provider),
        Ok(Command::Token { files, provider, format }) => {
            token::run(&files, provider.as_deref(), format)
        }
        Ok(Command::Exec { files, provider, variables, command }) => {
            exec::run(&files, provider.as_deref(), &variables, &command)
        }
        Ok(Command::Key { files, name }) => key::run(&files, &name),
        Ok(Command::Usage { files, options }) => usage::run(&files, options),
        Ok(Command::Print(text)) => {
            say_out(&text);
            Ok(())
        }
        Err(error) => Err(tell(error.to_string().trim_end(), USAGE)),
    }
}
