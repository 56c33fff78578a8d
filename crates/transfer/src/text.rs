//! L0: formats untrusted text and numbers for people.
//!
//! Names, labels and reasons come from the network. Printed without escaping, they could move the
//! cursor, change the reading direction or look like another name.

use std::fmt::Write;

/// Whether `c` must be escaped before it is printed: a control character (C0, DEL, C1), a line or
/// paragraph separator, a mark that changes the reading direction, or a character without a visible
/// shape (Unicode's `Default_Ignorable_Code_Point`, and the interlinear marks).
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Replaces every hidden character of `text` (see [`is_hidden`]) by `\u{..}`. All other characters stay,
/// backslashes included, so the result is for people and cannot be parsed back.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// How a command ended with `status`, which is not 0; a negative one is the number of the signal that ended it:
/// `exited with 3`, `was ended by signal 9`.
#[must_use]
pub fn ended(status: i32) -> String {
    match status {
        0.. => format!("exited with {status}"),
        _ => format!("was ended by signal {}", status.unsigned_abs()),
    }
}

/// Formats a number of bytes with a binary unit: `512 B`, `1.20 GiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // 1023.995 would round to 1024.00 of the smaller unit.
        if value < 1023.995 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.2} {unit}") }
}

/// Formats bits per second with a decimal unit and three digits: `812 Mbit/s`, `1.25 Gbit/s`.
#[must_use]
pub fn rate(bits_per_second: u64) -> String {
    let mut value = bits_per_second as f64;
    let mut unit = "bit/s";
    for larger in ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"] {
        // 999.5 would round to 1000 of the smaller unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let digits = match value {
        _ if unit == "bit/s" => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        for text in ["", "image.iso", "-rf", "été 2024 (1).img", "日本語", "a\\b", "🙂", "שלום"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn hidden_characters_are_escaped() {
        for (text, want) in [
            ("a\nb", "a\\u{a}b"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("\u{200b}\u{200d}\u{feff}", "\\u{200b}\\u{200d}\\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(escape(text), want);
        }
    }

    #[test]
    fn sizes() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (300_000_000, "286.10 MiB"),
            (6 << 30, "6.00 GiB"),
            (u64::MAX, "16.00 EiB"),
        ];
        for (n, text) in table {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn rates() {
        let table = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1.00 kbit/s"),
            (999_999, "1.00 Mbit/s"),
            (12_345_678, "12.3 Mbit/s"),
            (812_400_000, "812 Mbit/s"),
            (999_700_000, "1.00 Gbit/s"),
            (2_500_000_000, "2.50 Gbit/s"),
        ];
        for (bits, text) in table {
            assert_eq!(rate(bits), text);
        }
    }
}
