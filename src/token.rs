//! The life of a token: got, kept on disk, published, refreshed in time, and never sent expired.
//!
//! ```text
//!            start                      due, forced, rejected
//!   state file ──► Lifecycle::next ───────────────────────────► lock, read the file again
//!                    ▲   │ wait                                   │ newer there: adopt it
//!                    │   ▼                                        ▼
//!              inbox or timer                          marker on disk, then the request
//!                    ▲                                            │
//!                    │            transient: backoff              ▼
//!                    ├──────────── permanent: retry_interval ── failed
//!                    └──────────── publish ◄── state file ◄──── granted
//! ```
//!
//! [`lifecycle`] decides which refresh token is presented and when, [`refresher`] obeys on one thread a
//! chain; the forwarding path and the refreshers meet in [`store`]. [`watched`] is for tokens that another
//! program keeps.

pub mod backoff;
pub mod failure_text;
pub mod grant;
pub mod group;
pub mod hang;
pub mod history;
pub mod lifecycle;
pub mod places;
pub mod refresher;
pub mod reread;
pub mod scope;
pub mod state_file;
pub mod store;
pub mod waiting;
pub mod watched;
