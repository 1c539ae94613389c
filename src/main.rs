//! The `evertoken` command: from the arguments to a command and its exit code.

use std::process::ExitCode;

use evertoken::cli::{self, Command};
use evertoken::logger;

mod commands;

fn main() -> ExitCode {
    let code = run();
    logger::flush();
    code
}

fn run() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { config, listen, log }) => commands::run::run(&config, listen, log),
        Ok(Command::Check { config, online }) => commands::check::run(&config, online),
        Ok(Command::Refresh { config, provider, log }) => {
            commands::refresh::run(&config, provider.as_deref(), log)
        }
        Ok(Command::Status { config, url, wish }) => {
            commands::status::run(config.as_deref(), url.as_deref(), wish)
        }
        Ok(Command::Login { config, provider, wish }) => {
            commands::login::run(&config, &provider, wish)
        }
        Ok(Command::Print(text)) => {
            commands::say_out(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            commands::say(why.trim_end());
            ExitCode::from(commands::USAGE)
        }
    }
}
