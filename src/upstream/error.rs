//! Why there is no way to a provider, and why there is no response.

use std::io;

use rustls::pki_types::pem;

use crate::shortage::Shortage;

/// The reason why there is no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// A connection without the TLS that it needs: nothing was sent.
    NoTls {
        /// The reason.
        why: String,
        /// The keys of a provider that help, in words that follow the reason; perhaps none.
        remedy: &'static str,
    },
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
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A `base_url` without a host, or of another scheme.
    #[error("the base_url can't be used")]
    BaseUrl,
    /// The URL of a proxy; it may hold a password and is not shown.
    #[error("the proxy URL can't be used")]
    ProxyUrl,
    /// A file of certificates that is no PEM: which one, and why.
    #[error("the {0}: {1}")]
    Certificates(&'static str, pem::Error),
    /// A file without a certificate that can be used: which one.
    #[error("there is no certificate in the {0}")]
    NoCertificate(&'static str),
}
