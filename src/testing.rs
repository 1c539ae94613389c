//! The door for tests, fuzzers, the bench and the manual: the items of the library that they may use.

pub use crate::app::App;
pub use crate::assemble::{Environment, place_of, refresher_setup};
pub use crate::bound::Bound;
pub use crate::cli::{Command, definition as command_line, parse as parse_arguments};
pub use crate::clock::{Clock, Moment, RELEASED_AT, Timestamp};
pub use crate::commands::restart::Program;
pub use crate::config::resolve::{Problem, Sources, resolve};
pub use crate::config::secret_file::read as read_secret_file;
pub use crate::config::slug::{in_path as slug_in_path, of_name as slug_of_name};
pub use crate::config::store_address::StoreAddress;
pub use crate::config::token_fields::TokenFields;
pub use crate::config::{
    Config, Fallback, Limits, ListenAddress, Missing, ProviderKind, ServerKind, SharedStore,
};
pub use crate::http::body::{BodyDecoder, BodyFault};
pub use crate::http::chunked::BadFraming;
pub use crate::http::framing::Framing;
pub use crate::http::head::request::RequestReader;
pub use crate::http::head::response::{Parsed, ResponseReader, framing as response_framing};
pub use crate::http::head::{BadHead, HEAD_MAX_BYTES};
pub use crate::http::message::{
    AnswerLength, BodyLength, Headers, RequestHead, ResponseHead, Version,
};
pub use crate::http::refusal::{Code, Refusal};
pub use crate::http::rules::Rules;
pub use crate::http::websocket::check as check_websocket;
pub use crate::http::websocket::frames::Frames;
pub use crate::ingress::bind::bind as bind_listener;
pub use crate::ingress::conn::serve as serve_connection;
pub use crate::ingress::guest::Guest;
pub use crate::ingress::live::Live;
pub use crate::ingress::tally::ListenerTally;
pub use crate::ingress::{After, Request, Server, Service};
pub use crate::proxy::model::{find as find_model, rename as rename_model};
pub use crate::proxy::reply::Reply;
pub use crate::proxy::state::Proxy;
pub use crate::proxy::watchers::EVENT_STREAMS_MAX;
pub use crate::record::{Mark, Saved, parse as parse_record};
pub use crate::secret::Secret;
pub use crate::shared::chain::{Held, SharedChain};
pub use crate::shared::engine::{
    Engine, Line, Names, News, StoreEntry, StoreError, Tally, Written,
};
pub use crate::shared::health::Health;
pub use crate::shared::lease::GRACE_MS;
pub use crate::supervisor::{Stage, Supervisor};
pub use crate::thread::spawn;
pub use crate::token::backoff::{DELAY_MIN_MS, WANTED_DELAY_MAX_MS};
pub use crate::token::grant::{
    Class, Failure, Grant, LIFETIME_MAX_MS, Reached, TOKEN_ANSWER_MAX_BYTES, What,
    read as read_grant,
};
pub use crate::token::group::groups;
pub use crate::token::lifecycle::{
    Instruction, Lifecycle, OnRejection, Policy, Presented, REFRESH_GAP_MIN_MS, STATE_FILE,
};
pub use crate::token::places::Seeker;
pub use crate::token::refresher::{EndingTokens, Refresher, Setup, TICK_MS, log_out, store_login};
pub use crate::token::sender::{IssuerLink, TokenAnswer};
pub use crate::token::state_file::{Locking, StateFile};
pub use crate::token::store::{Posting, TokenStore};
pub use crate::usage::reported_tokens;
