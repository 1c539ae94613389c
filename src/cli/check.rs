//! The command line of `check`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches};

use super::{Command, Extent, files, files_arguments, flag, option};
use crate::check::routing::RouteQuestion;

const EXIT_CODES: &str = "\
Exit codes: 0 everything is in order, or a provider serves the request of --route; 1 none does;
2 usage, such as the name of a key that does not exist; 78 the configuration is wrong.";

pub(super) fn definition() -> clap::Command {
    clap::Command::new("check")
        .about("Validate the file, the environment and the state folder")
        .args(files_arguments())
        .arg(
            flag("online")
                .help("Also connect to every endpoint and compare clocks; spend no token"),
        )
        .arg(
            flag("start")
                .conflicts_with("online")
                .help("Report only problems that keep evertoken from starting; for scripts"),
        )
        .arg(
            option("route", "MODEL")
                .conflicts_with_all(["online", "start"])
                .value_parser(NonEmptyStringValueParser::new())
                .help(
                    "Only print which providers a request for this model would try, in which order, and why not the \
                     others",
                ),
        )
        .arg(of_route("key", "NAME").help("The request's key in settings.auth, for --route"))
        .arg(of_route("path", "PATH").value_parser(path).help(
            "The request's path, for --route, such as /v1/messages [default: the usual one of each API]",
        ))
        .arg(flag("names").hide(true).conflicts_with_all(["online", "start", "route"]))
        .after_help(EXIT_CODES)
}

fn of_route(name: &'static str, value: &'static str) -> Arg {
    option(name, value).requires("route")
}

/// A path, without the scheme and address that people copy along with it.
fn path(text: &str) -> Result<String, String> {
    let rest = text
        .split_once("://")
        .map_or(text, |(_, rest)| &rest[rest.find('/').unwrap_or(rest.len())..]);
    if rest.starts_with('/') {
        return Ok(rest.to_owned());
    }
    Err("a path begins with /, such as /v1/messages".to_owned())
}

pub(super) fn check(matches: &ArgMatches) -> Command {
    let files = files(matches);
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    match text("route") {
        Some(model) => {
            let question = RouteQuestion { model, key: text("key"), path: text("path") };
            Command::CheckRoute { files, question }
        }
        None => Command::Check { files, extent: extent(matches) },
    }
}

fn extent(matches: &ArgMatches) -> Extent {
    let chosen = [("online", Extent::Online), ("start", Extent::Start), ("names", Extent::Names)];
    let chosen = chosen.into_iter().find(|(flag, _)| matches.get_flag(flag));
    chosen.map_or(Extent::Offline, |(_, extent)| extent)
}
