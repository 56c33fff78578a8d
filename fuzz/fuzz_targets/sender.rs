//! A list of operations on a whole sender: it never panics, keeps its bounds, and comes to its end.
//! Run with `cargo +nightly fuzz run sender`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_sender(bytes));
