//! Lines of signed documents: what a device takes never takes it back.
//! Run with `cargo +nightly fuzz run documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fleet::fuzzing::fuzz_documents(bytes));
