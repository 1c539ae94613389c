//! The slow tests, against the real binary: floods, faults of the disk and of the clock, browsers.
//! `make hostile` runs them; they need root, strace, faketime, chromium and redis-server.

mod browser; // pages of another origin, in headless Chromium
mod bytes; // the cases of tests/data/hostile, cut at every position
mod clients; // slow, silent, deaf and leaving clients; no descriptors
mod clock; // a real clock that jumps
mod disk; // full, read-only and vanished folders; kills in the middle of a write
mod engine; // the token store's rules on a real server, and every way to reach one
mod subject; // the binary under test, and what it must be after each
