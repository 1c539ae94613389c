//! A local OAuth issuer and model provider to try and test evertoken against.
//!
//! [`issuer`] is the token endpoint's logic, [`manners`] how real issuers differ, [`logins`] what comes before it, [`device_page`] where a person
//! agrees, [`provider`] what the APIs answer, [`faults`] what goes wrong on request; [`server`] puts them on a port with `tiny_http`;
//! [`folder`] is where a demo keeps what it has. Everything is on 127.0.0.1,
//! and nothing here is meant for anything but trying and testing.

mod common;
pub mod device_page;
pub mod faults;
pub mod folder;
pub mod issuer;
pub mod logins;
pub mod manners;
pub mod provider;
pub mod server;

pub use server::{Options, Sandbox};
