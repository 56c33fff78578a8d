//! Objects of any size, in blocks and symbols of any size: a receiver keeps its bounds.
//! Run with `cargo +nightly fuzz run announce`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_announce(bytes));
