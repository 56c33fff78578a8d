//! Formats values for people: durations, shares, counts, widths. Sizes, rates and the escaping of
//! untrusted text are in [`mcp_transfer::text`].

pub use mcp_transfer::text::{bytes, escape, rate};

use mcp_transfer::protocol::event::{HookChange, HookEnd};
use mcp_transfer::units::DeviceId;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Blanks before all but the first line of a sentence that is broken.
pub const INDENT: usize = 2;

/// The display name of a device: its escaped label, or its identifier if the label is empty.
#[must_use]
pub fn device_name(label: &str, device: DeviceId) -> String {
    if label.is_empty() { device.to_string() } else { escape(label) }
}

/// The rate in bits per second for `bytes` in `time`; 0 if `time` is zero.
#[must_use]
pub fn bits_per_second(bytes: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds) as u64 } else { 0 }
}

/// Formats a duration, rounded to the relevant units: `2.3s`, `1m 20s`, `3h 5m`.
#[must_use]
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let whole = if whole >= 3600 { (whole + 30) / 60 * 60 } else { whole };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

/// Formats a running time in whole units: `2s`, `1m 20s`, `3h 5m`.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let seconds = if seconds >= 3600 { seconds / 60 * 60 } else { seconds };
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// `part` of `whole` in percent, at most 100; 0 if `whole` is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

/// Formats a share with its relevant digits: `0 %`, `0.03 %`, `1.3 %`, `42 %`.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    match percent(part, whole) {
        0.0 => "0 %".to_owned(),
        p if p < 0.095 => format!("{:.2} %", p.max(0.01)),
        p if p < 9.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// Formats a count with a decimal unit: `950`, `12k`, `3.4M`.
#[must_use]
pub fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{}k", n / 1_000),
        _ => format!("{:.1}M", n as f64 / 1e6),
    }
}

/// What a receiver waits for.
#[must_use]
pub fn waiting(name: Option<&str>, group: &str) -> String {
    let what = name.map_or_else(|| "a sender".to_owned(), escape);
    format!("waiting for {what} on {group}")
}

/// Says that a sender's object is not the one to take.
#[must_use]
pub fn other_name(name: &str, address: IpAddr) -> String {
    format!("{address} sends {}; not taken because of --name", escape(name))
}

/// Says what the hook does.
#[must_use]
pub fn hook(change: &HookChange) -> String {
    match change {
        HookChange::Started => "running the --then command".to_owned(),
        HookChange::Skipped => {
            "the file was in place already, so the --then command does not run again".to_owned()
        }
        HookChange::Ended(HookEnd { failure: None, .. }) => "the --then command is done".to_owned(),
        HookChange::Ended(HookEnd { status, .. }) => format!("the --then command failed: status {status}"),
    }
}

/// The number of terminal columns of `text`, without colour codes.
#[must_use]
pub fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Cuts `text` to at most `columns`, with an ellipsis if it was longer.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// Breaks `text` between words into lines of at most `columns` (0: no limit). All but the first begin with `indent` blanks.
/// A longer word has a line of its own.
#[must_use]
pub fn wrap(text: &str, columns: usize, indent: usize) -> String {
    if columns == 0 || width(text) <= columns {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let width = width(word);
        if out.is_empty() {
            used = width;
        } else if used + 1 + width <= columns {
            out.push(' ');
            used += 1 + width;
        } else {
            out.push_str(&format!("\n{:indent$}", ""));
            used = indent + width;
        }
        out.push_str(word);
    }
    out
}

/// Joins as many of the first `parts` as fit into `columns`, with middle dots.
#[must_use]
pub fn fit(parts: &[String], columns: usize) -> String {
    let mut out = String::new();
    for part in parts.iter().filter(|p| !p.is_empty()) {
        if out.is_empty() {
            out = cut(part, columns);
        } else if width(&out) + 3 + width(part) <= columns {
            out.push_str(" · ");
            out.push_str(part);
        } else {
            break;
        }
    }
    out
}

