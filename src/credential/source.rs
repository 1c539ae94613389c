//! Where the credential of one provider comes from while evertoken runs: the answer to "which credential do I send?".

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Deadline, Moment};
use crate::config::{Credential, FIRST_TOKEN_WAIT, Missing};
use crate::credential::waiting;
use crate::http::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::token::refresher::Inbox;
use crate::token::store::{Generation, Posting, PostingKey, TokenStore};
use crate::token::watched::Watched;

/// How long a request whose token was refused waits for a newer one.
const NEWER_TOKEN_WAIT: Duration = Duration::from_secs(10);

/// The source of a provider's credential.
pub enum Source {
    /// None is sent but what the client itself brings.
    Nothing,
    /// A fixed text.
    Fixed(Secret),
    /// A fixed text that is missing.
    Missing(Missing),
    /// A file that is read again when it changes.
    File(Arc<Watched>),
    /// A chain of refresh tokens.
    Refreshed(RefreshedSource),
}

/// The tokens of a chain, as its refresher publishes them. Several providers may share it.
pub struct RefreshedSource {
    /// All that refreshers publish.
    pub store: Arc<TokenStore>,
    /// Which of it is this chain's.
    pub chain: PostingKey,
    /// Its refresher; None for a disabled provider.
    pub inbox: Option<Inbox>,
    /// The command by which a person refreshes it.
    pub command: String,
}

/// The credential that one request is sent with.
pub enum InUse<'a> {
    /// No proxy.
    Nothing,
    /// One that does not change.
    Fixed(&'a Secret),
    /// Out of a file that another program keeps.
    OfFile(Secret, Generation),
    /// The token of a posting, which has a valid one.
    Posted(Arc<Posting>),
}

impl InUse<'_> {
    /// Its text.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Nothing => None,
            Self::Fixed(secret) => Some(secret),
            Self::OfFile(secret, _) => Some(secret),
            Self::Posted(posting) => posting.token.as_ref().map(|token| &token.secret),
        }
    }

    /// The token's generation; None for a credential that does not change.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Nothing | Self::Fixed(_) => None,
            Self::OfFile(_, generation) => Some(*generation),
            Self::Posted(posting) => posting.token.as_ref().map(|token| token.generation),
        }
    }
}

impl RefreshedSource {
    fn posting(&self) -> Arc<Posting> {
        self.store.read(self.chain)
    }

    /// A valid token, for which a request waits where one is on its way.
    fn wait(&self, name: &str, clock: &Clock) -> Result<InUse<'static>, Refusal> {
        let known = self.posting();
        if known.valid_token(clock.now()).is_some() {
            return Ok(InUse::Posted(known));
        }
        let deadline = Deadline::after(FIRST_TOKEN_WAIT);
        if let Some(inbox) = &self.inbox {
            let heard = inbox.wait_for_token();
            if !known.refreshing {
                // What is known may be old: the next try may come sooner now that it is waited for.
                let _ = heard.recv_timeout(deadline.left());
            }
        }
        let posting = self.store.wait(self.chain, deadline, |posting| {
            !waiting::is_worth_it(posting, clock.now(), deadline.left())
        });
        let now = clock.now();
        if posting.valid_token(now).is_some() {
            return Ok(InUse::Posted(posting));
        }
        Err(waiting::no_token(name, &posting, now.wall, &self.command))
    }

    fn has_newer(&self, generation: Generation, may_wait: bool, clock: &Clock) -> bool {
        let is_there = || {
            let posting = self.posting();
            posting.valid_token(clock.now()).is_some_and(|token| token.generation > generation)
        };
        if is_there() {
            return may_wait;
        }
        let Some(inbox) = &self.inbox else { return false };
        let outcome = inbox.reject(generation);
        if !may_wait {
            return false;
        }
        let deadline = Deadline::after(NEWER_TOKEN_WAIT);
        // The refresher closes this end once the outcome is published.
        let _ = outcome.recv_timeout(deadline.left());
        // A failure that may pass is tried again soon; a client would rather wait than see that its token is no good.
        self.store.wait(self.chain, deadline, |posting| {
            let (now, left) = (clock.now(), deadline.left());
            !waiting::is_worth_it_for_newer(posting, generation, now, left)
        });
        is_there()
    }
}

