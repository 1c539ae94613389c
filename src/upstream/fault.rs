//! Faults on the way to a provider, before they are assigned to a phase.

use std::io;

use rustls::AlertDescription;

use crate::http::chunked::BadFraming;
use crate::http::head::BadHead;
use crate::shortage::Shortage;
use crate::upstream::error::UpstreamError;

/// A connection that could not be made in time, in words.
pub(super) const TOO_LONG_TO_CONNECT: &str = "it took longer than timeouts.connect allows";

/// The fault.
/// In words it contains nothing of the exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The client went away.
    #[error("the client went away")]
    ClientGone,
    /// It took too long.
    #[error("it took too long")]
    TimedOut,
    /// The provider read nothing of the request for too long.
    #[error("it took nothing of the request for longer than timeouts.idle allows")]
    Untaken,
    /// The provider ended the connection cleanly.
    #[error("the connection was closed")]
    Closed,
    /// The connection ended without TLS announcing it: the last bytes may be missing (RFC 9112 §9.8).
    #[error("the connection was cut: TLS did not say that it ends")]
    Cut,
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
    /// TLS failed.
    #[error("TLS: {}", of_tls(.0))]
    Tls(#[from] rustls::Error),
    /// The bytes are not HTTP, or the connection can't be made, for this reason.
    #[error("{0}")]
    Bad(String),
    /// evertoken ran out of a resource; the provider is not involved.
    #[error("{0}")]
    Short(Shortage),
    /// The client's request body could not be read.
    #[error("{0}")]
    RequestBody(io::Error),
    /// The request holds something that can't be sent.
    #[error("{0}")]
    Unsendable(&'static str),
}

impl Fault {
    /// The fault during the making of a connection.
    pub(super) fn connecting(self) -> UpstreamError {
        match self {
            Self::ClientGone => UpstreamError::ClientGone,
            Self::TimedOut => UpstreamError::Unreachable(TOO_LONG_TO_CONNECT.to_owned()),
            Self::Short(shortage) => UpstreamError::Short(shortage),
            Self::Tls(error) => UpstreamError::NoTls {
                why: format!("TLS: {}", reason(&error)),
                remedy: remedy(&error),
            },
            other => UpstreamError::Unreachable(other.to_string()),
        }
    }

    /// The fault during an exchange on a connection.
    pub(super) fn exchanging(self) -> UpstreamError {
        match self {
            Self::ClientGone => UpstreamError::ClientGone,
            Self::TimedOut => {
                let why = "no response came within timeouts.response";
                UpstreamError::TimedOut(why.to_owned())
            }
            Self::Untaken => UpstreamError::TimedOut(self.to_string()),
            Self::RequestBody(error) => UpstreamError::RequestBody(error),
            Self::Unsendable(what) => UpstreamError::Unsendable(what.to_owned()),
            Self::Short(shortage) => UpstreamError::Short(shortage),
            other => UpstreamError::Broken(other.to_string()),
        }
    }

    /// True if a kept connection that the provider had just closed may cause it.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::Cut | Self::Io(_) | Self::Tls(rustls::Error::AlertReceived(_))
        )
    }
}

/// A fault of TLS in words, with the remedy for an untrusted certificate.
fn of_tls(error: &rustls::Error) -> String {
    reason(error) + remedy(error)
}

fn remedy(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            ". Where it is self-signed, or signed by an authority of your own or by a proxy that looks into TLS, name the \
             signer's PEM file as ca_file, or set settings.tls_roots: \"system\" where this machine trusts the signer"
        }
        _ => "",
    }
}

fn reason(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    if let rustls::Error::AlertReceived(alert) = error {
        return of_alert(*alert);
    }
    // Our own words.
    if let rustls::Error::General(why) = error {
        return why.clone();
    }
    let rustls::Error::InvalidCertificate(bad) = error else { return error.to_string() };
    match bad {
        // A signature is also bad if an authority of the same name has another key now.
        Bad::UnknownIssuer | Bad::BadSignature => {
            "the certificate is not signed by an authority that is trusted".to_owned()
        }
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the certificate has expired, or this machine's clock is wrong".to_owned()
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "the certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the certificate is that of an authority (CA:TRUE), which can't be a server's too: sign one for the server with \
             it, or make the server's own without (basicConstraints=CA:FALSE)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// An alert of the server's, with the remedy if it is about the client's certificate (RFC 8446 §6.2).
fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    let said = rustls::Error::AlertReceived(alert).to_string();
    match alert {
        Alert::CertificateRequired => {
            format!("{said}: the server wants a client certificate; name one as client_cert_file")
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA => {
            format!("{said}: the server refuses the client certificate (client_cert_file)")
        }
        _ => said,
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if let Some(shortage) = Shortage::of(&error) {
            return Self::Short(shortage);
        }
        let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(of_tls) = of_tls {
            return Self::Tls(of_tls.clone());
        }
        match error.kind() {
            // rustls reports a connection that ended without a close_notify like this.
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

impl From<BadHead> for Fault {
    fn from(bad: BadHead) -> Self {
        Self::Bad(bad.to_string())
    }
}

impl From<BadFraming> for Fault {
    fn from(bad: BadFraming) -> Self {
        Self::Bad(bad.to_string())
    }
}

/// The fault as an error of reading the answer.
impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TimedOut | Fault::Untaken => io::ErrorKind::TimedOut.into(),
            Fault::Closed | Fault::Cut => io::ErrorKind::UnexpectedEof.into(),
            Fault::Io(error) => error,
            Fault::Short(shortage) => shortage.into(),
            other => io::Error::other(other.to_string()),
        }
    }
}
