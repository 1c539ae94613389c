//! Reads the files with a provider's secrets again.

use std::path::Path;

use crate::config::{
    AutoRefresh, Bearer, GrantType, SecretFiles, SecretLookup, secret_file, secret_of_file,
};

/// The current content of the secret file `path`.
pub(crate) fn secret_in(path: &Path) -> SecretLookup {
    secret_of_file(path, secret_file::read(path))
}

/// `config` with the current content of its files; None if its secrets come from no file.
pub(crate) fn read_again(config: &AutoRefresh) -> Option<AutoRefresh> {
    let subject = match &config.grant_type {
        GrantType::TokenExchange(exchange) => exchange.subject_token_file.clone(),
        GrantType::Request(request) => request.file().cloned(),
        _ => None,
    };
    if config.files == SecretFiles::default()
        && config.assertions().next().is_none()
        && config.client_certificate.is_none()
        && subject.is_none()
    {
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
    if let Some(certificate) = &mut read.client_certificate {
        certificate.read_again(&secret_in);
    }
    read.assertions_mut().for_each(|assertion| assertion.read_again(&secret_in));
    match &mut read.grant_type {
        GrantType::TokenExchange(exchange) => {
            if let Some(path) = subject {
                exchange.subject_token = secret_in(&path);
            }
        }
        GrantType::Request(request) => {
            if let Some(Bearer::Secret { found, .. }) = &mut request.bearer
                && let Some(path) = subject
            {
                *found = secret_in(&path);
            }
        }
        GrantType::JwtBearer(bearer) if read.token_url.is_empty() => {
            read.token_url = bearer.assertion.token_url().unwrap_or_default();
        }
        _ => {}
    }
    Some(read)
}
