//! The inputs of resolving: variables, files, and the secrets in them.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::clock::Timestamp;
use crate::config::raw::Section;
use crate::config::secret_file::{Oddity, without_mark};
use crate::config::{Missing, SecretLookup, secret_of_file};
use crate::secret::Secret;

/// The inputs of resolving.
pub struct Sources<'a> {
    /// Looks up a variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub files: &'a dyn Fn(&Path) -> io::Result<String>,
    /// The time, for what has expired.
    pub now: Timestamp,
    /// The permissions of another file, if they are known.
    pub file_modes: &'a dyn Fn(&Path) -> Option<u32>,
    /// The configuration file's permissions, if they are known.
    pub file_mode: Option<u32>,
    /// True if the program runs as root.
    pub is_root: bool,
    /// The folder for relative paths, if it is known.
    pub working_folder: Option<&'a Path>,
}

/// A secret that a `…_env` or `…_file` names.
pub(super) struct NamedSecret {
    /// The key that names it.
    pub(super) key: &'static str,
    /// Its file; None for a variable.
    pub(super) file: Option<PathBuf>,
    pub(super) found: SecretLookup,
}

impl Sources<'_> {
    /// Warns about a secret under `key` if group or others can read the configuration file; `instead` is the better
    /// key.
    pub(super) fn warn_if_exposed(&self, section: &Section<'_>, key: &str, instead: &str) {
        if self.file_mode.is_some_and(|mode| mode & 0o044 != 0) {
            let advice = "this file can be read by group or others; chmod 600 it, or use";
            section.warn(key, format!("{advice} {instead}"));
        }
    }

    /// The absolute path, if the working folder is known.
    pub(super) fn whole(&self, path: &Path) -> PathBuf {
        match self.working_folder {
            Some(folder) if path.is_relative() => folder.join(path).components().collect(),
            _ => path.to_owned(),
        }
    }

    /// A variable that is set and not empty, without surrounding white space.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = (self.environment)(name)?;
        let value = without_mark(&value).trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The secret in `key_env` or `key_file`; None if neither key is there.
    pub(super) fn secret(
        &self,
        section: &Section<'_>,
        env_key: &'static str,
        file_key: &'static str,
        is_needed: bool,
    ) -> Option<NamedSecret> {
        let named = |key, file, found| Some(NamedSecret { key, file, found });
        // This stands in for the unknown value, so that it is not also reported as missing.
        let unknown = |key| named(key, None, Ok(Secret::new(key)));
        if section.has(env_key) && section.has(file_key) {
            section.error(file_key, format!("give '{env_key}' or '{file_key}', not both"));
        }
        let variable = section.text(env_key);
        let file = self.path(section, file_key);
        if let Some(name) = variable.filter(|name| !name.is_empty()) {
            if !is_variable_name(&name) {
                // This is probably the secret itself, so it is not repeated.
                let advice = "wants the name of a variable, not its value";
                section.error(env_key, format!("'{env_key}' {advice}"));
                return unknown(env_key);
            }
            self.warn_of_variable(section, env_key, &name);
            let found = self.variable(&name).map(Secret::new).ok_or(Missing::Variable(name));
            return named(env_key, None, found);
        }
        if let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) {
            let read = (self.files)(&path);
            let oddity = read.as_deref().ok().and_then(Oddity::of);
            // A header field can't contain a blank at all, which is an error.
            let is_refused = file_key == "auth_value_file" && oddity == Some(Oddity::Blanks);
            if let Some(oddity) = oddity.filter(|_| !is_refused) {
                let message = format!("the secret in {} {oddity}", path.display());
                section.warn(file_key, message);
            }
            let found = secret_of_file(&path, read);
            return named(file_key, Some(path), found);
        }
        let is_empty = |key| section.text(key).is_some_and(|text| text.is_empty());
        let empty = [env_key, file_key].into_iter().find(|key| is_empty(key));
        match empty {
            Some(key) if is_needed => {
                section.error(key, format!("'{key}' is empty, and there has to be one"));
                unknown(key)
            }
            Some(key) => {
                section.warn(key, format!("'{key}' is empty, which is as if it were left out"));
                None
            }
            None => [env_key, file_key].into_iter().find(|key| section.has(key)).and_then(unknown),
        }
    }

    fn warn_of_variable(&self, section: &Section<'_>, key: &'static str, name: &str) {
        let value = (self.environment)(name).unwrap_or_default();
        let value = without_mark(&value);
        if value.trim().is_empty() {
            return;
        }
        let variable = format!("the value of the variable '{name}'");
        match Oddity::of(value) {
            None => {}
            Some(Oddity::Blanks) => {
                section.warn(key, format!("{variable} has spaces around it, which are left out"));
            }
            Some(quotes) => section.warn(key, format!("{variable} {quotes}")),
        }
    }

    /// The file that `key` names. A value that does not begin with `/`, `./`, `../` or `~/` is the name of a
    /// credential, if the service manager handed over credentials (systemd's `LoadCredential=`).
    pub(super) fn path(&self, section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
        let path = self.plain_path(section, key)?;
        let is_name = matches!(path.components().next(), Some(Component::Normal(_)));
        match self.variable("CREDENTIALS_DIRECTORY") {
            Some(folder) if is_name => Some(Path::new(&folder).join(path)),
            _ => Some(path),
        }
    }

    /// The path under `key`, in which `~/` is the home folder.
    pub(super) fn plain_path(&self, section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
        let written = section.text(key)?;
        let Some(rest) = written.strip_prefix('~') else { return Some(PathBuf::from(written)) };
        if !rest.is_empty() && !rest.starts_with('/') {
            let message = format!(
                "'{key}' must be a path; '~/' is the home folder, '~name' is not known here"
            );
            section.error(key, message);
        } else if let Some(home) = self.variable("HOME") {
            return Some(Path::new(&home).join(rest.trim_start_matches('/')));
        } else {
            let message = format!(
                "'{key}' begins with the home folder, but HOME is not set; write the whole path"
            );
            section.error(key, message);
        }
        Some(PathBuf::from(written))
    }
}

fn is_variable_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit())
}
