//! The token of one provider as the credential of another one's token requests (`bearer_provider`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Deadline};
use crate::config::{
    AutoRefresh, Config, Credential, EndpointRequest, FIRST_TOKEN_WAIT, GrantType, find_provider,
};
use crate::credential::waiting;
use crate::secret::Secret;
use crate::token::grant::{Failure, TokenRequest};
use crate::token::sender::{Send, TokenAnswer};
use crate::token::store::{PostingKey, TokenStore};
use crate::token::watched::Watched;

/// The time between two looks at a call to end the wait.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The provider whose token the token requests of `refresh` carry, by its index.
pub(crate) fn provider_of(refresh: &AutoRefresh, config: &Config) -> Option<usize> {
    let GrantType::Request(request) = &refresh.grant_type else { return None };
    find_provider(&config.providers, request.provider()?)
}

/// The source of a bearer.
pub(super) struct BearerSource {
    /// The provider's name.
    name: String,
    kind: BearerKind,
    request: EndpointRequest,
    clock: Clock,
}

enum BearerKind {
    Fixed(Secret),
    File(Box<Watched>),
    Posted(Arc<TokenStore>, PostingKey),
    /// There is none.
    None,
}

/// The source of the bearer of `refresh`, if that is another provider of `config`; `store` holds its postings under the
/// key that `keys` tells.
pub(super) fn of(
    refresh: &AutoRefresh,
    config: &Config,
    (store, keys): (&Arc<TokenStore>, &dyn Fn(usize) -> PostingKey),
    clock: &Clock,
) -> Option<BearerSource> {
    let GrantType::Request(request) = &refresh.grant_type else { return None };
    let index = provider_of(refresh, config)?;
    let provider = &config.providers[index];
    let kind = match &provider.credential {
        Credential::Static(secret) => BearerKind::Fixed(secret.clone()),
        Credential::Watched(file) => BearerKind::File(Box::new(Watched::of(file, None))),
        Credential::Refreshed(_) => BearerKind::Posted(store.clone(), keys(index)),
        Credential::Missing(_) | Credential::None | Credential::Passthrough => BearerKind::None,
    };
    let (name, request, clock) = (provider.name.clone(), (**request).clone(), clock.clone());
    Some(BearerSource { name, kind, request, clock })
}

impl BearerSource {
    /// The way to an issuer by `send`, with this credential in each request.
    pub(super) fn adding_to(self, send: Send) -> Send {
        Box::new(move |request: &TokenRequest, allowed, is_called_off| {
            let secret = self.wait(is_called_off)?;
            let (name, value) = self.request.credential(&secret);
            let mut headers = request.headers.clone();
            headers.insert(0, (name, value));
            let (method, url, body) = (request.method, request.url.clone(), request.body.clone());
            let answer =
                send(&TokenRequest { method, url, headers, body }, allowed, is_called_off)?;
            // Part of a refusal may be logged.
            let is_quoted = || secret.is_within(&String::from_utf8_lossy(&answer.body));
            Ok(if answer.status >= 400 && is_quoted() {
                TokenAnswer { body: Vec::new(), ..answer }
            } else {
                answer
            })
        })
    }

    /// The present token; waits for it as a request does if it is on its way.
    fn wait(&self, is_called_off: &dyn Fn() -> bool) -> Result<Secret, Failure> {
        let none = |why: &str| {
            let name = &self.name;
            Failure::no_bearer(format!(
                "provider {name}, whose token the request needs, has none: {why}"
            ))
        };
        match &self.kind {
            BearerKind::Fixed(secret) => Ok(secret.clone()),
            BearerKind::File(watched) => {
                let kept = watched.wait(&self.clock, |_| true);
                let kept = kept.map_err(|why| none(&why.to_string()))?;
                Ok(kept.secret)
            }
            BearerKind::Posted(store, key) => {
                self.wait_for_posting(store, *key, is_called_off).map_err(|why| none(&why))
            }
            BearerKind::None => Err(none("its credential is missing")),
        }
    }

    fn wait_for_posting(
        &self,
        store: &TokenStore,
        key: PostingKey,
        is_called_off: &dyn Fn() -> bool,
    ) -> Result<Secret, String> {
        let deadline = Deadline::after(FIRST_TOKEN_WAIT);
        loop {
            let posting = store.wait(key, Deadline::after(LOOK_EVERY).min(deadline), |posting| {
                !waiting::is_worth_it(posting, self.clock.now(), deadline.left())
            });
            if let Some(token) = posting.valid_token(self.clock.now()) {
                return Ok(token.secret.clone());
            }
            let is_worth_it = waiting::is_worth_it(&posting, self.clock.now(), deadline.left());
            if !is_worth_it || deadline.has_passed() || is_called_off() {
                let trouble = posting.trouble();
                return Err(trouble.unwrap_or_else(|| "it is still on its way".to_owned()));
            }
        }
    }
}
