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

pub mod access;
pub mod api;
mod attempt;
pub mod body;
mod browsers;
pub mod choice;
mod coded;
pub mod cooldown;
pub mod cors;
mod cut;
pub mod exchange;
mod failover;
pub mod headers;
pub mod held;
pub mod inbound_keys;
pub mod incoming;
pub mod last_reload;
pub mod location;
pub mod metrics;
pub mod model;
mod models;
mod outcome;
mod page;
pub mod pages;
pub mod provider;
pub mod rejection;
pub mod relay;
pub mod reply;
pub mod route;
pub mod state;
pub mod summary;
pub mod target;
pub mod verdict;
pub mod watchers;