impl Source {
    /// Of a credential that needs neither a file nor a refresher.
    pub fn fixed(credential: &Credential) -> Self {
        match credential {
            Credential::Static(secret) => Self::Fixed(secret.clone()),
            Credential::Missing(missing) => Self::Missing(missing.clone()),
            _ => Self::Nothing,
        }
    }

    /// What the refresher last said; nothing for what is not refreshed.
    pub fn posting(&self) -> Arc<Posting> {
        match self {
            Self::Refreshed(refreshed) => refreshed.posting(),
            _ => Arc::default(),
        }
    }

    /// The watched file; None for another source.
    pub fn file(&self) -> Option<&Arc<Watched>> {
        match self {
            Self::File(watched) => Some(watched),
            _ => None,
        }
    }

    /// The refresher; None where there is none.
    pub fn refresher(&self) -> Option<&Inbox> {
        match self {
            Self::Refreshed(refreshed) => refreshed.inbox.as_ref(),
            _ => None,
        }
    }

    /// Which chain's tokens it has; None where there is none.
    pub fn chain(&self) -> Option<PostingKey> {
        match self {
            Self::Refreshed(refreshed) => Some(refreshed.chain),
            _ => None,
        }
    }

    /// Whether there is a credential to send; `posting` is its own.
    pub fn has_one(&self, posting: &Posting, now: Moment) -> bool {
        match self {
            Self::Nothing | Self::Fixed(_) => true,
            Self::Missing(_) => false,
            Self::File(watched) => watched.read(now).is_ok(),
            Self::Refreshed(_) => posting.valid_token(now).is_some(),
        }
    }

    /// The credential for a request to the provider called `name`, for which it waits where the first token is on its way.
    pub fn wait(&self, name: &str, clock: &Clock) -> Result<InUse<'_>, Refusal> {
        let unavailable = |why: &dyn Display| {
            Refusal::new(Code::TokenUnavailable, format!("No credential for {name}: {why}"))
        };
        match self {
            Self::Nothing => Ok(InUse::Nothing),
            Self::Fixed(secret) => Ok(InUse::Fixed(secret)),
            Self::Missing(missing) => Err(waiting::no_fixed(name, missing)),
            Self::File(watched) => {
                let kept = watched.read(clock.now()).map_err(|why| unavailable(&why))?;
                Ok(InUse::OfFile(kept.secret, kept.generation))
            }
            Self::Refreshed(refreshed) => refreshed.wait(name, clock),
        }
    }

    /// Whether there is a valid token newer than `generation`, which the provider refused; where `may_wait`, after waiting
    /// for a refresh.
    pub fn has_newer(&self, generation: Generation, may_wait: bool, clock: &Clock) -> bool {
        match self {
            Self::Refreshed(refreshed) => refreshed.has_newer(generation, may_wait, clock),
            Self::File(watched) => {
                // Its owner refreshes it; all there is to do is to look again.
                let kept = watched.read(clock.now());
                may_wait && kept.is_ok_and(|kept| kept.generation > generation)
            }
            Self::Nothing | Self::Fixed(_) | Self::Missing(_) => false,
        }
    }

    /// Why there is no credential; `posting` is its own.
    pub fn why_none(&self, posting: &Posting, now: Moment) -> String {
        let on_its_way = "the first token is still on its way";
        match self {
            Self::Missing(missing) => missing.to_string(),
            Self::File(watched) => {
                let why = watched.read(now).err();
                why.map_or_else(|| on_its_way.to_owned(), |why| why.to_string())
            }
            _ => posting.trouble().map_or_else(|| on_its_way.to_owned(), Into::into),
        }
    }
}
