//! Any bytes as each document of the device interface: read, and written as it was read.
//! Run with `cargo +nightly fuzz run ddi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fleet::fuzzing::fuzz_ddi(bytes));
