//! Endpoints of an issuer: URLs that receive secrets.

use crate::config::is_metadata_host;
use crate::config::raw::Section;
use crate::config::url::{self, split_url};

/// The URL under `key`, whose problems are reported; `why` is the reason why it must be https.
pub(super) fn read(section: &Section<'_>, key: &'static str, why: &str) -> Option<String> {
    read_with(section, key, why, false)
}

/// The same; `may_be_metadata` says that it may be http to the metadata server of a cloud, because nothing secret is sent
/// there.
pub(super) fn read_with(
    section: &Section<'_>,
    key: &'static str,
    why: &str,
    may_be_metadata: bool,
) -> Option<String> {
    let written = section.text(key)?;
    match split_url(&written) {
        None => section.error(key, url::problem(key, &written, "an https URL")),
        Some((_, _, path)) if path.contains('#') => {
            section.error(key, format!("'{key}' must not hold a '#'"));
        }
        Some(("http", host, _)) if may_be_metadata && is_metadata_host(host) => {}
        Some(("http", _, _)) if !url::is_loopback(&written) => {
            let message =
                format!("'{key}' must be https, since {why}; http is for loopback addresses alone");
            section.error(key, message);
        }
        Some(_) => {}
    }
    Some(written)
}
