//! A sender, a device, and somebody between them: nothing forged gets through, everything genuine does.
//! Run with `cargo +nightly fuzz run packet_protection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp::fuzzing::fuzz_packet_protection(bytes));
