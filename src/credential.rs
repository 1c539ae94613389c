//! Which credential the requests to a provider get, where it comes from, and whether it is worth waiting for.

pub mod claims;
mod source;
pub mod waiting;

pub use source::{InUse, RefreshedSource, Source};
