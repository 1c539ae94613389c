//! Everything that a refresher works with, as the program or a test hands it over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use fastrand::Rng;

use crate::clock::Clock;
use crate::config::AutoRefresh;
use crate::http::message::Headers;
use crate::shared::chain::SharedChain;
use crate::token::grant::{Failure, TokenRequest};
use crate::token::places::Seeker;
use crate::token::state_file::StateFile;
use crate::token::store::{PostingKey, TokenStore};

/// The longest sleep of a refresher: after this at the latest a login that was stored meanwhile, a
/// suspended machine or a stepped clock is noticed, and a state file that could not be written is
/// tried again.
pub const TICK_MS: u64 = 30_000;
/// How long to wait while another process refreshes the same provider.
pub(super) const LOCK_RETRY_MS: u64 = 250;
/// How long a command waits for another process or host: longer than a token request may take.
pub(super) const BUSY_WAIT_MAX_MS: u64 = 45_000;

/// A token endpoint's whole answer.
#[derive(Debug)]
pub struct TokenAnswer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
}

/// Sends a token request and gives it the time stated. Fails where no answer came.
pub(crate) type Send =
    Box<dyn Fn(&TokenRequest, Duration) -> Result<TokenAnswer, Failure> + std::marker::Send>;

/// Makes a channel that is ready after a time: a test can hold the other end.
pub(crate) type Timer = Box<dyn Fn(Duration) -> Receiver<Instant> + std::marker::Send>;

/// Everything a refresher works with.
pub struct Setup {
    /// Where its token is published.
    pub provider: PostingKey,
    /// The provider's name, for the log.
    pub name: String,
    /// What to ask for and how.
    pub config: AutoRefresh,
    /// Where tokens are kept.
    pub state: StateFile,
    /// Looks for them where they are not there.
    pub seeker: Seeker,
    /// What is shared with other hosts; None where nothing is.
    pub chain: Option<SharedChain>,
    /// Where tokens are published.
    pub store: Arc<TokenStore>,
    /// The time.
    pub clock: Clock,
    /// For waits.
    pub timer: Timer,
    /// The way to the token endpoint.
    pub send: Send,
    /// For jitter.
    pub rng: Rng,
    /// Whether a disk that hangs is said: each call to it takes a thread then.
    pub watches_disk: bool,
}
