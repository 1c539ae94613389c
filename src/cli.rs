//! The command line: its definition, and the parsed command as a value.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, ValueHint, value_parser};

use crate::check::routing::RouteQuestion;
use crate::config::ListenAddress;
use crate::config::call::USUAL_FILE;
use crate::logger::{self, Format};
use crate::login::LoginOptions;
use crate::status;

mod check;
mod keys;
mod login;
mod tools;
mod usage;
mod values;

pub(crate) use tools::TokenFormat;
pub(crate) use usage::UsageOptions;

pub(crate) use login::DiscoverOptions;

use values::{http_url, listen};

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy.
    Run {
        /// The files that it reads.
        files: Files,
        /// The address instead of the configured ones.
        listen: Option<ListenAddress>,
        /// The form of the log.
        log: logger::Options,
    },
    /// Validate the configuration, the environment and the state folder.
    Check {
        /// The files that it reads.
        files: Files,
        /// The extent of the check.
        extent: Extent,
    },
    /// Print which providers a request would try.
    CheckRoute {
        /// The files that it reads.
        files: Files,
        /// The request.
        question: RouteQuestion,
    },
    /// Make a running instance read its configuration again.
    Reload {
        /// The files that it reads, to find mistakes first.
        files: Files,
        /// The process; None for the one that listens on the configured address.
        process: Option<u32>,
    },
    /// Refresh now, without the server.
    Refresh {
        /// The files that it reads.
        files: Files,
        /// The name or slug of one provider; None for all.
        provider: Option<String>,
        /// The form of the log.
        log: logger::Options,
    },
    /// Ask a running instance for its providers' status.
    Status {
        /// The configuration of the instance; None for `providers.yaml`, if it exists.
        config: Option<PathBuf>,
        /// The instance's address.
        place: status::Place,
        /// The form of the output, and whether to repeat it.
        options: status::StatusOptions,
    },
    /// Get the first refresh token of a provider.
    Login {
        /// The files that it reads.
        files: Files,
        /// The provider's name or slug.
        provider: String,
        /// The way to log in.
        options: LoginOptions,
    },
    /// Find out how to log in to a resource, log in, and add its provider.
    Discover {
        /// The files that it reads.
        files: Files,
        /// The resource, and what is known about it.
        asked: DiscoverOptions,
        /// The way to log in.
        options: LoginOptions,
    },
    /// Revoke and delete the tokens of a provider.
    Logout {
        /// The files that it reads.
        files: Files,
        /// The provider's name or slug.
        provider: String,
    },
    /// Print an access token.
    Token {
        /// The files that it reads.
        files: Files,
        /// The name or slug of the provider; None for the only one with tokens.
        provider: Option<String>,
        /// The form of the output.
        format: TokenFormat,
    },
    /// Run a command with an access token in its environment.
    Exec {
        /// The files that it reads.
        files: Files,
        /// The name or slug of the provider; None for the only one with tokens.
        provider: Option<String>,
        /// The variables that get the token.
        variables: Vec<String>,
        /// The program and its arguments.
        command: Vec<OsString>,
    },
    /// Make a new key for clients.
    Key {
        /// The files that it reads.
        files: Files,
        /// The key's name.
        name: String,
    },
    /// Print the tokens that answers reported.
    Usage {
        /// The files that it reads.
        files: Files,
        /// The days, the rows and the form of the output.
        options: UsageOptions,
    },
    /// Print this text.
    Print(String),
}

/// The files that a command reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The configuration file.
    pub config: PathBuf,
    /// A file with variables besides those of the process.
    pub environment: Option<PathBuf>,
}

/// The extent of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The file, the environment and the state folder.
    Offline,
    /// Also the endpoints.
    Online,
    /// Only the problems that would keep `run` from starting.
    Start,
    /// Nothing: prints the providers' slugs, for completions.
    Names,
}

const SIGNALS: &str = "\
On SIGTERM or SIGINT, evertoken finishes the requests and refreshes in flight and exits; a second
signal ends it at once. SIGHUP reads the configuration again. SIGUSR1 refreshes every provider now.";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed at run time, 2 usage, 69 the address is in use or can't be
bound, 78 the configuration is wrong.";

