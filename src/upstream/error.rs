//! Why there is no way to a provider, and why there is no response.

use std::fmt;
use std::io;

use rustls::pki_types::pem;

use crate::shortage::Shortage;

/// The reason why there is no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// evertoken ran out of a resource; the provider is not involved.
    Short(Shortage),
    /// A connection, but no HTTP response on it.
    Broken(String),
    /// No response head in time.
    TimedOut(String),
    /// The client went away.
    ClientGone,
    /// The client's request body could not be read.
    RequestBody(io::Error),
    /// The request holds something that can't be sent.
    Unsendable(String),
}

/// What of a configuration leaves no way to a provider.
#[derive(Debug)]
pub enum SetupError {
    /// A `base_url` without a host, or of another scheme.
    BaseUrl,
    /// The URL of a proxy; it may hold a password and is not shown.
    ProxyUrl,
    /// A file of certificates that is no PEM: which one, and why.
    Certificates(&'static str, pem::Error),
    /// A file without a certificate that can be used: which one.
    NoCertificate(&'static str),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl => f.write_str("the base_url can't be used"),
            Self::ProxyUrl => f.write_str("the proxy URL can't be used"),
            Self::Certificates(file, error) => write!(f, "the {file}: {error}"),
            Self::NoCertificate(file) => write!(f, "there is no certificate in the {file}"),
        }
    }
}

impl std::error::Error for SetupError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::Egress;
    use crate::upstream::{Timeouts, Upstream};

    #[test]
    fn each_setup_error_says_what_can_not_be_used() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, response: second, idle: second };
        let failing = |url: &str, egress: &Egress| {
            Upstream::new(url, egress, timeouts, 0).err().map(|error| error.to_string())
        };
        let with = |pem: &str| Egress { extra_roots_pem: Some(pem.into()), ..Egress::default() };
        assert_eq!(failing("http://h", &Egress::default()), None);
        let wrong = failing("ftp://h", &Egress::default());
        assert_eq!(wrong.as_deref(), Some("the base_url can't be used"));
        let empty = failing("https://h", &with("no PEM"));
        assert_eq!(empty.as_deref(), Some("there is no certificate in the ca_file"));
        let cut = failing("https://h", &with("-----BEGIN CERTIFICATE-----\nAAAA\n"));
        assert!(cut.is_some_and(|words| words.starts_with("the ca_file: ")));
    }
}
