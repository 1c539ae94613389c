//! The command line of `evertoken login` and `evertoken logout`.

use clap::ArgMatches;

use super::{Command, files, files_arguments, flag, provider_argument};
use crate::login::LoginOptions;

const LOGOUT_EXIT_CODES: &str = "\
Exit codes: 0 the tokens are deleted, and revoked as far as the issuer can; 1 they could not be
revoked, or not be deleted; 2 usage; 78 the configuration is wrong, and nothing was done.";

pub(super) fn definitions() -> [clap::Command; 2] {
    let provider = || provider_argument().required(true).help("The provider, by name or slug");
    [
        clap::Command::new("login")
            .about("Get a provider's first refresh token, with a browser or a code")
            .args(files_arguments())
            .arg(provider())
            .arg(
                flag("paste")
                    .conflicts_with("device")
                    .help("Paste the code or address from a browser on any machine"),
            )
            .arg(flag("device").help("Type a code into a browser on any machine"))
            .arg(flag("no-browser").help("Print the address and open no browser")),
        clap::Command::new("logout")
            .about("Revoke a provider's tokens where the issuer can, and delete them")
            .args(files_arguments())
            .arg(provider())
            .after_help(LOGOUT_EXIT_CODES),
    ]
}

pub(super) fn login(matches: &ArgMatches) -> Command {
    Command::Login {
        files: files(matches),
        provider: provider(matches),
        options: LoginOptions {
            paste: matches.get_flag("paste"),
            device: matches.get_flag("device"),
            no_browser: matches.get_flag("no-browser"),
        },
    }
}

pub(super) fn logout(matches: &ArgMatches) -> Command {
    Command::Logout { files: files(matches), provider: provider(matches) }
}

fn provider(matches: &ArgMatches) -> String {
    matches.get_one("provider").cloned().unwrap_or_default()
}
