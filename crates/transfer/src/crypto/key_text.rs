//! Coding of keys as one line of text: a heading that names the kind, and 58 characters of base32 (RFC
//! 4648, lower case, no padding) for the 32 bytes of the key and 4 bytes of check. The check covers the
//! heading too.

use data_encoding::BASE32_NOPAD_NOCASE;
use zeroize::Zeroizing;

/// Bytes of a key.
const LEN: usize = 32;
/// Bytes of the check. One mistyped line in four thousand million passes it.
const CHECK: usize = 4;
/// Characters for key and check.
const DIGITS: usize = ((LEN + CHECK) * 8).div_ceil(5);
/// Domain of the check's hash; never changes within a version.
const CONTEXT: &str = "mcp 2026-11-20 check of a key as text v1";

/// The reason why a line is not a key of the expected kind. Contains no part of the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is something else.
    #[error("this is no {what}, which is one line that begins with {heading}; copy it whole")]
    Other {
        /// The expected kind.
        what: &'static str,
        /// The expected heading.
        heading: &'static str,
    },
    /// The line is from a later version of the program.
    #[error("this {what} is of a version that this mcp does not know; update mcp")]
    Version {
        /// The kind.
        what: &'static str,
    },
    /// The end of the line is missing.
    #[error("this {what} is cut short; copy the whole line")]
    Short {
        /// The kind.
        what: &'static str,
    },
    /// The line has additional characters at its end.
    #[error("this {what} has something behind it; copy the line alone")]
    Long {
        /// The kind.
        what: &'static str,
    },
    /// The check fails: a character was changed.
    #[error("this {what} is mistyped or damaged; copy the line again")]
    Mistyped {
        /// The kind.
        what: &'static str,
    },
    /// The name of the group key is invalid.
    #[error(
        "a key's name has 1 to 32 of a-z, 0-9, '.', '_' and '-', does not begin with '.' or '-', and is not 'none'"
    )]
    Name,
}

/// A kind of key line.
pub(super) struct LineKind {
    /// The kind, for people.
    pub what: &'static str,
    /// The beginning of the line in every version.
    pub stem: &'static str,
    /// The heading of this version.
    pub heading: &'static str,
}

impl LineKind {
    /// The rest of a line after the heading; ignores white space around the line.
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

    /// Writes the line of `key`, with `name` between heading and key.
    pub(super) fn write(&self, name: &str, key: &[u8; LEN]) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; LEN + CHECK]);
        bytes[..LEN].copy_from_slice(key);
        bytes[LEN..].copy_from_slice(&self.check(name, key));
        let mut digits = Zeroizing::new([0; DIGITS]);
        BASE32_NOPAD_NOCASE.encode_mut(&*bytes, &mut *digits);
        digits.make_ascii_lowercase();
        // Allocated with its final length: a growing string would leave copies of the secret in memory.
        let mut line = Zeroizing::new(String::with_capacity(self.heading.len() + name.len() + DIGITS));
        line.push_str(self.heading);
        line.push_str(name);
        line.extend(digits.iter().map(|&digit| char::from(digit)));
        line
    }

    /// Reads the key from `digits`, which follow `name`.
    pub(super) fn read(&self, name: &str, digits: &str) -> Result<Zeroizing<[u8; LEN]>, LineError> {
        let what = self.what;
        match digits.len() {
            0..DIGITS => return Err(LineError::Short { what }),
            DIGITS => {}
            _ => return Err(LineError::Long { what }),
        }
        let mut bytes = Zeroizing::new([0; LEN + CHECK]);
        // Every key has exactly one text.
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

/// The first `groups` times 20 bits of a hash, in groups of four characters, for people to compare.
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
