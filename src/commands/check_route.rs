//! `evertoken check --route`: prints which providers a request would try.

use std::process::ExitCode;

use crate::check::{routing, sources};
use crate::cli::Files;
use crate::clock::Clock;
use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, USAGE, Variables, inspect, say_all, say_out, tell,
};

/// Prints the answer to `question`; fails if no provider would serve the request.
pub(crate) fn run(files: &Files, question: &routing::RouteQuestion) -> Done {
    let variables = Variables::of(files).map_err(|problem| tell(problem, BAD_CONFIG))?;
    let (config, found) = inspect(&files.config, &variables);
    let mistakes = found.iter().filter(|problem| !problem.is_warning).map(ToString::to_string);
    let mistakes: Vec<_> = mistakes.collect();
    say_all(&mistakes);
    let config = config.filter(|_| mistakes.is_empty()).ok_or(ExitCode::from(BAD_CONFIG))?;
    let now = Clock::system().now();
    let lacking = |index: usize| sources::lacking(&config, index, now);
    let answer =
        routing::answer(&config, question, lacking).map_err(|problem| tell(problem, USAGE))?;
    answer.lines.iter().for_each(|line| say_out(&format!("{line}\n")));
    if answer.is_served { Ok(()) } else { Err(ExitCode::from(FAILED)) }
}