const RELOAD_EXIT_CODES: &str = "\
Exit codes: 0 the file is in use, 1 no evertoken runs there or it rejected the file, 2 usage,
78 the file is wrong. After any code but 0, the old configuration stays in use, unless it
says that evertoken did not tell how the reload went, as with a full state folder.";

/// The largest process id on Linux.
const MAX_PROCESS: i64 = 4_194_304;

const STATUS_EXIT_CODES: &str = "\
Exit codes: 0 every enabled provider is ready, 1 one is not or there is no answer, 2 usage,
78 the configuration is wrong. If a key is needed, it comes from EVERTOKEN_API_KEY or from the
configuration.";

/// The definition of the command line, for parsing, manuals and completions.
pub fn definition() -> clap::Command {
    clap::Command::new("evertoken")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .about("A small forwarding proxy that always has a valid OAuth token")
        .after_help(EXIT_CODES)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .args(run_arguments())
        .subcommand(
            clap::Command::new("run")
                .about("Run the proxy in the foreground (the default command)")
                .args(run_arguments())
                .after_help(SIGNALS),
        )
        .subcommand(check::definition())
        .subcommand(
            clap::Command::new("reload")
                .about(
                    "Check the file, then make the running evertoken use it and print the outcome",
                )
                .args(files_arguments())
                .arg(
                    option("pid", "PID")
                        .value_parser(value_parser!(u32).range(1..=MAX_PROCESS))
                        .help("The process id [default: of the evertoken on the address in FILE]"),
                )
                .after_help(RELOAD_EXIT_CODES),
        )
        .subcommand(
            clap::Command::new("refresh")
                .about("Refresh now, without the server, and store the result")
                .args(files_arguments())
                .arg(provider_argument().help("Only this provider, by name or slug"))
                .args(log_arguments()),
        )
        .subcommands(login::definitions())
        .subcommand(tools::token_command())
        .subcommand(tools::exec_command())
        .subcommand(keys::definition())
        .subcommand(status_command())
        .subcommand(usage::usage_command())
}

fn status_command() -> clap::Command {
    clap::Command::new("status")
        .about("Ask a running instance for its providers' status")
        .arg(config_argument().default_value(None::<&str>).help(
            "The configuration of the instance, for its address and key [default: providers.yaml, \
             if it exists]",
        ))
        .arg(
            option("url", "URL")
                .short('u')
                .value_hint(ValueHint::Url)
                .value_parser(http_url)
                .help("The address of the instance, such as http://127.0.0.1:8080 or unix:/PATH"),
        )
        .arg(
            option("listen", "HOST:PORT")
                .short('l')
                .conflicts_with("url")
                .value_parser(listen)
                .help("The address that `run` was told; the configuration tells if it takes TLS"),
        )
        .arg(flag("json").help("Print the JSON of /-/status"))
        .arg(flag("watch").short('w').help("Repeat every two seconds, until Ctrl-C"))
        .arg(
            flag("quiet")
                .short('q')
                .conflicts_with_all(["json", "watch"])
                .help("Print nothing if all is ready; ask /-/ready, which needs no key"),
        )
        .after_help(STATUS_EXIT_CODES)
}

fn run_arguments() -> [Arg; 5] {
    let address = option("listen", "HOST:PORT")
        .short('l')
        .value_parser(listen)
        .help("Listen on this address, or on unix:/PATH, instead of the configured ones");
    let [format, quiet] = log_arguments();
    let [config, environment] = files_arguments();
    let environment =
        environment.help("More variables, one NAME=value per line; the environment overrides them");
    [config, environment, address, format, quiet]
}

fn files_arguments() -> [Arg; 2] {
    let environment = option("environment-file", "FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help(
            "More variables, one NAME=value per line; the environment overrides them [default: \
             `environment` beside the configuration, if it exists]",
        );
    [config_argument(), environment]
}

