//! `evertoken check`: everything that is wrong with the file, the environment and the state folder.

use std::path::Path;
use std::process::ExitCode;

use evertoken::check::{self, sources};
use evertoken::clock::Clock;
use evertoken::config::Config;
use evertoken::proxy::route;
use evertoken::token::group::collisions;

use crate::commands::{BAD_CONFIG, inspect, say, say_out};

/// Prints every problem, and what the configuration means.
pub(crate) fn run(path: &Path, online: bool) -> ExitCode {
    let (config, found) = inspect(path);
    for problem in &found {
        say(&problem.to_string());
    }
    let Some(config) = config else { return ExitCode::from(BAD_CONFIG) };
    for warning in collisions(&config.providers) {
        say(&warning);
    }
    let clock = Clock::system();
    let sources = sources::find(&config, clock.now());
    if found.iter().any(|problem| !problem.is_warning) {
        // What the environment and the state folder lack is said in the same go.
        for problem in check::offline(&config, &sources) {
            say(&problem);
        }
        return ExitCode::from(BAD_CONFIG);
    }
    say_out("Requests go to:\n");
    for line in route::explain(&config) {
        say_out(&format!("  {line}\n"));
    }
    if !sources.lines.is_empty() {
        say_out("Credentials come from:\n");
        say_out(&sources.lines.iter().map(|line| format!("  {line}\n")).collect::<String>());
    }
    if let Some(line) = check::sharing(&config) {
        say_out(&format!("{line}\n"));
    }
    for warning in &sources.warnings {
        say(&format!("warning: {warning}"));
    }
    let mut problems = check::offline(&config, &sources);
    problems.extend(check::ways(&config));
    if online {
        let report = check::online(&config, &clock);
        say_out(&report.fine.iter().map(|line| format!("{line}\n")).collect::<String>());
        problems.extend(report.problems);
    }
    for problem in &problems {
        say(problem);
    }
    if problems.is_empty() {
        let but = match found.len() + sources.warnings.len() {
            0 => String::new(),
            1 => "one warning; otherwise ".to_owned(),
            warnings => format!("{warnings} warnings; otherwise "),
        };
        say_out(&format!("{}: {but}{}\n", path.display(), verdict(&config, online)));
        return ExitCode::SUCCESS;
    }
    ExitCode::from(BAD_CONFIG)
}

/// What is right, and what was not tried.
fn verdict(config: &Config, online: bool) -> String {
    if !online {
        return "everything is in order; --online also tries the endpoints".to_owned();
    }
    match check::left_to_try(config) {
        Some(refresh) => format!(
            "everything that was tried is in order; `{refresh}` tries the rest, and uses the refresh token"
        ),
        None => "everything that was tried is in order".to_owned(),
    }
}
