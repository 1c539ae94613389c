//! Reads the files with a provider's secrets again.

use std::path::Path;

use crate::config::{AutoRefresh, SecretFiles, SecretLookup, secret_file, secret_of_file};

/// The current content of the secret file `path`.
pub(crate) fn secret_in(path: &Path) -> SecretLookup {
    secret_of_file(path, secret_file::read(path))
}

/// `config` with the current content of its files; None if its secrets come from no file.
pub(crate) fn read_again(config: &AutoRefresh) -> Option<AutoRefresh> {
    if config.files == SecretFiles::default() {
        return None;
    }
    let mut read = config.clone();
    if let Some(path) = &config.files.client_id {
        read.client_id = secret_in(path).map(|id| id.expose().to_owned());
    }
    if let Some(path) = config.files.client_secret.as_ref().filter(|_| read.client_secret.is_some())
    {
        read.client_secret = Some(secret_in(path));
    }
    if let Some(path) = config.files.seed.as_ref().filter(|_| read.seed.is_some()) {
        read.seed = Some(secret_in(path));
    }
    Some(read)
}
