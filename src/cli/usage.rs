//! The command `evertoken usage`.

use clap::{ArgMatches, value_parser};

use super::{Command, files, files_arguments, flag, option};
use crate::report::listing::{By, Form};
use crate::usage::day::Day;

/// The options of `evertoken usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageOptions {
    /// The first day; None for the last 30 days.
    pub(crate) since: Option<Day>,
    /// The property by which rows are added up.
    pub(crate) by: Option<By>,
    pub(crate) form: Form,
}

const HELP: &str = "\
Reads the state folder, which a running instance writes within settings.save_interval (10 seconds
unless set). Days are those of UTC.
`input`, `cache read` and `cache write` together are all input. `unknown` are answers whose tokens
could not be read, `cut` those that ended early.

Exit codes: 0 done, 1 the state folder can't be read, 2 usage, 78 the configuration is wrong.";

pub(super) fn usage_command() -> clap::Command {
    clap::Command::new("usage")
        .about("Print the tokens that answers reported, by provider, model and key")
        .args(files_arguments())
        .arg(
            option("since", "DATE")
                .value_parser(date)
                .help("The first day, such as 2026-11-01 [default: 29 days ago]"),
        )
        .arg(
            option("by", "WHAT")
                .value_parser(value_parser!(String))
                .value_parser(By::ALL.map(|(name, _)| name))
                .help("Add up by this alone"),
        )
        .arg(flag("json").conflicts_with("csv").help("Print JSON"))
        .arg(flag("csv").help("Print CSV, with a line of names first"))
        .after_help(HELP)
}

fn date(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "it is not a date such as 2026-11-01".to_owned())
}

pub(super) fn usage(matches: &ArgMatches) -> Command {
    let by = matches.get_one::<String>("by").map(String::as_str);
    let by = By::ALL.iter().find(|(name, _)| Some(*name) == by).map(|(_, by)| *by);
    let form = match (matches.get_flag("json"), matches.get_flag("csv")) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::Table,
    };
    let options = UsageOptions { since: matches.get_one("since").copied(), by, form };
    Command::Usage { files: files(matches), options }
}
