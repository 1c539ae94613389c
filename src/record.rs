//! The stored state of a chain of refresh tokens, on disk and in the token store alike.

mod mark;
mod read;
pub mod refresh_end;
mod saved;

pub use mark::Mark;
pub use read::{BadRecord, Salvaged, parse, salvage};
#[cfg(test)]
pub(crate) use saved::tests::full;
pub use saved::{Marker, Saved, SavedAccess, SavedFailure};
