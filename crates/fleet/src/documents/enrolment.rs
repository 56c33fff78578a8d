//! The enrolment line: what a person carries from a server to a device. It has the server's URL, the pin of its certificate,
//! a token, the hash of the fleet's first root, and the fleet's identifier.
//!
//! It is `mcp-enrol1-` and lower-case base32 (RFC 4648, no padding) of: the number of bytes that follow (2 bytes), a check of
//! that number (2), fleet (16), pin (32), root (32), the token with its length before it (1), the URL likewise (2), a check (4). Numbers are
//! big-endian. Since the number has a check of its own, a line that is cut short is told from a mistyped one.

use super::keys::{FleetId, Hash};
use crate::limits::{MAX_TOKEN, MAX_URL};
use data_encoding::BASE32_NOPAD_NOCASE;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const STEM: &str = "mcp-enrol";
const HEADING: &str = "mcp-enrol1-";
/// Domains of the checks; they never change within a version.
const CHECK: &str = "mcp 2026-11-22 check of an enrolment line v1";
const LENGTH_CHECK: &str = "mcp 2026-11-22 check of an enrolment line's length v1";
/// Bytes of the length and its check.
const HEAD: usize = 4;
/// Bytes of the check at the end.
const TAIL: usize = 4;

/// What an enrolment line says. It is a secret as long as its token is valid: its debug output omits the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The fleet.
    pub fleet: FleetId,
    /// SHA-256 of the server certificate's SubjectPublicKeyInfo.
    pub pin: Hash,
    /// The BLAKE3 hash of the payload of root 1.
    pub root: Hash,
    /// The token: 1 to 128 visible ASCII characters.
    pub token: Zeroizing<String>,
    /// The server: `https://HOST:PORT`, without a path.
    pub url: String,
}

/// Why a line is no enrolment line. Contains no part of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// Something else.
    #[error(
        "this is no enrolment line, which is one line that begins with {HEADING}; 'mcp enrol' on the server prints one"
    )]
    Other,
    /// From a later version.
    #[error("this enrolment line is of a version that this mcp does not know; update mcp")]
    Version,
    /// Its end is missing.
    #[error("this enrolment line is cut short; copy the whole line")]
    Short,
    /// More follows.
    #[error("this enrolment line has something behind it; copy the line alone")]
    Long,
    /// A character was changed.
    #[error("this enrolment line is mistyped or damaged; copy the line again")]
    Mistyped,
}

