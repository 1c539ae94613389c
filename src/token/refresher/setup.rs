//! The whole setup of a refresher, from the program or a test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use fastrand::Rng;

use crate::clock::Clock;
use crate::config::AutoRefresh;
use crate::shared::chain::SharedChain;
use crate::token::places::Seeker;
use crate::token::sender::IssuerLink;
use crate::token::state_file::StateFile;
use crate::token::store::{PostingKey, TokenStore};

/// The longest sleep of a refresher. After it at the latest, a new login, a suspended machine or a stepped clock is
/// noticed, and an unwritten state file is tried again.
pub const TICK_MS: u64 = 30_000;
/// The wait while another process refreshes the same provider.
pub(super) const LOCK_RETRY_MS: u64 = 250;
/// The longest wait of a command for another process or host: longer than a token request may take.
pub(super) const BUSY_WAIT_MAX_MS: u64 = 45_000;

/// Makes a channel that becomes ready after a time: a test can hold the other end.
pub(crate) type Timer = Box<dyn Fn(Duration) -> Receiver<Instant> + std::marker::Send>;

/// The purpose of a refresher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To keep a token fresh, on a thread.
    Serve,
    /// To refresh once, for a command.
    Refresh,
    /// To get a valid token once, for a command that says itself why there is none.
    Obtain,
}

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
    pub link: IssuerLink,
    /// For jitter.
    pub rng: Rng,
    /// True if a hanging disk is reported, for which each call to the disk takes a thread.
    pub watches_disk: bool,
}
