//! `evertoken key`: makes a key for a client.

use crate::cli::Files;
use crate::commands::common::{Done, FAILED, Variables, inspect, say_out, tell};
use crate::config::inbound_key::KEY_PREFIX;
use crate::secret::Secret;
use crate::signing::random_text;

/// Prints a new key called `name`, and its entry.
pub(crate) fn run(files: &Files, name: &str) -> Done {
    let is_on = check_name(files, name)?;
    let random = random_text().ok_or_else(|| tell("The system gives no random bytes", FAILED))?;
    let key = Secret::new(format!("{KEY_PREFIX}{}", *random));
    say_out(&format!(
        "{}\n\n# The line above is the key, which is shown this once. Its entry in settings.auth.keys{}:\n  - {{ name: \"{name}\", \
         key_sha256: \"{}\" }}\n",
        key.expose(),
        if is_on { "" } else { ", with settings.auth.enabled: true" },
        key.hash()
    ));
    Ok(())
}

/// True if clients need keys according to the configuration. A name that it has is refused. A configuration that is
/// not there, or wrong, is no obstacle.
fn check_name(files: &Files, name: &str) -> Result<bool, std::process::ExitCode> {
    let Ok(variables) = Variables::of(files) else { return Ok(false) };
    let (Some(config), _) = inspect(&files.config, &variables) else { return Ok(false) };
    let Some(keys) = config.settings.inbound_keys else { return Ok(false) };
    if keys.iter().any(|key| key.rights.name == name) {
        let message = format!(
            "There is a key called '{name}' in {}; choose another name, or take that one out first",
            files.config.display()
        );
        return Err(tell(message, FAILED));
    }
    Ok(true)
}
