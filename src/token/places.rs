//! Finds the state file of each chain before a refresher begins with it.
//!
//! A chain is kept under the name of one of its providers. If that provider was renamed or removed, or if several
//! providers once had a file each, the tokens are not where they are looked for first. Beginning without them would
//! spend a refresh token a second time, which many issuers take for theft. The seed that its chain began with, and its
//! issuer and client, tell which chain a file belongs to.

mod contents;
mod homes;
mod seek;
mod settle;
mod stored;
mod whose;

pub(crate) use contents::{Contents, FoundFile};
pub(crate) use homes::Homes;
pub use seek::Seeker;
pub(crate) use seek::{OnChain, Sought, Unseen};
pub(crate) use settle::Move;
pub(crate) use stored::of_stored;

#[cfg(test)]
mod tests;
