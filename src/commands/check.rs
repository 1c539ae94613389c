//! `evertoken check`: prints every problem of the file, the environment and the state folder.

use std::path::Path;
use std::process::ExitCode;

use crate::check::{self, socket, sources};
use crate::cli::{Extent, Files};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::resolve::{Problem, listen, tls};
use crate::proxy::route;
use crate::token::group::collisions;

use crate::commands::common::{
    BAD_CONFIG, Done, Variables, inspect, say, say_all, say_out, tell, text_of,
};

/// Prints every problem, and the meaning of the configuration.
pub(crate) fn run(files: &Files, extent: Extent) -> Done {
    let variables = Variables::of(files).map_err(|problem| tell(problem, BAD_CONFIG))?;
    let (config, mut found) = inspect(&files.config, &variables);
    add_places(&files.config, config.as_ref(), extent, &mut found);
    match extent {
        Extent::Names => {
            names(config.as_ref());
            Ok(())
        }
        Extent::Start => can_start(config.as_ref(), &found),
        Extent::Offline | Extent::Online => {
            let told = found.iter().map(ToString::to_string);
            variables.warnings.iter().cloned().chain(told).for_each(|line| say(&line));
            if let Some(file) = &variables.beside {
                say_out(&format!(
                    "Variables that are not set come from {file}. `evertoken run` reads this file only with \
                     --environment-file; for a service, its manager reads it\n"
                ));
            }
            let told = found.len() + variables.warnings.len();
            whole(&files.config, config, (&found, told), extent == Extent::Online)
        }
    }
}

/// Adds the problems of unix sockets that could not be made, and of a certificate that clients refuse at this time, at
/// their places in the file. Only a check asks for them: no other command needs these, and a start says itself what it
/// can't bind. It only warns of such a certificate, which a check takes for a mistake.
fn add_places(path: &Path, config: Option<&Config>, extent: Extent, found: &mut Vec<Problem>) {
    let Ok(text) = text_of(path) else { return };
    let shown = path.display().to_string();
    let sockets = listen::judge(&text, &shown, socket::problem_of);
    let settings = config.filter(|_| extent != Extent::Start).map(|config| &config.settings);
    let certificate = tls::judge(&text, &shown, settings, Clock::system().wall());
    for problem in sockets.into_iter().chain(certificate) {
        // It takes the place of the same words as a warning.
        found
            .retain(|known| Problem { is_warning: problem.is_warning, ..known.clone() } != problem);
        found.push(problem);
    }
    found.sort_by_key(|problem| problem.position);
}

/// Prints the providers' slugs, as far as the file can be read.
fn names(config: Option<&Config>) {
    for provider in config.iter().flat_map(|config| &config.providers) {
        say_out(&format!("{}\n", provider.slug));
    }
}

/// Prints the problems that would keep `run` from starting.
fn can_start(config: Option<&Config>, found: &[Problem]) -> Done {
    let mistakes = found.iter().filter(|problem| !problem.is_warning).map(ToString::to_string);
    let mut mistakes: Vec<_> = mistakes.collect();
    if mistakes.is_empty() {
        mistakes.extend(config.iter().flat_map(|config| check::connection_problems(config)));
    }
    say_all(&mistakes);
    if mistakes.is_empty() { Ok(()) } else { Err(ExitCode::from(BAD_CONFIG)) }
}

/// Checks everything that `found` leaves open; `told` is the number of lines printed about the files.
fn whole(
    path: &Path,
    config: Option<Config>,
    (found, told): (&[Problem], usize),
    online: bool,
) -> Done {
    let config = config.ok_or(ExitCode::from(BAD_CONFIG))?;
    say_all(&collisions(&config.providers));
    let clock = Clock::system();
    let sources = sources::find(&config, clock.now());
    if found.iter().any(|problem| !problem.is_warning) {
        // Problems of the environment and the state folder are printed in the same run.
        say_all(&check::offline_problems(&config, &sources));
        return Err(ExitCode::from(BAD_CONFIG));
    }
    say_out("Requests go to:\n");
    for line in route::explain(&config) {
        say_out(&format!("  {line}\n"));
    }
    if !sources.lines.is_empty() {
        say_out("Credentials come from:\n");
        sources.lines.iter().for_each(|line| say_out(&format!("  {line}\n")));
    }
    if let Some(line) = check::sharing(&config) {
        say_out(&format!("{line}\n"));
    }
    let mut warnings = sources.warnings.clone();
    warnings.extend(check::certificate_warning(&config, clock.wall()));
    let mut problems = check::offline_problems(&config, &sources);
    problems.extend(check::connection_problems(&config));
    if online {
        let report = check::online(&config, &clock);
        report.fine.iter().for_each(|line| say_out(&format!("{line}\n")));
        problems.extend(report.problems);
        warnings.extend(report.warnings);
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    say_all(&problems);
    if problems.is_empty() {
        // The verdict names those that failed.
        let but = match told + warnings.len() - sources.failing.len() {
            0 => String::new(),
            1 => "one warning; otherwise ".to_owned(),
            warnings => format!("{warnings} warnings; otherwise "),
        };
        say_out(&format!(
            "{}: {but}{}\n",
            path.display(),
            verdict(&config, &sources.failing, online)
        ));
        return Ok(());
    }
    Err(ExitCode::from(BAD_CONFIG))
}

/// The result, and the tests that were not made.
fn verdict(config: &Config, failing: &[String], online: bool) -> String {
    let order = match (failing, online) {
        ([], false) => "everything is in order".to_owned(),
        ([], true) => "everything that was tried is in order".to_owned(),
        (names, _) => format!("in order, but for the last refresh of {}", names.join(", ")),
    };
    if !online {
        return order + "; --online also tries the endpoints";
    }
    match check::untried_refresh(config) {
        Some(refresh) => {
            format!("{order}; `{refresh}` tries the rest, and uses the refresh token")
        }
        None => order,
    }
}
