//! The life of a token: obtained, stored on disk, published, refreshed in time, and never sent expired.
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
//! [`lifecycle`] decides which refresh token is presented and when, and [`refresher`] obeys it on one thread for each
//! chain; the forwarding path and the refreshers meet in [`store`]. [`watched`] handles tokens that another program
//! keeps. [`discovery`] asks an issuer for the endpoints that the configuration does not name.

pub(crate) mod assertion;
pub(crate) mod backoff;
pub(crate) mod command;
pub(crate) mod discovery;
pub(crate) mod failure_text;
pub(crate) mod grant;
pub(crate) mod group;
pub(crate) mod hang;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod places;
pub(crate) mod refresher;
pub(crate) mod reread;
pub(crate) mod scope;
pub(crate) mod sender;
pub(crate) mod state_file;
pub(crate) mod store;
pub(crate) mod uninterrupted;
pub(crate) mod waiting;
pub(crate) mod watched;
