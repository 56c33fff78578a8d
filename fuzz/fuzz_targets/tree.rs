//! Any trees, received into a directory.
//! Run with `cargo +nightly fuzz run tree`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fuzz::fuzz_tree(bytes));
