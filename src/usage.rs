//! The tokens that answers report, counted by day, provider, model and key.
//!
//! [`observer`] looks at the body of an answer as it passes. The worker that carried it adds the result to the
//! [`ledger`]. The bookkeeper saves the ledger into the files of days ([`file`]).

pub(crate) mod day;
pub(crate) mod file;
pub(crate) mod ledger;
mod members;
pub(crate) mod observer;
mod scan;
pub(crate) mod table;
mod tokens;
