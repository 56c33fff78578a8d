//! Any name from the network: it stays inside the output directory.
//! Run with `cargo +nightly fuzz run names`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fuzz::fuzz_names(bytes));
