//! The whole setup of a refresher, from the program or a test.

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

/// The longest sleep of a refresher. After it at the latest, a new login, a suspended machine or a stepped clock is
/// noticed, and an unwritten state file is tried again.
pub const TICK_MS: u64 = 30_000;
/// The wait while another process refreshes the same provider.
pub(super) const LOCK_RETRY_MS: u64 = 250;
/// The longest wait of a command for another process or host: longer than a token request may take.
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

/// Sends a token request, within the given time. Fails if no answer comes.
pub(crate) type Send =
    Box<dyn Fn(&TokenRequest, Duration) -> Result<TokenAnswer, Failure> + std::marker::Send>;

/// Makes a channel that becomes ready after a time: a test can hold the other end.
pub(crate) type Timer = Box<dyn Fn(Duration) -> Receiver<Instant> + std::marker::Send>;

/// The whole setup of a refresher.
pub struct Setup {
    /// The key of its posting.
    pub provider: PostingKey,
    /// The provider's name, for the log.
    pub name: String,
    /// The configuration of its token requests.
    pub config: AutoRefresh,
    /// The state file.
    pub state: StateFile,
    /// Looks for the chain in other files.
    pub seeker: Seeker,
    /// The chain in the shared store; None without one.
    pub chain: Option<SharedChain>,
    /// The store of postings.
    pub store: Arc<TokenStore>,
    pub clock: Clock,
    /// For waits.
    pub timer: Timer,
    /// The way to the token endpoint.
    pub send: Send,
    /// For jitter.
    pub rng: Rng,
    /// True if a hanging disk is reported, for which each call to the disk takes a thread.
    pub watches_disk: bool,
}
