//! Endpoints of an issuer: URLs that receive secrets.

use crate::config::raw::Section;
use crate::config::url::{self, split_url};

/// Reports a problem with the `url` of an endpoint.
pub(super) fn check_endpoint(section: &Section<'_>, key: &str, written: &str, why: &str) {
    match split_url(written) {
        None => section.error(key, url::problem(key, written, "an https URL")),
        Some((_, _, path)) if path.contains('#') => {
            section.error(key, format!("'{key}' must not hold a '#'"));
        }
        Some(("http", _, _)) if !url::is_loopback(written) => {
            let message =
                format!("'{key}' must be https, since {why}; http is for loopback addresses alone");
            section.error(key, message);
        }
        Some(_) => {}
    }
}
