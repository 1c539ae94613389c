//! The calls of the system that not every Unix has: Linux's own, and plain equivalents for the others.
//!
//! The feature `portable` takes the equivalents on Linux too, so that tests can run them.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
#[expect(clippy::unnecessary_wraps, reason = "Linux's own calls may fail")]
mod portable;
mod values;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) use linux::*;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
pub(crate) use portable::*;
pub(crate) use values::{Interest, PeerProcess, Readiness};

#[cfg(test)]
mod tests;
