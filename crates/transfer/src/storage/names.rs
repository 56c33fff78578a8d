//! The rules for an untrusted object name before a file may have it.

use super::SinkError;
use crate::limits::MAX_NAME;
use crate::text::{escape, is_hidden};

/// Suffix of the program's part files.
pub const PART_SUFFIX: &str = ".mcp-part";

/// Device names of Windows, which apply with any extension.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Returns `name` if it is safe as a file name within a directory: one path component of 1 to
/// [`MAX_NAME`] bytes, without separators, control, bidi or invisible characters. It must not be a part
/// file's name, and must be valid on Windows shares too (no device names, no streams of files, no dot or
/// space at the end). Leading dots and dashes, spaces and other UTF-8 are allowed.
///
/// # Errors
/// [`SinkError::Name`] with the first rule that the name breaks.
pub fn safe_name(name: &str) -> Result<&str, SinkError> {
    match name_objection(name) {
        None => Ok(name),
        Some(what) => Err(SinkError::Name(format!(
            "the name \"{}\" {what}; give a file name with -o, or have the source renamed",
            escape(name)
        ))),
    }
}

/// The rule that `name` breaks, as text to follow "the name ...".
#[must_use]
pub fn name_objection(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.len() > MAX_NAME {
        return Some("is longer than 255 bytes");
    }
    if name == "." || name == ".." {
        return Some("means a directory");
    }
    if name.contains(['/', '\\']) {
        return Some("contains a path separator");
    }
    if name.chars().any(is_forbidden) {
        return Some("contains a control or invisible character");
    }
    if name.ends_with(['.', ' ']) {
        return Some("ends in a dot or a space");
    }
    if name.to_ascii_lowercase().ends_with(PART_SUFFIX) {
        return Some("is that of an unfinished copy");
    }
    // `x::$DATA` would be the content of `x`: the name looks free and is taken.
    if name.contains(":$") {
        return Some("is that of a stream of another file on Windows");
    }
    is_device(name).then_some("is that of a device on Windows")
}

/// Allows the hidden characters that real names use: the joiners that many scripts and emoji need, and
/// the variation selectors. They are still escaped when printed.
fn is_forbidden(c: char) -> bool {
    is_hidden(c) && !matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether Windows treats the name as a device, as it does `NUL`, `nul.txt` and `Nul .tar.gz`.
fn is_device(name: &str) -> bool {
    let stem = name.split(['.', ':']).next().unwrap_or_default().trim_end_matches(' ').to_ascii_lowercase();
    if DEVICES.contains(&stem.as_str()) {
        return true;
    }
    let Some(number) = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt")) else {
        return false;
    };
    let mut digits = number.chars();
    matches!((digits.next(), digits.next()), (Some('1'..='9' | '¹' | '²' | '³'), None))
}

/// The longest prefix of `text` with at most `max` bytes.
pub(super) fn shorten(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass_unchanged() {
        let longest = "x".repeat(255);
        for name in [
            "a",
            "image.iso",
            "-rf",
            "--force",
            ".hidden",
            "..twice",
            "...three",
            " leading space",
            "a b  c",
            "été",
            "日本語.img",
            "🙂",
            "👩\u{200d}💻.png",
            "❤\u{fe0f}",
            "a:b",
            "2026-11-20T10:00:00.img",
            "$a",
            "*?<>|\"",
            "~",
            "$HOME",
            "%s%n",
            "con1",
            "console",
            "com10",
            "com",
            "lpt",
            "auxiliary.txt",
            "mcp-part",
            "x.mcp-part.gz",
            "a..b",
            &longest,
        ] {
            assert_eq!(safe_name(name).expect(name), name);
        }
    }

    #[test]
    fn hostile_names_are_refused_and_printed_escaped() {
        let long = "x".repeat(256);
        let long_utf8 = "é".repeat(128);
        for name in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "../x",
            "a/b",
            "a/",
            "./a",
            "..\\x",
            "a/..",
            "a/../../b",
            "a/./b",
            "//a",
            "/",
            "~/.ssh/../x",
            "..\u{200d}/x",
            "..\0",
            ".. ",
            "...",
            ". .",
            "x\0.img",
            "C:..\\x",
            "\\\\?\\C:\\x",
            "x::$DATA",
            "x:y:$DATA",
            "x:$I30:$INDEX_ALLOCATION",
            "C:\\x",
            "\\\\host\\share",
            "\0",
            "a\0b",
            "a\nb",
            "a\rb",
            "a\tb",
            "\x1b]0;title\x07",
            "a\u{7f}",
            "a\u{85}b",
            "\u{9b}31m",
            "photo\u{202e}gpj.exe",
            "\u{202a}a",
            "\u{2066}a\u{2069}",
            "\u{200e}a",
            "\u{200f}a",
            "\u{61c}a",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{ad}b",
            "\u{3164}",
            "\u{e0061}",
            "a.",
            "a ",
            "a. .",
            " ",
            "con",
            "CON",
            "Con.txt",
            "nul",
            "NUL.tar.gz",
            "aux .c",
            "prn",
            "com1",
            "COM9.log",
            "lpt3",
            "com¹",
            "CONIN$",
            "conout$.x",
            "nul:x",
            "nul .x",
            "NUL:",
            "LPT\u{b9}.txt",
            "a\u{202a}b",
            "a\u{202b}b",
            "a\u{202c}b",
            "a\u{202d}b",
            "\u{2067}a",
            "\u{2068}a",
            ".a.0123456789abcdef.mcp-part",
            "a.mcp-part",
            "A.MCP-PART",
            &long,
            &long_utf8,
        ] {
            let error = safe_name(name).expect_err(name);
            assert!(matches!(error, SinkError::Name(_)));
            assert!(!error.to_string().chars().any(is_hidden), "{error}");
        }
    }

    #[test]
    fn shortening_keeps_characters_whole() {
        assert_eq!(shorten("aéb", 9), "aéb");
        assert_eq!(shorten("aéb", 3), "aé");
        assert_eq!(shorten("aéb", 2), "a");
        assert_eq!(shorten("é", 0), "");
    }
}
