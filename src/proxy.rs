//! The life of a request: access, route, token, upstream, and back, with one way out for refusals.
//!
//! 1. A server hands over a checked head and a body ([`crate::ingress`]).
//! 2. [`access`] lets it in, [`route`] picks the provider or one of our own pages ([`pages`]).
//! 3. [`exchange`] takes the provider's token, sends the request, and judges the answer
//!    ([`verdict`]): pass on, once more with a newer token, or refuse.
//! 4. [`headers`] decides what crosses, [`reply`] frames it, [`relay`] copies the body as it comes.
//! 5. [`summary`] says in one line what happened.

pub mod access;
pub mod exchange;
pub mod headers;
pub mod pages;
pub mod relay;
pub mod reply;
pub mod route;
pub mod summary;
pub mod verdict;
