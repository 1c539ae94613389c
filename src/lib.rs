//! evertoken: a small blocking forwarding proxy that always has a valid OAuth token.
//!
//! The modules in reading order: values first ([`config`], [`secret`], [`clock`], [`http`], [`thread`], [`logger`]),
//! then the life of a token ([`record`], [`token`]), the way out ([`upstream`]), the way in ([`ingress`]), the
//! credential of a request ([`credential`]), and the life of a request ([`proxy`]). [`assemble`] makes the parts, and
//! [`app`] starts and stops them. [`current`] is the configuration in use, and replaces it. [`login`] gets the first
//! refresh token, and [`supervisor`] talks to systemd. ARCHITECTURE.md tells the same as a story.

mod app;
mod assemble;
mod atomic;
mod bookkeeper;
mod bound;
mod check;
mod cli;
mod clock;
mod commands;
mod config;
mod credential;
mod current;
mod environment_file;
mod expiry;
mod http;
mod ingress;
mod json;
mod jwt;
mod listener_owner;
mod liveness;
mod logger;
mod login;
mod peer;
mod platform;
mod proxy;
mod quota;
mod record;
mod regular_file;
mod reload;
mod report;
mod secret;
mod shared;
mod shortage;
mod signing;
mod spare;
mod status;
mod supervisor;
mod swar;
pub mod testing;
mod thread;
mod tls;
mod token;
mod upstream;
mod usage;
mod visible;

pub use commands::run;
