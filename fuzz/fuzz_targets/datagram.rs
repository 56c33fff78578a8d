//! Any bytes at all: decoding never panics, and what decodes encodes to the same bytes.
//! Run with `cargo +nightly fuzz run datagram`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_datagram(bytes));
