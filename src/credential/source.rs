//! The source of one provider's credential while evertoken runs: the answer to "which credential do I send?".

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Deadline, Moment};
use crate::config::{Credential, FIRST_TOKEN_WAIT, Missing};
use crate::credential::access_token::AccessToken;
use crate::credential::waiting;
use crate::http::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::token::refresher::Inbox;
use crate::token::store::{Generation, Posting, PostingKey, TokenStore};
use crate::token::watched::{Kept, Watched};

/// The longest wait of a request with a rejected token for a newer one.
const NEWER_TOKEN_WAIT: Duration = Duration::from_secs(10);

/// The reason why a provider has no access token.
pub(crate) const NO_TOKEN: &str = "its credential is fixed, or the client's own";

/// The source of a provider's credential.
pub enum Source {
    /// Only the client's own credential is sent, if it has one.
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

/// The tokens of a chain, published by its refresher. Several providers may share it.
pub struct RefreshedSource {
    /// The postings of all refreshers.
    pub store: Arc<TokenStore>,
    /// The chain's key among them.
    pub chain: PostingKey,
    /// Its refresher; None for a disabled provider.
    pub inbox: Option<Inbox>,
    /// The command with which a person refreshes it.
    pub command: String,
}

/// The credential of one request.
pub enum InUse<'a> {
    /// No proxy.
    Nothing,
    /// A credential that does not change.
    Fixed(&'a Secret),
    /// From a file that another program keeps.
    OfFile(Kept),
    /// The valid token of a posting.
    Posted(Arc<Posting>),
}

impl InUse<'_> {
    /// The credential's text.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Nothing => None,
            Self::Fixed(secret) => Some(secret),
            Self::OfFile(kept) => Some(&kept.secret),
            Self::Posted(posting) => posting.token.as_ref().map(|token| &token.secret),
        }
    }

    /// The token's generation; None for a credential that does not change.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Nothing | Self::Fixed(_) => None,
            Self::OfFile(kept) => Some(kept.generation),
            Self::Posted(posting) => posting.token.as_ref().map(|token| token.generation),
        }
    }

    /// Names the account among those that the provider's configuration could be about.
    pub fn origin(&self) -> u64 {
        match self {
            Self::Nothing | Self::Fixed(_) => 0,
            Self::OfFile(kept) => kept.origin,
            Self::Posted(posting) => posting.origin.unwrap_or(0),
        }
    }
}

impl RefreshedSource {
    fn posting(&self) -> Arc<Posting> {
        self.store.read(self.chain)
    }

    /// A valid token; waits for it if one is on its way.
    fn wait(&self, name: &str, clock: &Clock) -> Result<InUse<'static>, Refusal> {
        let known = self.posting();
        if known.valid_token(clock.now()).is_some() {
            return Ok(InUse::Posted(known));
        }
        let deadline = Deadline::after(FIRST_TOKEN_WAIT);
        let wait = || {
            self.store.wait(self.chain, deadline, |posting| {
                !waiting::is_worth_it(posting, clock.now(), deadline.left())
            })
        };
        if let Some(inbox) = &self.inbox {
            let heard = inbox.wait_for_token();
            if !known.refreshing || wait().valid_token(clock.now()).is_none() {
                // The posting may be older than a reload or an order, or the next try may come sooner now that a
                // request waits.
                let _ = heard.recv_timeout(deadline.left());
            }
        }
        let posting = wait();
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
        // The refresher closes this end once it has published the outcome.
        let _ = outcome.recv_timeout(deadline.left());
        // A transient failure is retried soon; the client would rather wait than see a rejected token.
        self.store.wait(self.chain, deadline, |posting| {
            let (now, left) = (clock.now(), deadline.left());
            !waiting::is_worth_it_for_newer(posting, generation, now, left)
        });
        is_there()
    }
}

fn unavailable(name: &str, why: &dyn Display) -> Refusal {
    Refusal::new(Code::TokenUnavailable, format!("No credential for {name}: {why}"))
}

impl Source {
    /// The source for a credential that needs neither a file nor a refresher.
    pub fn fixed(credential: &Credential) -> Self {
        match credential {
            Credential::Static(secret) => Self::Fixed(secret.clone()),
            Credential::Missing(missing) => Self::Missing(missing.clone()),
            _ => Self::Nothing,
        }
    }

    fn refreshed(&self) -> Option<&RefreshedSource> {
        match self {
            Self::Refreshed(refreshed) => Some(refreshed),
            _ => None,
        }
    }

