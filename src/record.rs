//! The stored state of a chain of refresh tokens, on disk and in the token store alike.

mod mark;
mod read;
pub(crate) mod refresh_end;
pub(crate) mod saved;

pub use mark::Mark;
pub use read::parse;
pub(crate) use read::{BadRecord, Salvaged, salvage};
pub use saved::Saved;
#[cfg(test)]
pub(crate) use saved::tests::full;
pub(crate) use saved::{Marker, SavedAccess, SavedFailure};
