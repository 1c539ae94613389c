//! Fuzzes handshakes of WebSockets, and the boundaries of frames: see `tests/it/properties/holds.rs`.

#![no_main]

#[path = "../../tests/it/properties/holds.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "each target uses one of them")]
mod holds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holds::websocket(bytes));
