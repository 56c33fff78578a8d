//! What the benches of whole transfers share.

use super::files::sweep;
use mcp::limits::{DEFAULT_SYMBOL_SIZE, SYMBOL_HEADER_LEN};
use std::path::{Path, PathBuf};

/// The middle of the values, or of the two in the middle; NaN of none.
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

/// The part of a packet that is payload: the rest is our own header, those of IPv4 and UDP, and what the
/// bucket counts of Ethernet's.
pub fn payload_share() -> f64 {
    let payload = f64::from(DEFAULT_SYMBOL_SIZE);
    payload / (payload + SYMBOL_HEADER_LEN as f64 + 28.0 + 14.0)
}

/// Where files of `bytes` in all are put: in memory if there is room, or waiting for the disk
/// would be most of what is measured. Otherwise where temporary files go.
pub fn roomy(bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    // A bench that was killed must not keep its memory for good.
    sweep(memory);
    let free = |at: &Path| rustix::fs::statvfs(at).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    // Files in memory share it with the processes.
    if free(memory) / 2 > bytes { memory.into() } else { std::env::temp_dir() }
}
