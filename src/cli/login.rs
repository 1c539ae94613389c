//! The command line of `evertoken login` and `evertoken logout`.

use std::path::PathBuf;

use clap::{ArgMatches, ValueHint, value_parser};

use super::{Command, files, files_arguments, flag, option, provider_argument};
use crate::config::url::{is_loopback, split_url};
use crate::login::LoginOptions;

/// A resource for `evertoken login --discover`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoverOptions {
    /// Its address.
    pub url: String,
    /// Its issuer, if it has several or names none.
    pub issuer: Option<String>,
    /// The id of a client that is registered already.
    pub client_id: Option<String>,
    /// The file with that client's secret.
    pub client_secret_file: Option<PathBuf>,
    /// That client's redirect URI.
    pub redirect_uri: Option<String>,
    /// The name of the provider; None for the host.
    pub name: Option<String>,
    /// The configuration file to add the provider to.
    pub write: Option<PathBuf>,
}

const DISCOVER_HELP: &str = "\
With --discover, the resource (an MCP server, for example) tells its issuer, the issuer its endpoints,
and a client is registered there if the issuer allows that. The provider's entry is printed, or
added to FILE by --write, which changes nothing else in it.";

const LOGOUT_EXIT_CODES: &str = "\
Exit codes: 0 the tokens are deleted, and revoked as far as the issuer can; 1 they could not be
revoked, or not be deleted; 2 usage; 78 the configuration is wrong, and nothing was done.";

pub(super) fn definitions() -> [clap::Command; 2] {
    let provider = || provider_argument().help("The provider, by name or slug");
    [
        clap::Command::new("login")
            .about("Get a provider's first refresh token, with a browser or a code")
            .args(files_arguments())
            .arg(provider().required_unless_present("discover").conflicts_with("discover"))
            .arg(
                flag("paste")
                    .conflicts_with("device")
                    .help("Paste the code or address from a browser on any machine"),
            )
            .arg(flag("device").help("Type a code into a browser on any machine"))
            .arg(flag("no-browser").help("Print the address and open no browser"))
            .args(discover_arguments())
            .after_help(DISCOVER_HELP),
        clap::Command::new("logout")
            .about("Revoke a provider's tokens where the issuer can, and delete them")
            .args(files_arguments())
            .arg(provider().required(true))
            .after_help(LOGOUT_EXIT_CODES),
    ]
}

fn discover_arguments() -> [clap::Arg; 7] {
    let url = |name, help| {
        option(name, "URL").value_hint(ValueHint::Url).value_parser(secure_url).help(help)
    };
    let file = |name, help| {
        let file = option(name, "FILE").value_parser(value_parser!(PathBuf));
        file.value_hint(ValueHint::FilePath).help(help)
    };
    let of_client = |argument: clap::Arg| argument.requires("client-id");
    let of_discovery =
        |argument: clap::Arg| argument.requires("discover").conflicts_with("provider");
    [
        url("discover", "Find out how to log in to the resource at this address, and log in"),
        of_discovery(url("issuer", "The issuer, if the resource names several or none")),
        of_discovery(
            option("client-id", "ID").help("A client of the issuer's, instead of registering one"),
        ),
        of_client(file("client-secret-file", "The file with that client's secret")),
        of_client(option("redirect-uri", "URI").help("That client's redirect URI")),
        of_discovery(option("name", "NEW_NAME").help("The provider's name [default: the host]")),
        of_discovery(file("write", "Add the provider to this configuration file")),
    ]
}

/// An https URL, or an http one of this machine.
fn secure_url(text: &str) -> Result<String, &'static str> {
    match split_url(text) {
        Some((_, _, path)) if path.contains('#') => Err("write the URL without its '#'"),
        Some(("http", ..)) if !is_loopback(text) => {
            Err("write an https URL; http is for addresses of this machine alone")
        }
        Some(_) => Ok(text.to_owned()),
        None => Err("write a URL, such as https://mcp.example.com/mcp"),
    }
}

pub(super) fn login(matches: &ArgMatches) -> Command {
    let options = LoginOptions {
        paste: matches.get_flag("paste"),
        device: matches.get_flag("device"),
        no_browser: matches.get_flag("no-browser"),
    };
    let files = files(matches);
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    match text("discover") {
        None => Command::Login { files, provider: provider(matches), options },
        Some(url) => {
            let asked = DiscoverOptions {
                url,
                issuer: text("issuer"),
                client_id: text("client-id"),
                client_secret_file: matches.get_one("client-secret-file").cloned(),
                redirect_uri: text("redirect-uri"),
                name: text("name"),
                write: matches.get_one("write").cloned(),
            };
            Command::Discover { files, asked, options }
        }
    }
}

pub(super) fn logout(matches: &ArgMatches) -> Command {
    Command::Logout { files: files(matches), provider: provider(matches) }
}

fn provider(matches: &ArgMatches) -> String {
    matches.get_one("provider").cloned().unwrap_or_default()
}
