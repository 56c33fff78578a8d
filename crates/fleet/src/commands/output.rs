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
    aligned(rows).iter().for_each(|row| line(row));
}

fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let text = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(text).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_steer_no_terminal() {
        let rows =
            [&["device", "state", "said"][..], &["bench-1", "", "\x1b[2J\n"], &["b", "pending", "Größe"]];
        let rows = rows.map(|row| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
        let wanted =
            ["device   state    said", "bench-1           \\u{1b}[2J\\u{a}", "b        pending  Größe"];
        assert_eq!(aligned(&rows), wanted);
        assert_eq!(aligned(&[]), Vec::<String>::new());
    }

    #[test]
    fn times_are_told_in_two_units() {
        assert_eq!((span(59), span(3_661)), ("59s".into(), "1h 1m".into()));
        assert_eq!(ago(None), "never");
        assert_eq!(ago(Some(clock::now() + 1_000)), "0s ago");
    }
}
