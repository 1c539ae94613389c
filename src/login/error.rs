//! The reasons why a login failed, with advice. Pure.

use std::io;

use crate::config::Missing;
use crate::login::device::DeviceError;
use crate::login::refused;
use crate::token::discovery::DiscoveryError;
use crate::token::grant::Failure;
use crate::token::refresher::NotStored;

/// The reason why a login failed; `Display` gives advice, and holds no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The configuration of this provider lacks a key that the login needs.
    #[error(
        "Provider {0}: auto_refresh_config needs {1} for this login; providers.yaml.example shows where it stands"
    )]
    Unconfigured(String, &'static str),
    /// This provider gets its tokens without anybody's login, in the way that the second text names.
    #[error("Provider {0} needs no login: its {1} brings its tokens (evertoken refresh tries it)")]
    NotNeeded(String, &'static str),
    /// The issuer's metadata, which the login needs, is not known.
    #[error("{0}")]
    NoMetadata(#[from] DiscoveryError),
    /// A secret that the configuration names is missing.
    #[error("{0}")]
    Missing(#[from] Missing),
    /// The address of the callback can't be bound.
    #[error("can't listen on {0} for the browser: {1}; end what uses the port, or use --paste")]
    Bind(String, io::Error),
    /// The system gives no random bytes.
    #[error("The system gives no random bytes: {0}")]
    Random(io::Error),
    /// The terminal can't be read.
    #[error("Nothing can be read from the terminal: {0}")]
    Terminal(io::Error),
    /// The callback's listener ended.
    #[error("The listener ended")]
    ListenerEnded,
    /// The browser did not return in time.
    #[error("The browser did not come back in time; try again")]
    BrowserLate,
    /// Nothing was pasted in time.
    #[error("Nothing was pasted in time; try again")]
    PasteLate,
    /// The input ended before something was pasted.
    #[error("Nothing was pasted: the input has ended")]
    InputEnded,
    /// The pasted text was never the code.
    #[error("What was pasted was not the code; try again")]
    NotTheCode,
    /// The issuer refused the authorization, in these words.
    #[error("{0}")]
    Refused(String),
    /// The issuer rejected the code.
    #[error("The issuer did not take the code: {}", refused::with_advice(.0, "token_url"))]
    CodeRefused(Failure),
    /// The issuer did not answer.
    #[error("The issuer can't be asked: {}", .0.what)]
    Unanswered(Failure),
    /// The issuer gave no refresh token.
    #[error(
        "The issuer gave no refresh token, so nothing was stored. It has to be asked for: with 'scope' (offline_access, \
         for many), or in the query of 'authorization_url' (prompt=consent where the issuer wants the consent for \
         offline_access to be given again; access_type=offline for Google)"
    )]
    NoRefreshToken,
    /// The tokens could not be stored.
    #[error("{0}")]
    NotStored(NotStored),
    /// The device grant failed.
    #[error("{0}")]
    Device(#[from] DeviceError),
}
