//! Finds the state file of each chain before a refresher begins with it.
//!
//! A chain is kept under the name of one of its providers. Where that one was renamed or taken out, or where
//! each of several had a file of its own once, the tokens are not where they are looked for first, and to
//! begin without them would spend a refresh token a second time, which many issuers take for theft. A file
//! tells whose it is by the seed that its chain began with, and by its issuer and client.

mod contents;
mod homes;
mod seek;
mod settle;
mod stored;
mod whose;

pub(crate) use contents::{Contents, Found};
pub(crate) use homes::Homes;
pub use seek::Seeker;
pub(crate) use seek::{OnChain, Sought, Unseen};
pub(crate) use settle::Move;
pub(crate) use stored::of_stored;

#[cfg(test)]
mod tests;