impl Enrolment {
    /// The line that [`str::parse`] reads; `None` if token or URL are not as described at the members.
    #[must_use]
    pub fn line(&self) -> Option<Zeroizing<String>> {
        if !self.is_valid() {
            return None;
        }
        let token = self.token.as_bytes();
        let length = 16 + 32 + 32 + 1 + token.len() + 2 + self.url.len() + TAIL;
        // Allocated with its final size: a growing one would leave copies of the token in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + length));
        let number = u16::try_from(length).ok()?.to_be_bytes();
        bytes.extend_from_slice(&number);
        bytes.extend_from_slice(&check::<2>(LENGTH_CHECK, &number));
        bytes.extend_from_slice(&self.fleet.0);
        bytes.extend_from_slice(&self.pin.0);
        bytes.extend_from_slice(&self.root.0);
        bytes.push(u8::try_from(token.len()).ok()?);
        bytes.extend_from_slice(token);
        bytes.extend_from_slice(&u16::try_from(self.url.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(self.url.as_bytes());
        let tail = check::<TAIL>(CHECK, &bytes);
        bytes.extend_from_slice(&tail);
        let mut digits = Zeroizing::new(vec![0; BASE32_NOPAD_NOCASE.encode_len(bytes.len())]);
        BASE32_NOPAD_NOCASE.encode_mut(&bytes, &mut digits);
        digits.make_ascii_lowercase();
        let mut line = Zeroizing::new(String::with_capacity(HEADING.len() + digits.len()));
        line.push_str(HEADING);
        line.extend(digits.iter().map(|&digit| char::from(digit)));
        Some(line)
    }

    fn is_valid(&self) -> bool {
        let visible =
            |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let host = self.url.strip_prefix("https://").unwrap_or_default();
        visible(&self.token, MAX_TOKEN)
            && visible(&self.url, MAX_URL)
            && !host.is_empty()
            && !host.contains(['/', '@', '?', '#'])
    }

    /// Reads what follows the head, without the check at the end.
    fn read(body: &[u8]) -> Option<Self> {
        let (fleet, rest) = body.split_first_chunk()?;
        let (pin, rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (token, rest) = rest.split_at_checked(length.into())?;
        let (length, url) = rest.split_first_chunk()?;
        let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(str::to_owned);
        let (token, url) = (Zeroizing::new(text(token)?), text(url)?);
        let enrolment = Self { fleet: FleetId(*fleet), pin: Hash(*pin), root: Hash(*root), token, url };
        (usize::from(u16::from_be_bytes(*length)) == enrolment.url.len() && enrolment.is_valid())
            .then_some(enrolment)
    }
}

impl FromStr for Enrolment {
    type Err = EnrolmentError;

    /// Parses a line. Ignores surrounding white space.
    fn from_str(line: &str) -> Result<Self, EnrolmentError> {
        let line = line.trim();
        let Some(digits) = line.strip_prefix(HEADING) else {
            let version = line.strip_prefix(STEM).and_then(|rest| rest.split_once('-')).map(|(n, _)| n);
            return Err(match version {
                Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => EnrolmentError::Version,
                _ => EnrolmentError::Other,
            });
        };
        // 7 characters hold the head.
        let Some(head) = digits.get(..7) else {
            return Err(if digits.is_ascii() { EnrolmentError::Short } else { EnrolmentError::Mistyped });
        };
        let decode = |text: &str| {
            let upper = text.bytes().any(|b| b.is_ascii_uppercase());
            let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).map(Zeroizing::new);
            bytes.ok().filter(|_| !upper).ok_or(EnrolmentError::Mistyped)
        };
        // The seventh character has bits of the next byte, which decode only in its company.
        let padded = format!("{head}a");
        let head = decode(&padded)?;
        let (number, rest) = head.split_first_chunk::<2>().ok_or(EnrolmentError::Mistyped)?;
        if rest[..2] != check::<2>(LENGTH_CHECK, number) {
            return Err(EnrolmentError::Mistyped);
        }
        let length = HEAD + usize::from(u16::from_be_bytes(*number));
        match digits.len().cmp(&BASE32_NOPAD_NOCASE.encode_len(length)) {
            std::cmp::Ordering::Less => return Err(EnrolmentError::Short),
            std::cmp::Ordering::Greater => return Err(EnrolmentError::Long),
            std::cmp::Ordering::Equal => {}
        }
        let bytes = decode(digits)?;
        let (body, tail) = bytes.split_last_chunk::<TAIL>().ok_or(EnrolmentError::Mistyped)?;
        if *tail != check::<TAIL>(CHECK, body) {
            return Err(EnrolmentError::Mistyped);
        }
        body.get(HEAD..).and_then(Self::read).ok_or(EnrolmentError::Mistyped)
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet, pin, root, url, token: _ } = self;
        f.debug_struct("Enrolment")
            .field("fleet", fleet)
            .field("pin", pin)
            .field("root", root)
            .field("url", url)
            .finish_non_exhaustive()
    }
}

fn check<const N: usize>(context: &str, bytes: &[u8]) -> [u8; N] {
    let hash = blake3::derive_key(context, bytes);
    let mut check = [0; N];
    check.copy_from_slice(&hash[..N]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Enrolment {
        Enrolment {
            fleet: FleetId([7; 16]),
            pin: Hash([8; 32]),
            root: Hash([9; 32]),
            token: Zeroizing::new("one-time-secret".to_owned()),
            url: "https://server.example:7443".to_owned(),
        }
    }

    #[test]
    fn goes_through_text() {
        let line = example().line().unwrap();
        assert_eq!(line.parse::<Enrolment>().unwrap(), example());
        assert_eq!(format!("  {}\n", *line).parse::<Enrolment>().unwrap(), example());
        assert!(!format!("{:?}", example()).contains("one-time"));
    }

    #[test]
    fn a_cut_line_is_told_from_a_mistyped_one() {
        let line = example().line().unwrap();
        for end in HEADING.len()..line.len() {
            assert_eq!(line[..end].parse::<Enrolment>(), Err(EnrolmentError::Short), "{end} characters");
        }
        for more in ["a", "7", " a", "aaaaaaaa"] {
            assert_eq!(format!("{}{more}", *line).parse::<Enrolment>(), Err(EnrolmentError::Long));
        }
        for (at, was) in line.char_indices().skip(HEADING.len()) {
            for new in ['a', '7', 'q', 'A', '0', 'ä'].into_iter().filter(|new| *new != was) {
                let mut wrong = line.to_string();
                wrong.replace_range(at..=at, &new.to_string());
                let error = wrong.parse::<Enrolment>().unwrap_err();
                let longer = error == EnrolmentError::Long && !new.is_ascii();
                assert!(error == EnrolmentError::Mistyped || longer, "{new} at {at}: {error}");
            }
        }
    }

    #[test]
    fn other_lines() {
        let line = example().line().unwrap();
        assert_eq!(line.replace("enrol1", "enrol2").parse::<Enrolment>(), Err(EnrolmentError::Version));
        for other in ["", "mcp-key1-lab-abc", "mcp-enrol-", "mcp-enrolx-"] {
            assert_eq!(other.parse::<Enrolment>(), Err(EnrolmentError::Other), "{other}");
        }
    }

    #[test]
    fn only_a_server_with_tls_is_written() {
        for url in ["http://server", "https://", "https://a/b", "https://user@host", "https://ho st", ""] {
            assert_eq!(Enrolment { url: url.to_owned(), ..example() }.line(), None, "{url}");
        }
        for token in ["", "two words", "a\nb"] {
            assert_eq!(
                Enrolment { token: Zeroizing::new(token.to_owned()), ..example() }.line(),
                None,
                "{token}"
            );
        }
    }
}
