//! The commands for tools that can't be pointed at a proxy: `evertoken token` and `evertoken exec`.

use std::ffi::OsString;

use clap::{ArgAction, ArgMatches, value_parser};

use super::{Command, files, files_arguments, option, provider_argument};

/// The form in which `evertoken token` prints a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenFormat {
    /// The token alone.
    #[default]
    Token,
    /// The provider's header field: `Authorization: Bearer …`.
    Header,
    /// The JSON of `/-/token/<slug>`.
    Json,
    /// An `ExecCredential` of Kubernetes.
    ExecCredential,
}

const FORMATS: [(&str, TokenFormat); 4] = [
    ("token", TokenFormat::Token),
    ("header", TokenFormat::Header),
    ("json", TokenFormat::Json),
    ("exec-credential", TokenFormat::ExecCredential),
];

const PROVIDER_HELP: &str = "The provider, by name or slug [default: the only one that has tokens]";

const TOKEN_HELP: &str = "\
With settings.token_endpoint on, a running instance gives its token: over a unix socket of
settings.listen, or over a port, with a key that names the provider. Else the stored token is
printed, and refreshed first if it ends within a minute.
An expired token is never printed.

Exit codes: 0 the token is on stdout, 1 there is none (stderr says why), 2 usage, 78 the
configuration is wrong.";

const EXEC_HELP: &str = "\
COMMAND takes the place of evertoken: its signals, terminal and exit code are its own. The token
is not renewed while COMMAND runs; start it again for the next one.

Exit codes: those of COMMAND; 126 COMMAND can't be run, 127 there is no such command, 1 there is
no token (stderr says why), 2 usage, 78 the configuration is wrong.";

pub(super) fn token_command() -> clap::Command {
    clap::Command::new("token")
        .about("Print a valid access token, for a tool that can't be pointed at a proxy")
        .args(files_arguments())
        .arg(provider_argument().help(PROVIDER_HELP))
        .arg(
            option("format", "FORMAT")
                .value_parser(FORMATS.map(|(name, _)| name))
                .default_value("token")
                .help("The form of the output"),
        )
        .after_help(TOKEN_HELP)
}

pub(super) fn exec_command() -> clap::Command {
    clap::Command::new("exec")
        .about("Run a command with an access token in its environment")
        .args(files_arguments())
        .arg(provider_argument().help(PROVIDER_HELP))
        .arg(
            option("env", "VARIABLE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(variable)
                .help("The variable for the token; may be given several times"),
        )
        .arg(
            clap::Arg::new("command")
                .value_name("COMMAND")
                .value_parser(value_parser!(OsString))
                .num_args(1..)
                .last(true)
                .required(true)
                .help("The command and its arguments, after --"),
        )
        .after_help(EXEC_HELP)
}

/// The name of a variable.
fn variable(text: &str) -> Result<String, &'static str> {
    if text.contains('=') {
        return Err("write the name alone, because its value is the token");
    }
    if text.contains(',') {
        return Err("write --env once for each variable");
    }
    // No program asks for such a name.
    let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '$';
    if text.is_empty() || text.contains(is_odd) {
        return Err("write the name of a variable, such as OPENAI_API_KEY");
    }
    Ok(text.to_owned())
}

pub(super) fn token(matches: &ArgMatches) -> Command {
    let written = matches.get_one::<String>("format").map_or("", String::as_str);
    let format = FORMATS.iter().find(|(name, _)| *name == written);
    Command::Token {
        files: files(matches),
        provider: matches.get_one("provider").cloned(),
        format: format.map_or_else(TokenFormat::default, |(_, format)| *format),
    }
}

pub(super) fn exec(matches: &ArgMatches) -> Command {
    Command::Exec {
        files: files(matches),
        provider: matches.get_one("provider").cloned(),
        variables: matches.get_many("env").unwrap_or_default().cloned().collect(),
        command: matches.get_many("command").unwrap_or_default().cloned().collect(),
    }
}
