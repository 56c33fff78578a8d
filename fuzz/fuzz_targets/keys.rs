//! Any line of key text, any key file: read without harm, written as it was read.
//! Run with `cargo +nightly fuzz run keys`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fuzz::fuzz_keys(bytes));
