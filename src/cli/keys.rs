//! The command `evertoken key`, which makes a key for a client.

use clap::{Arg, ArgMatches};

use super::{Command, files, files_arguments};
use crate::config::inbound_key::{NAME_MAX_BYTES, PLAIN_KEY_NAME, is_plain_name};

const HELP: &str = "\
The key is printed once and stored nowhere: give it to its user. The entry, with the hash of the
key, is for settings.auth.keys, where providers, models and limits may be added to it.

Exit codes: 0 done, 1 there is a key of this name, 2 usage.";

pub(super) fn definition() -> clap::Command {
    clap::Command::new("key")
        .about("Make a new random key for a client, and print it with its entry for the file")
        .args(files_arguments())
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .value_parser(name)
                .help("The name of the key, in the log, the metrics and the usage"),
        )
        .after_help(HELP)
}

/// The name of a new key.
fn name(text: &str) -> Result<String, String> {
    if text == PLAIN_KEY_NAME {
        return Err(format!("'{PLAIN_KEY_NAME}' is the name of keys without one; choose another"));
    }
    if text.len() > NAME_MAX_BYTES || !is_plain_name(text) {
        return Err(format!(
            "write a name of at most {NAME_MAX_BYTES} letters, digits, '-', '_' and '.', such as ci"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn key(matches: &ArgMatches) -> Command {
    let name = matches.get_one("name").cloned().unwrap_or_default();
    Command::Key { files: files(matches), name }
}
