//! Any text as a handler's manifest, and any values as a task's arguments for it.
//! Run with `cargo +nightly fuzz run handler_manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_fleet::fuzzing::fuzz_handler_manifest(bytes));
