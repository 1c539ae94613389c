//! The credential of requests to a provider: its source, and whether to wait for it.

mod access_token;
pub(crate) mod claims;
mod source;
pub(crate) mod waiting;

pub(crate) use access_token::AccessToken;
pub(crate) use source::{InUse, NO_TOKEN, RefreshedSource, Source};
