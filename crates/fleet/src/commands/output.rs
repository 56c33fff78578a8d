//! What commands print: tables for people, JSON for programs, times as ages.

use crate::server::clock;
use mcp_transfer::text::escape;
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// Prints a value as JSON on one line.
pub(super) fn json<T: Serialize>(value: &T) {
    line(&serde_json::to_string(value).unwrap_or_default());
}

/// Prints a line. A reader that has gone is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints rows in columns as wide as their widest cell, the first row being the heading. What devices say is escaped: it
/// must not steer a terminal.
pub(super) fn table(rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

/// A time as how long ago it was.
pub(super) fn ago(at: Option<u64>) -> String {
    at.map_or_else(|| "never".into(), |at| format!("{} ago", span(clock::now().saturating_sub(at))))
}

/// A span of seconds in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
