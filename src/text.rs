//! L0: making untrusted text fit to print.
//!
//! Names, labels and reasons come from the network. Printed as they are, they could move the
//! cursor, turn the reading direction round or look like another name.

use std::fmt::Write;

/// Whether `c` is better not printed as it is: a control character (C0, DEL, C1), a line or
/// paragraph separator, a mark that changes the reading direction, or a character without a
/// shape of its own (Unicode's `Default_Ignorable_Code_Point`, and the interlinear marks).
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

/// `text` with every hidden character (see [`is_hidden`]) written as `\u{..}`. Everything else,
/// backslashes included, stays as it is: the result is for people, not for reading back.
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
}
