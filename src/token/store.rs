//! Where refreshers and the forwarding path meet: one posting a provider, in an `RwLock`ed map.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use crate::clock::{Deadline, Due, Moment, Timestamp};
use crate::config::Missing;
use crate::record::refresh_end::RefreshEnd;
use crate::secret::Secret;
use crate::token::history::RefreshStatus;
use crate::token::waiting::Waiting;

/// Names a refresher's place in the store; never used again for another.
pub(crate) type PostingKey = u64;

/// Counts the tokens a refresher published; a later token has a larger one.
pub(crate) type Generation = u64;

/// What a refresher last said about its provider.
#[derive(Clone, Debug, Default)]
pub struct Posting {
    /// The newest token, valid or not.
    pub token: Option<Token>,
    /// Whether a refresh is under way, or about to start.
    pub refreshing: bool,
    /// How refreshing went so far.
    pub refresh: RefreshStatus,
    /// Why the state file could not be written, where that is so.
    pub disk_error: Option<String>,
    /// What the refresher has been waiting for, where that takes long.
    pub waiting: Option<Waiting>,
    /// When the refresh token ends, where its issuer says so.
    pub refresh_end: Option<RefreshEnd>,
    /// What the next refresh will fail for the lack of, though there is a token now.
    pub missing: Option<Missing>,
}

/// A published access token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What is sent.
    pub secret: Secret,
    /// Its place in the row of tokens.
    pub generation: Generation,
    /// When it must not be sent any more.
    pub expires: Due,
    /// When it was asked for.
    pub obtained_at: Timestamp,
    /// When it is refreshed.
    pub refresh_due_at: Timestamp,
    /// `refresh`, `state_file`, or `token_store` where another host got it.
    pub source: &'static str,
}

impl Posting {
    /// Why there is no token, or why it is not refreshed: what is waited for, else the last failure.
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
    /// Puts `posting` in the place of the provider's last one and wakes who waits for it.
    pub fn publish(&self, provider: PostingKey, posting: Posting) {
        // A poisoned lock is taken over: a posting is swapped whole, so it is never half done.
        let mut postings = self.postings.write().unwrap_or_else(PoisonError::into_inner);
        postings.insert(provider, Arc::new(posting));
        drop(postings);
        *self.publications.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.published.notify_all();
    }

    /// Forgets what was published for a provider that is no more.
    pub fn forget(&self, provider: PostingKey) {
        self.postings.write().unwrap_or_else(PoisonError::into_inner).remove(&provider);
    }

    /// The provider's last posting; an empty one before its refresher said anything.
    pub fn read(&self, provider: PostingKey) -> Arc<Posting> {
        let postings = self.postings.read().unwrap_or_else(PoisonError::into_inner);
        postings.get(&provider).cloned().unwrap_or_default()
    }

    /// Waits until `enough` holds for the provider's posting, at most up to `deadline`, and returns
    /// the last posting either way.
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
