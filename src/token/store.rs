//! The meeting place of refreshers and the forwarding path: a map with one posting for each provider.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use crate::clock::{Deadline, Due, Moment, Timestamp};
use crate::config::Missing;
use crate::record::refresh_end::RefreshEnd;
use crate::secret::Secret;
use crate::token::history::RefreshStatus;
use crate::token::waiting::Waiting;

/// The key of a refresher's posting; never used again for another refresher.
pub(crate) type PostingKey = u64;

/// The number of a token in its refresher's sequence; a later token has a larger one.
pub(crate) type Generation = u64;

/// The latest state that a refresher published.
#[derive(Clone, Debug, Default)]
pub struct Posting {
    /// The newest token, valid or not.
    pub token: Option<Token>,
    /// True if a refresh is under way, or about to start.
    pub refreshing: bool,
    /// The history of refreshes.
    pub refresh: RefreshStatus,
    /// The error of writing the state file, if there was one.
    pub disk_error: Option<String>,
    /// The refresher's wait, if it is long.
    pub waiting: Option<Waiting>,
    /// The end of the refresh token, if its issuer names it.
    pub refresh_end: Option<RefreshEnd>,
    /// Names the login or the seed with which the chain began, and so the account; None before that is known.
    pub origin: Option<u64>,
    /// The secret whose lack will fail the next refresh, though there is a token now.
    pub missing: Option<Missing>,
}

/// A published access token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token's text.
    pub secret: Secret,
    /// Its number in the sequence of tokens.
    pub generation: Generation,
    /// The time from which it must not be sent.
    pub expires: Due,
    /// The time at which it was requested.
    pub obtained_at: Timestamp,
    /// The time of its refresh.
    pub refresh_due_at: Timestamp,
    /// `refresh`, `state_file`, or `token_store` if another host obtained it.
    pub source: &'static str,
}

impl Posting {
    /// The reason why there is no token, or why it is not refreshed: the wait, else the last failure.
    pub fn trouble(&self) -> Option<String> {
        let waiting = self.waiting.as_ref().map(ToString::to_string);
        waiting.or_else(|| self.refresh.last_error.as_ref().map(ToString::to_string))
    }

    /// The token, if it may be sent at `now`.
    pub fn valid_token(&self, now: Moment) -> Option<&Token> {
        self.token.as_ref().filter(|token| !token.expires.reached(now))
    }
}

/// The postings of all refreshed providers.
#[derive(Debug, Default)]
pub struct TokenStore {
    postings: RwLock<HashMap<PostingKey, Arc<Posting>>>,
    publications: Mutex<u64>,
    published: Condvar,
}

impl TokenStore {
    /// Replaces the provider's last posting with `posting`, and wakes its waiters.
    pub fn publish(&self, provider: PostingKey, posting: Posting) {
        // A poisoned lock is taken over: a posting is swapped whole, so it is never half done.
        let mut postings = self.postings.write().unwrap_or_else(PoisonError::into_inner);
        postings.insert(provider, Arc::new(posting));
        drop(postings);
        *self.publications.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.published.notify_all();
    }

    /// Forgets the posting of a removed provider.
    pub fn forget(&self, provider: PostingKey) {
        self.postings.write().unwrap_or_else(PoisonError::into_inner).remove(&provider);
    }

    /// The provider's last posting; an empty one before its refresher published anything.
    pub fn read(&self, provider: PostingKey) -> Arc<Posting> {
        let postings = self.postings.read().unwrap_or_else(PoisonError::into_inner);
        postings.get(&provider).cloned().unwrap_or_default()
    }

    /// Waits until `enough` holds for the provider's posting, at most until `deadline`, and returns the last posting
    /// either way.
    pub fn wait(
        &self,
        provider: PostingKey,
        deadline: Deadline,
        enough: impl Fn(&Posting) -> bool,
    ) -> Arc<Posting> {
        let mut seen = self.publications.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Read under the counter's lock, so that no publication falls between look and wait.
            let posting = self.read(provider);
            let left = deadline.left();
            if enough(&posting) || left.is_zero() {
                return posting;
            }
            seen =
                self.published.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
