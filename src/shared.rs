//! Several hosts, one token chain: what instances share through a Valkey or Redis server.
//!
//! ```text
//!   refresher (one a chain)                         keeper (one a process)
//!     look: newer there? take it up                   hears what is published, polls as well
//!     lease free, nothing in flight? take it  ◄─────  wakes the refreshers
//!     marker, request, result: written under          renews leases that are in use
//!     the lease's fencing number                      passes cooldowns on, both ways
//! ```
//!
//! [`lease`] decides and opens nothing; [`engine`] is the only place that knows the server and its
//! client library; [`keeper`] is the thread. A record is newer than another by its fencing number
//! first and its generation second, and the server itself refuses to replace a newer one. Each
//! instance keeps a copy of the newest in its state folder, so that a server that comes back empty
//! is filled again.

pub(crate) mod chain;
pub(crate) mod clocks;
pub(crate) mod engine;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod lease;
pub(crate) mod requests;
pub(crate) mod seal;
pub(crate) mod tallies;
