//! The life of a request: access, route, token, upstream, and back, with one way out for refusals.
//!
//! 1. A server hands over a checked head and a body ([`crate::ingress`]).
//! 2. [`access`] lets it in, [`route`] finds the providers that may serve it, by its path and its
//!    [`model`], or one of our own pages ([`pages`]); [`choice`] puts them in order.
//! 3. `failover` lets them try in turn. An attempt takes the provider's token, sends the request, and
//!    judges the answer ([`verdict`], [`rejection`]): pass on, once more with a newer token, on to the next provider
//!    while this one cools down ([`cooldown`]), or refuse.
//! 4. [`headers`] decides what crosses, [`reply`] frames it, [`relay`] copies the body as it comes.
//! 5. [`summary`] says in one line what happened.

pub(crate) mod access;
pub(crate) mod allowance;
pub(crate) mod api;
mod asked_model;
mod attempt;
pub(crate) mod body;
mod browsers;
pub(crate) mod choice;
pub(crate) mod client_key;
mod coded;
mod conversation;
pub(crate) mod cooldown;
pub(crate) mod cors;
mod cut;
mod ended;
mod examine;
pub(crate) mod exchange;
mod failover;
pub(crate) mod glob;
pub(crate) mod hand_out;
pub(crate) mod headers;
pub(crate) mod held;
pub(crate) mod inbound_keys;
pub(crate) mod incoming;
pub(crate) mod known_keys;
pub(crate) mod last_reload;
pub(crate) mod limits;
pub(crate) mod location;
mod meter;
pub(crate) mod metrics;
pub(crate) mod model;
mod model_rights;
mod models;
mod outcome;
mod page;
pub(crate) mod pages;
pub(crate) mod provider;
pub(crate) mod rejection;
pub(crate) mod relay;
mod rendezvous;
pub(crate) mod reply;
pub(crate) mod resting;
pub(crate) mod rights;
pub(crate) mod route;
mod skim;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod target;
pub(crate) mod told;
mod tunnel;
pub(crate) mod verdict;
pub(crate) mod watchers;
mod websocket;
