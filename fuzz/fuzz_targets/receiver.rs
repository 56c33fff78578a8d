//! A list of operations on a whole receiver: it never panics, keeps its bounds, and comes to its end.
//! Run with `cargo +nightly fuzz run receiver`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_receiver(bytes));
