//! The credential of requests to a provider: its source, and whether to wait for it.

pub mod claims;
mod source;
pub mod waiting;

pub use source::{InUse, RefreshedSource, Source};
