//! Helpers of the benches of whole transfers.

use super::files::sweep;
use mcp::limits::{DEFAULT_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use std::path::{Path, PathBuf};

/// The median of the values; NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The share of a packet that is payload. The rest is the `mcp` header, those of IPv4 and UDP, and the
/// part of Ethernet's that the bucket counts.
pub fn payload_share() -> f64 {
    let payload = f64::from(DEFAULT_SYMBOL_SIZE);
    payload / (payload + SYMBOL_HEADER_LEN as f64 + 28.0 + 14.0)
}

/// The directory for files of `bytes` in all: in memory if there is room, because waiting for the disk
/// would dominate the measurement; otherwise the directory for temporary files.
pub fn roomy(bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    // A killed bench must not occupy memory for ever.
    sweep(memory);
    let free = |at: &Path| rustix::fs::statvfs(at).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    // Files in memory share it with the processes.
    if free(memory) / 2 > bytes { memory.into() } else { std::env::temp_dir() }
}
