//! From bytes to heads: of requests, strictly, and of responses, as servers write them.

pub mod request;
pub mod response;
