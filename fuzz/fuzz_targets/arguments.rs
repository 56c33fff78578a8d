//! Any list of arguments: a configuration within its bounds, or a usage error.
//! Run with `cargo +nightly fuzz run arguments`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fuzz::fuzz_arguments(bytes));