/// The line that `b3sum` prints for a file. As in `b3sum`, a name with a line break or a backslash is
/// escaped and the line begins with a backslash, so that `b3sum --check` accepts it.
#[must_use]
pub fn b3sum_line(hash: &impl std::fmt::Display, path: &Path) -> String {
    let name = path.to_string_lossy();
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{hash}  {escaped}")
}

/// The size of an object of `total` bytes; a stream's is unknown until it ends.
#[must_use]
pub fn size(total: Option<u64>) -> String {
    total.map_or_else(|| "a stream".to_owned(), bytes)
}

/// What an object is: its size, and of a tree how many entries it has.
#[must_use]
pub fn object(total: Option<u64>, entries: Option<u32>) -> String {
    match entries {
        Some(1) => format!("1 entry, {}", size(total)),
        Some(entries) => format!("{entries} entries, {}", size(total)),
        None => size(total),
    }
}

/// How much of an object is done: `1.2 MiB of 3.0 MiB`, or, of a stream, `1.2 MiB`.
#[must_use]
pub fn so_far(done: u64, total: Option<u64>) -> String {
    let of = total.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
    format!("{}{of}", bytes(done))
}

/// `held 61.0 % already`: the share of `total` bytes that the device held before the transfer.
#[must_use]
pub fn held(held: u64, total: Option<u64>) -> String {
    format!("held {} already", total.map_or_else(|| bytes(held), |total| share(held, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_a_label() {
        assert_eq!(device_name("a\n", DeviceId([1; 16])), "a\\u{a}");
        assert_eq!(device_name("", DeviceId([1; 16])), "01".repeat(16));
    }

    #[test]
    fn speeds() {
        assert_eq!(bits_per_second(1000, Duration::from_millis(500)), 16_000);
        assert_eq!(bits_per_second(1000, Duration::ZERO), 0);
    }

    #[test]
    fn durations() {
        let table = [(0.0, "0.0s"), (2.34, "2.3s"), (9.96, "10s"), (80.4, "1m 20s"), (11_100.0, "3h 5m")];
        for (seconds, text) in table {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
        assert_eq!([clock(0), clock(80), clock(11_159)], ["0s", "1m 20s", "3h 5m"]);
    }

    #[test]
    fn shares_and_counts() {
        let table = [(0, 0, "0 %"), (1, 1_000_000, "0.01 %"), (13, 1000, "1.3 %"), (42, 100, "42 %")];
        for (part, whole, text) in table {
            assert_eq!(share(part, whole), text);
        }
        assert_eq!([count(999), count(12_500), count(3_400_000)], ["999", "12k", "3.4M"]);
    }

    #[test]
    fn fitting() {
        let parts = ["42 %".to_owned(), String::new(), "812 Mbit/s".to_owned(), "7s left".to_owned()];
        assert_eq!(fit(&parts, 80), "42 % · 812 Mbit/s · 7s left");
        assert_eq!(fit(&parts, 20), "42 % · 812 Mbit/s");
        assert_eq!(fit(&parts, 3), "42…");
        assert_eq!(cut("机机机", 5), "机机…");
    }

    #[test]
    fn wrapping() {
        let text = "mcp: no sender answers; check --interface";
        assert_eq!(wrap(text, 41, 2), text);
        assert_eq!(wrap(text, 0, 2), text);
        assert_eq!(wrap(text, 40, 2), "mcp: no sender answers; check\n  --interface");
        assert_eq!(wrap(text, 12, 2), "mcp: no\n  sender\n  answers;\n  check\n  --interface");
        assert_eq!(wrap("机机 机机", 6, 0), "机机\n机机");
    }

    #[test]
    fn sums_as_b3sum_prints_them() {
        assert_eq!(b3sum_line(&"ab", Path::new("x y")), "ab  x y");
        assert_eq!(b3sum_line(&"ab", Path::new("x\ny\\z")), "\\ab  x\\ny\\\\z");
    }
}
