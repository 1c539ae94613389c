//! The `evertoken` command: from the arguments to a command and its exit code.

use std::process::ExitCode;

use evertoken::cli::{self, Command};
use evertoken::logger;

mod commands;

fn main() -> ExitCode {
    commands::survive_file_size_limit();
    let code = run();
    logger::flush();
    code
}

fn run() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { files, listen, log }) => commands::run::run(files, listen, log),
        Ok(Command::Check { files, extent }) => commands::check::run(&files, extent),
        Ok(Command::Reload { files, process }) => commands::reload::run(&files, process),
        Ok(Command::Refresh { files, provider, log }) => {
            commands::refresh::run(&files, provider.as_deref(), log)
        }
        Ok(Command::Status { config, url, options }) => {
            commands::status::run(config.as_deref(), url.as_deref(), options)
        }
        Ok(Command::Login { files, provider, options }) => {
            commands::login::run(&files, &provider, options)
        }
        Ok(Command::Print(text)) => {
            commands::say_out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            commands::say(error.to_string().trim_end());
            ExitCode::from(commands::USAGE)
        }
    }
}