    /// The refresher's latest posting; an empty one for other sources.
    pub fn posting(&self) -> Arc<Posting> {
        self.refreshed().map_or_else(Arc::default, RefreshedSource::posting)
    }

    /// The watched file; None for other sources.
    pub fn file(&self) -> Option<&Arc<Watched>> {
        match self {
            Self::File(watched) => Some(watched),
            _ => None,
        }
    }

    /// The refresher; None for other sources.
    pub fn refresher(&self) -> Option<&Inbox> {
        self.refreshed()?.inbox.as_ref()
    }

    /// The key of the chain; None for other sources.
    pub fn chain(&self) -> Option<PostingKey> {
        Some(self.refreshed()?.chain)
    }

    /// True if there is a credential to send; `posting` is this source's.
    pub fn has_one(&self, posting: &Posting, now: Moment) -> bool {
        match self {
            Self::Nothing | Self::Fixed(_) => true,
            Self::Missing(_) => false,
            Self::File(watched) => watched.known(now).is_ok(),
            Self::Refreshed(_) => posting.valid_token(now).is_some(),
        }
    }

    /// See [`InUse::origin`]; None while the credential is not known.
    pub fn origin(&self, now: Moment) -> Option<u64> {
        match self {
            Self::Nothing | Self::Fixed(_) | Self::Missing(_) => Some(0),
            Self::File(watched) => watched.known(now).ok().map(|kept| kept.origin),
            Self::Refreshed(refreshed) => refreshed.posting().origin,
        }
    }

    /// The credential for a request to the provider called `name`; waits if the first token is on its way.
    pub fn wait(&self, name: &str, clock: &Clock) -> Result<InUse<'_>, Refusal> {
        match self {
            Self::Nothing => Ok(InUse::Nothing),
            Self::Fixed(secret) => Ok(InUse::Fixed(secret)),
            Self::Missing(missing) => Err(waiting::no_fixed(name, missing)),
            Self::File(watched) => {
                let kept = watched.wait(clock, |_| true).map_err(|why| unavailable(name, &why))?;
                Ok(InUse::OfFile(kept))
            }
            Self::Refreshed(refreshed) => refreshed.wait(name, clock),
        }
    }

    /// The access token of the provider called `name`; waits as [`Source::wait`] does, and starts no refresh while
    /// there is a valid one. A fixed credential (in the configuration, or alone in a file) is none: it has no end, so it would be of use outside for ever.
    pub(crate) fn access_token(&self, name: &str, clock: &Clock) -> Result<AccessToken, Refusal> {
        if let Self::File(watched) = self
            && !watched.is_plain()
        {
            let kept = watched.wait(clock, |_| true);
            let kept = kept.map_err(|why| unavailable(name, &why))?;
            return Ok(AccessToken { secret: kept.secret, expires_at: kept.expires_at });
        }
        let posted = match self.wait(name, clock)? {
            InUse::Posted(posting) => posting.token.clone(),
            _ => None,
        };
        let Some(token) = posted else {
            let message = format!("{name} has no access token: {NO_TOKEN}");
            return Err(Refusal::new(Code::NotAllowed, message));
        };
        Ok(AccessToken { secret: token.secret, expires_at: Some(token.expires.wall) })
    }

    /// True if there is a valid token newer than `generation`, which the provider rejected; waits for a refresh if
    /// `may_wait` holds.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub fn has_newer(&self, generation: Generation, may_wait: bool, clock: &Clock) -> bool {
        match self {
            Self::Refreshed(refreshed) => refreshed.has_newer(generation, may_wait, clock),
            Self::File(watched) => {
                // Its owner refreshes it; evertoken can only read it again.
                let is_newer = |kept: &Kept| kept.generation > generation;
                may_wait && watched.wait(clock, is_newer).is_ok_and(|kept| is_newer(&kept))
            }
            Self::Nothing | Self::Fixed(_) | Self::Missing(_) => false,
        }
    }

    /// The reason why there is no credential; `posting` is this source's.
    pub fn why_none(&self, posting: &Posting, now: Moment) -> String {
        let on_its_way = "the first token is still on its way";
        match self {
            Self::Missing(missing) => missing.to_string(),
            Self::File(watched) => {
                let why = watched.known(now).err();
                why.map_or_else(|| on_its_way.to_owned(), |why| why.to_string())
            }
            _ => posting.trouble().map_or_else(|| on_its_way.to_owned(), Into::into),
        }
    }
}
