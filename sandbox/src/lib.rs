//! A local OAuth issuer and model provider, for trying and testing evertoken.
//!
//! [`issuer`] is the token endpoint's logic, [`manners`] the differences between real issuers, [`logins`] the steps
//! before it, [`device_page`] the page for a person's consent, [`discovery`] what the
//! issuer says of itself, `exchange` its endpoints that are no OAuth, [`provider`] the APIs' answers, [`faults`] the
//! faults on request, and [`refusals`] those of real APIs. [`server`] serves them on a port with `tiny_http`, and [`folder`] is a demo's folder.
//! Everything is on 127.0.0.1, and nothing here is meant for anything but trying and testing.

mod assertions;
mod common;
pub mod device_page;
pub mod discovery;
mod exchange;
pub mod faults;
pub mod folder;
pub mod issuer;
pub mod logins;
pub mod manners;
pub mod provider;
pub mod refusals;
pub mod server;

pub use server::{Options, Sandbox};
