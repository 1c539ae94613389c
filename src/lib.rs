//! evertoken: a small blocking forwarding proxy that always has a valid OAuth token.
//!
//! The modules in reading order: values first ([`config`], [`secret`], [`clock`], [`http`], [`thread`], [`logger`]),
//! then the life of a token ([`record`], [`token`]), the way out ([`upstream`]), the way in ([`ingress`]), the
//! credential of a request ([`credential`]), and the life of a request ([`proxy`]). [`assemble`] makes the parts, and
//! [`app`] starts and stops them. [`current`] is the configuration in use, and replaces it. [`login`] gets the first
//! refresh token, and [`supervisor`] talks to systemd. ARCHITECTURE.md tells the same as a story.

pub mod app;
pub mod assemble;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod current;
pub mod environment_file;
mod expiry;
pub mod http;
pub mod ingress;
pub mod jwt;
pub mod listener_owner;
pub mod liveness;
pub mod logger;
pub mod login;
pub mod proxy;
pub mod record;
pub mod regular_file;
pub mod reload;
pub mod report;
pub mod secret;
pub mod shared;
pub mod shortage;
pub mod spare;
pub mod status;
pub mod supervisor;
pub mod thread;
pub mod token;
pub mod upstream;