fn log_arguments() -> [Arg; 2] {
    let format = option("log-format", "FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("The form of log lines");
    let quiet =
        flag("quiet").short('q').help("Log only warnings and errors; RUST_LOG overrides this");
    [format, quiet]
}

fn config_argument() -> Arg {
    option("config", "FILE")
        .short('c')
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .default_value(USUAL_FILE)
        .help("The configuration file")
}

fn provider_argument() -> Arg {
    option("provider", "NAME").short('p')
}

fn option(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

/// A wrong command line: the mistake, and the command that was probably meant.
#[derive(Debug)]
pub struct UsageError {
    error: clap::Error,
    meant: Option<String>,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match &self.meant {
            Some(meant) => write!(f, "\nDid you mean: evertoken {meant}\n"),
            None => Ok(()),
        }
    }
}

/// Parses the arguments, without the program's own name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.first().is_some_and(|first| first == "help") {
        arguments.rotate_left(1);
        arguments.pop();
        arguments.push("--help".into());
    }
    let named = std::iter::once("evertoken".into()).chain(arguments.iter().cloned());
    match definition().try_get_matches_from(named) {
        Ok(matches) => Ok(command(&matches)),
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            Ok(Command::Print(error.to_string()))
        }
        Err(error) => Err(UsageError { error, meant: meant(&arguments) }),
    }
}

/// The arguments that a wrong command line probably meant.
fn meant(arguments: &[OsString]) -> Option<String> {
    let definition = definition();
    let words: Vec<_> = arguments.iter().map(|one| one.to_string_lossy()).collect();
    let is_command =
        |word: &str| definition.get_subcommands().any(|command| command.get_name() == word);
    let mut meant = words.clone();
    match words.iter().position(|word| is_command(word)) {
        Some(at) if at > 0 => {
            let command = meant.remove(at);
            meant.insert(0, command);
        }
        _ => meant.insert(unnamed_file(&words)?, "--config".into()),
    }
    Some(meant.join(" "))
}

fn command(matches: &ArgMatches) -> Command {
    let (name, matches) = matches.subcommand().unwrap_or(("run", matches));
    match name {
        "check" => check::check(matches),
        "reload" => {
            Command::Reload { files: files(matches), process: matches.get_one("pid").copied() }
        }
        "login" => login::login(matches),
        "logout" => login::logout(matches),
        "refresh" => {
            let provider = matches.get_one("provider").cloned();
            Command::Refresh { files: files(matches), provider, log: log_options(matches) }
        }
        "token" => tools::token(matches),
        "exec" => tools::exec(matches),
        "key" => keys::key(matches),
        "usage" => usage::usage(matches),
        "status" => Command::Status {
            config: matches.get_one("config").cloned(),
            place: status_place(matches),
            options: status_options(matches),
        },
        _ => {
            let listen = matches.get_one("listen").cloned();
            Command::Run { files: files(matches), listen, log: log_options(matches) }
        }
    }
}

fn files(matches: &ArgMatches) -> Files {
    Files {
        config: matches.get_one("config").cloned().unwrap_or_default(),
        environment: matches.get_one("environment-file").cloned(),
    }
}

fn log_options(matches: &ArgMatches) -> logger::Options {
    let format = match matches.get_one::<String>("log-format").map(String::as_str) {
        Some("json") => Format::Json,
        _ => Format::Text,
    };
    logger::Options { format, is_quiet: matches.get_flag("quiet") }
}

fn status_place(matches: &ArgMatches) -> status::Place {
    match (matches.get_one("url"), matches.get_one("listen")) {
        (Some(url), _) => status::Place::Url(String::clone(url)),
        (None, Some(address)) => status::Place::Listen(ListenAddress::clone(address)),
        (None, None) => status::Place::Configured,
    }
}

fn status_options(matches: &ArgMatches) -> status::StatusOptions {
    let form = match (matches.get_flag("json"), matches.get_flag("quiet")) {
        (true, _) => status::OutputForm::Json,
        (_, true) => status::OutputForm::Quiet,
        _ => status::OutputForm::Table,
    };
    status::StatusOptions { form, watches: matches.get_flag("watch") }
}

/// The place of a configuration file that no option names.
fn unnamed_file(words: &[Cow<'_, str>]) -> Option<usize> {
    let is_yaml = |word: &str| {
        let kind = Path::new(word).extension();
        kind.is_some_and(|kind| {
            kind.eq_ignore_ascii_case("yaml") || kind.eq_ignore_ascii_case("yml")
        })
    };
    let at = words.iter().position(|word| is_yaml(word) && !word.starts_with('-'))?;
    let before = at.checked_sub(1).map_or("", |before| &*words[before]);
    (!matches!(before, "-c" | "--config" | "--environment-file")).then_some(at)
}

#[cfg(test)]
mod tests;
