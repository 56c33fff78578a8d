//! Arguments for streams.

use clap::Args;
use mcp_transfer::limits::{DEFAULT_BLOCK_LOG2, MAX_BLOCKS, MIN_WINDOW};
use std::ffi::OsString;
use std::path::PathBuf;

/// Options of `mcp send` for streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StreamArgs {
    /// Send the output of this shell command as a stream. FILE, or with - this program's standard input, is its
    /// standard input; without FILE, it reads nothing, and --name is needed. The stream is complete only if the command
    /// ends with status 0 (of a pipeline, the shell takes the status of the last command)
    #[arg(long, value_name = "CMD")]
    pub pipe: Option<OsString>,
    /// Directory in which a stream is kept until the end; it needs room for all of it [default: TMPDIR or /tmp]
    #[arg(long, value_name = "DIR", conflicts_with = "window")]
    pub spool: Option<PathBuf>,
    /// Keep only the last SIZE bytes of a stream, in memory. Devices that fall further behind fail, and devices that
    /// come after its beginning is gone are turned away
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub window: Option<u64>,
}

/// Most bytes of a stream.
const MAX_WINDOW: u64 = (MAX_BLOCKS as u64) << DEFAULT_BLOCK_LOG2;
const SIZE_FORM: &str = "write a number of bytes, or a size as 256M or 2G";

/// Parses bytes: digits, an optional fraction, and K, M, G or T (powers of 1024, either case).
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let bytes = super::parse_number(digits).ok_or(SIZE_FORM)? * (1_u64 << shift) as f64;
    if bytes < MIN_WINDOW as f64 {
        return Err(format!("too small to repair a few blocks; write {}M or more", MIN_WINDOW >> 20));
    }
    if bytes > MAX_WINDOW as f64 {
        return Err(format!("more than a stream can have; write {}T or less", MAX_WINDOW >> 40));
    }
    Ok(bytes as u64)
}
