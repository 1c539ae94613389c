//! The reasons why a login failed, with advice. Pure.

use std::fmt;
use std::io;

use crate::config::Missing;
use crate::login::device::DeviceError;
use crate::login::refused;
use crate::token::grant::Failure;

/// The reason why a login failed; `Display` gives advice, and holds no secret.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// The configuration of this provider lacks a key that the login needs.
    Unconfigured(String, &'static str),
    /// A secret that the configuration names is missing.
    Missing(Missing),
    /// The address of the callback can't be bound.
    Bind(String, io::Error),
    /// The system gives no random bytes.
    Random(io::Error),
    /// The terminal can't be read.
    Terminal(io::Error),
    /// The callback's listener ended.
    ListenerEnded,
    /// The browser did not return in time.
    BrowserLate,
    /// Nothing was pasted in time.
    PasteLate,
    /// The input ended before something was pasted.
    InputEnded,
    /// The pasted text was never the code.
    NotTheCode,
    /// The issuer refused the authorization, in these words.
    Refused(String),
    /// The issuer rejected the code.
    CodeRefused(Failure),
    /// The issuer did not answer.
    Unanswered(Failure),
    /// The issuer gave no refresh token.
    NoRefreshToken,
    /// The tokens could not be stored.
    NotStored(String),
    /// The device grant failed.
    Device(DeviceError),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfigured(provider, key) => write!(
                f,
                "Provider {provider}: auto_refresh_config needs {key} for this login; providers.yaml.example shows \
                 where it stands"
            ),
            Self::Missing(missing) => write!(f, "{missing}"),
            Self::Bind(address, error) => write!(
                f,
                "can't listen on {address} for the browser: {error}; end what uses the port, or use --paste"
            ),
            Self::Random(error) => write!(f, "The system gives no random bytes: {error}"),
            Self::Terminal(error) => write!(f, "Nothing can be read from the terminal: {error}"),
            Self::ListenerEnded => f.write_str("The listener ended"),
            Self::BrowserLate => f.write_str("The browser did not come back in time; try again"),
            Self::PasteLate => f.write_str("Nothing was pasted in time; try again"),
            Self::InputEnded => f.write_str("Nothing was pasted: the input has ended"),
            Self::NotTheCode => f.write_str("What was pasted was not the code; try again"),
            Self::Refused(words) | Self::NotStored(words) => f.write_str(words),
            Self::CodeRefused(failure) => {
                let what = refused::with_advice(failure, "token_url");
                write!(f, "The issuer did not take the code: {what}")
            }
            Self::Unanswered(failure) => {
                write!(f, "The issuer can't be asked: {}", failure.what)
            }
            Self::NoRefreshToken => f.write_str(
                "The issuer gave no refresh token, so nothing was stored. It has to be asked for: with \
                 'scope' (offline_access, for many), or in the query of 'authorization_url' \
                 (prompt=consent where the issuer wants the consent for offline_access to be given again; \
                 access_type=offline for Google)",
            ),
            Self::Device(error) => write!(f, "{error}"),
        }
    }
}

impl From<Missing> for LoginError {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<DeviceError> for LoginError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}
