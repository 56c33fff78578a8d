//! Any content of the state files: each is read, or set aside and made anew.
//! Run with `cargo +nightly fuzz run state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fuzz::fuzz_state(bytes));
