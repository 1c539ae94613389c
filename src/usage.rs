//! The tokens that answers report, counted by day, provider, model and key.
//!
//! [`observer`] looks at the body of an answer as it passes. The worker that carried it adds the result to the
//! [`ledger`]. The bookkeeper saves the ledger into the files of days ([`mod@file`]).

pub(crate) mod day;
pub(crate) mod file;
pub(crate) mod ledger;
mod members;
mod number;
pub(crate) mod observer;
mod run_name;
pub(crate) mod scan;
pub(crate) mod table;
mod tokens;

/// The tokens that a body in `pieces` reports (input, output, read from and written to the cache), for tests and fuzzers.
pub fn reported_tokens<'a>(
    is_stream: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<[u64; 4]> {
    let form = if is_stream { members::Form::Events } else { members::Form::Json };
    let mut scan = scan::Scan::new(form);
    pieces.for_each(|piece| scan.see(piece, false));
    let tokens = scan.finish(true).tokens?;
    Some([tokens.input, tokens.output, tokens.cache_read, tokens.cache_write])
}
