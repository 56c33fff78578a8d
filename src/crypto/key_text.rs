//! Keys as one line of text that people carry: a heading that says what it is, and 58 characters of
//! base32 (RFC 4648, lower case, no padding) for 32 bytes and a check of 4, which covers the heading too.

use data_encoding::BASE32_NOPAD_NOCASE;
use zeroize::Zeroizing;

/// Bytes of a key.
const LEN: usize = 32;
/// Bytes of the check: one mistyped line in four thousand million passes it.
const CHECK: usize = 4;
/// Characters for both.
const DIGITS: usize = ((LEN + CHECK) * 8).div_ceil(5);
/// Domain of the check; never changes within a version.
const CONTEXT: &str = "mcp 2026-11-20 check of a key as text v1";

/// Why a line is not the key that it should be. It never holds a part of the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Something else altogether.
    #[error("this is no {what}, which is one line that begins with {heading}; copy it whole")]
    Other {
        /// What it should be.
        what: &'static str,
        /// How it should begin.
        heading: &'static str,
    },
    /// Of a later program.
    #[error("this {what} is of a version that this mcp does not know; update mcp")]
    Version {
        /// What it is.
        what: &'static str,
    },
    /// The end is missing.
    #[error("this {what} is cut short; copy the whole line")]
    Short {
        /// What it is.
        what: &'static str,
    },
    /// Something follows it.
    #[error("this {what} has something behind it; copy the line alone")]
    Long {
        /// What it is.
        what: &'static str,
    },
    /// A character is not as it was written.
    #[error("this {what} is mistyped or damaged; copy the line again")]
    Mistyped {
        /// What it is.
        what: &'static str,
    },
    /// The name of a group key is not one.
    #[error(
        "a key's name has 1 to 32 of a-z, 0-9, '.', '_' and '-', does not begin with '.' or '-', and is not 'none'"
    )]
    Name,
}

/// What a line holds.
pub(super) struct LineKind {
    /// For people.
    pub what: &'static str,
    /// How every version of it begins.
    pub stem: &'static str,
    /// How this version begins.
    pub heading: &'static str,
}

impl LineKind {
    /// What follows the heading of a line, white space around it left out.
    pub(super) fn body<'a>(&self, line: &'a str) -> Result<&'a str, LineError> {
        let line = line.trim();
        if let Some(body) = line.strip_prefix(self.heading) {
            return Ok(body);
        }
        let version = line.strip_prefix(self.stem).and_then(|rest| rest.split_once('-')).map(|(n, _)| n);
        Err(match version {
            Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
                LineError::Version { what: self.what }
            }
            _ => LineError::Other { what: self.what, heading: self.heading },
        })
    }

    /// The line for `key`; `name` stands between heading and key.
    pub(super) fn write(&self, name: &str, key: &[u8; LEN]) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; LEN + CHECK]);
        bytes[..LEN].copy_from_slice(key);
        bytes[LEN..].copy_from_slice(&self.check(name, key));
        let mut digits = Zeroizing::new([0; DIGITS]);
        BASE32_NOPAD_NOCASE.encode_mut(&*bytes, &mut *digits);
        digits.make_ascii_lowercase();
        // Made as long as it will be: a string that grows leaves copies behind.
        let mut line = Zeroizing::new(String::with_capacity(self.heading.len() + name.len() + DIGITS));
        line.push_str(self.heading);
        line.push_str(name);
        line.extend(digits.iter().map(|&digit| char::from(digit)));
        line
    }

    /// The key in `digits`, as they stand behind `name`.
    pub(super) fn read(&self, name: &str, digits: &str) -> Result<Zeroizing<[u8; LEN]>, LineError> {
        let what = self.what;
        match digits.len() {
            0..DIGITS => return Err(LineError::Short { what }),
            DIGITS => {}
            _ => return Err(LineError::Long { what }),
        }
        let mut bytes = Zeroizing::new([0; LEN + CHECK]);
        // One key has one text.
        if digits.bytes().any(|b| b.is_ascii_uppercase())
            || BASE32_NOPAD_NOCASE.decode_mut(digits.as_bytes(), &mut *bytes).is_err()
        {
            return Err(LineError::Mistyped { what });
        }
        let mut key = Zeroizing::new([0; LEN]);
        key.copy_from_slice(&bytes[..LEN]);
        if bytes[LEN..] == self.check(name, &key) { Ok(key) } else { Err(LineError::Mistyped { what }) }
    }

    fn check(&self, name: &str, key: &[u8; LEN]) -> [u8; CHECK] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for part in [self.heading.as_bytes(), name.as_bytes(), key] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        let mut check = [0; CHECK];
        check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK]);
        check
    }
}

/// The first `groups` times 20 bits of a hash, in groups of four characters, to compare by eye.
pub(super) fn groups(hash: &[u8; 32], groups: usize) -> String {
    let digits = BASE32_NOPAD_NOCASE.encode(hash).to_ascii_lowercase();
    let mut text = String::new();
    for (i, digit) in digits.chars().take(groups * 4).enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push('-');
        }
        text.push(digit);
    }
    text
}
