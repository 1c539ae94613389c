//! `evertoken usage`: adds up the files of days in the state folder.

use std::io::ErrorKind;

use crate::cli::{Files, UsageOptions};
use crate::clock::Clock;
use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, Variables, inspect, say, say_all, say_out, tell,
};
use crate::report::listing::Listing;
use crate::usage::day::Day;
use crate::usage::file::Files as DayFiles;

/// The days before today that are shown unless an option names the first.
const USUAL_DAYS: i64 = 29;

/// Variables that are missing here don't matter, because only the state folder is read.
pub(crate) fn run(files: &Files, options: UsageOptions) -> Done {
    let variables = Variables::of(files).map_err(|problem| tell(problem, BAD_CONFIG))?;
    let (config, problems) = inspect(&files.config, &variables);
    let Some(config) = config else {
        let problems = problems.iter().filter(|problem| !problem.is_warning);
        say_all(&problems.map(ToString::to_string).collect::<Vec<_>>());
        return Err(std::process::ExitCode::from(BAD_CONFIG));
    };
    let today = Day::of(Clock::system().wall());
    let since = options.since.unwrap_or(today.earlier(USUAL_DAYS));
    let days = DayFiles::of(&config.settings.state_dir);
    let unreadable = |error: &std::io::Error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "; run this as the user that runs evertoken, or as root",
            _ => "",
        };
        let folder = config.settings.state_dir.display();
        tell(format_args!("The usage in {folder} can't be read: {error}{advice}"), FAILED)
    };
    let mut read = Vec::new();
    for day in days.days().map_err(|error| unreadable(&error))? {
        if day >= since {
            read.push((day, days.read(day).map_err(|error| unreadable(&error))?.all()));
        }
    }
    if !config.settings.usage {
        say("settings.usage is off, so nothing is counted now");
    }
    let until = read.last().map_or(today, |(day, _)| (*day).max(today)).max(since);
    say_out(&Listing::of(&read, since, until, options.by).render(options.form));
    Ok(())
}
