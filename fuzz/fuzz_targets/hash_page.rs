//! In a session of an object of any size: pages, symbols and polls that lie anywhere.
//! Run with `cargo +nightly fuzz run hash_page`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_hash_page(bytes));
