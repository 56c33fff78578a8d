//! Group keys as text: the line that people carry from machine to machine, and the key file.
//!
//! A line is `mcp-key1-NAME-` and 58 characters (`key_text` has the coding). A file has one or more
//! lines, all of one name. The first is the current key. The others are its previous versions, which
//! still open sessions. Blank lines, and lines that begin with `#`, are ignored.

use super::derive::Secret;
use super::key_text::{LineError, LineKind, groups};
use crate::limits::{MAX_KEY_FILE, MAX_KEY_LINES, MAX_KEY_NAME};
use zeroize::Zeroizing;

const KIND: LineKind = LineKind { what: "group key", stem: "mcp-key", heading: "mcp-key1-" };

/// Separates the short identifier from all keys derived from the secret.
const ID: &str = "mcp 2026-11-20 short identifier of a group key v1";

/// A secret that the machines of a group share, and its name.
#[derive(Clone, Debug)]
pub struct GroupKey {
    name: String,
    secret: Secret,
}

impl GroupKey {
    /// A key with this name and secret.
    ///
    /// # Errors
    /// If `name` is not a key's name; see [`check_name`].
    pub fn new(name: &str, secret: Secret) -> Result<Self, LineError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), secret })
    }

    /// The name, which is also valid as a file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The secret itself.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// 40 bits of a hash of the secret, such as `k7qd-2m4x`. Distinguishes keys of one name.
    #[must_use]
    pub fn id(&self) -> String {
        groups(self.secret.derive(ID, &[]).expose(), 2)
    }

    /// Whether both have the same secret. Ignores names.
    #[must_use]
    pub fn same_secret(&self, other: &Self) -> bool {
        self.secret.derive(ID, &[]).expose() == other.secret.derive(ID, &[]).expose()
    }

    /// The line to carry, without a line break. Contains the secret.
    #[must_use]
    pub fn line(&self) -> Zeroizing<String> {
        KIND.write(&format!("{}-", self.name), self.secret.expose())
    }

    /// Parses a line; ignores white space around it.
    ///
    /// # Errors
    /// If the line is not a group key, is cut short or is mistyped.
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        // The name may contain dashes; the characters after it do not.
        let (name, digits) = KIND.body(line)?.rsplit_once('-').ok_or(LineError::Short { what: KIND.what })?;
        let secret = KIND.read(&format!("{name}-"), digits)?;
        Self::new(name, Secret::new(*secret))
    }
}

/// Whether `name` can be a group key's: 1 to [`MAX_KEY_NAME`] of a-z, 0-9, `.`, `_` and `-`, the first of
/// them neither `.` nor `-`. `none` is reserved: it means no key. Such a name is a valid file name on
/// every system.
///
/// # Errors
/// If it cannot.
pub fn check_name(name: &str) -> Result<(), LineError> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty()
        || name == "none"
        || name.len() > MAX_KEY_NAME
        || name.starts_with(['.', '-'])
        || !name.bytes().all(fine)
    {
        return Err(LineError::Name);
    }
    Ok(())
}

/// The reason why bytes are not a key file. Contains no part of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file is larger than a key file can be.
    #[error("it is larger than a key file can be ({MAX_KEY_FILE} bytes)")]
    TooLarge,
    /// The file has too many keys.
    #[error("it has more keys than a key file can have ({MAX_KEY_LINES})")]
    TooMany,
    /// The file is not UTF-8.
    #[error("it is not text")]
    NotText,
    /// The file has no key.
    #[error("there is no key in it")]
    Empty,
    /// The file has keys of several names.
    #[error("line {0} has a key of another name than those before it; keep each in a file of its own")]
    Mixed(usize),
    /// A line is neither a key nor a comment.
    #[error("line {0}: {1}")]
    Line(usize, LineError),
}

/// The keys of one name: the current key, and its previous versions, the latest first.
#[derive(Clone, Debug)]
pub struct GroupKeys {
    current: GroupKey,
    older: Vec<GroupKey>,
}

impl GroupKeys {
    /// One current key without previous versions.
    #[must_use]
    pub const fn new(current: GroupKey) -> Self {
        Self { current, older: Vec::new() }
    }

    /// The key to send with.
    #[must_use]
    pub const fn current(&self) -> &GroupKey {
        &self.current
    }

    /// The previous versions, the latest first.
    #[must_use]
    pub fn older(&self) -> &[GroupKey] {
        &self.older
    }

    /// All secrets, the current one first.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.older).map(GroupKey::secret)
    }

    /// Makes `key` the current key, under the name of the others. Drops the oldest version if there are
    /// too many. A key that is present already moves to the front.
    pub fn renew(&mut self, key: GroupKey) {
        let name = self.current.name.clone();
        let before = std::mem::replace(&mut self.current, GroupKey { name, ..key });
        self.older.insert(0, before);
        let current = &self.current;
        self.older.retain(|older| !older.same_secret(current));
        self.older.truncate(MAX_KEY_LINES - 1);
    }

    /// Adds the keys of another file of the same name. If its current key is new, it becomes the current
    /// key. If it is present already, the current key stays, so that an old line does not undo a
    /// rotation.
    pub fn merge(&mut self, other: Self) {
        let known = |keys: &Self, key: &GroupKey| {
            std::iter::once(&keys.current).chain(&keys.older).any(|have| have.same_secret(key))
        };
        let front = !known(self, &other.current);
        let mut new: Vec<_> = other.older.into_iter().filter(|key| !known(self, key)).collect();
        if front {
            for key in new.drain(..).rev() {
                self.renew(key);
            }
            self.renew(other.current);
        } else {
            self.older.append(&mut new);
            self.older.truncate(MAX_KEY_LINES - 1);
        }
    }

    /// Drops all but the current key.
    pub fn drop_older(&mut self) {
        self.older.clear();
    }

    /// The content of the key file. Contains the secrets.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let lines: Vec<_> = std::iter::once(&self.current).chain(&self.older).map(GroupKey::line).collect();
        let mut text = Zeroizing::new(String::with_capacity(lines.iter().map(|line| line.len() + 1).sum()));
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Parses a key file.
    ///
    /// # Errors
    /// If the bytes are not a key file.
    pub fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > MAX_KEY_FILE {
            return Err(FileError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| FileError::NotText)?;
        let mut keys: Option<Self> = None;
        for (line, text) in (1..).zip(text.lines()) {
            if text.trim().is_empty() || text.trim_start().starts_with('#') {
                continue;
            }
            let key = GroupKey::from_line(text).map_err(|e| FileError::Line(line, e))?;
            match &mut keys {
                None => keys = Some(Self::new(key)),
                Some(keys) if keys.current.name != key.name => return Err(FileError::Mixed(line)),
                Some(keys) if keys.older.len() + 1 == MAX_KEY_LINES => return Err(FileError::TooMany),
                Some(keys) => keys.older.push(key),
            }
        }
        keys.ok_or(FileError::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, n: u8) -> GroupKey {
        GroupKey::new(name, Secret::new([n; 32])).unwrap()
    }

    const GOLDEN: &str = "mcp-key1-lab-a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dtg3m6i4";

    #[test]
    fn golden() {
        assert_eq!(key("lab", 7).line().as_str(), GOLDEN);
        assert_eq!(key("lab", 7).id(), "mifs-inpd");
        let read = GroupKey::from_line(&format!("\t{GOLDEN} \n")).unwrap();
        assert_eq!((read.name(), read.secret().expose()), ("lab", &[7; 32]));
    }

    #[test]
    fn names() {
        for name in ["a", "lab", "lab-2", "a.b_c-", "0", &"x".repeat(32)] {
            let line = key(name, 1).line();
            assert_eq!(GroupKey::from_line(&line).unwrap().name(), name);
        }
        for name in ["none", "", ".", "..", ".a", "-a", "a/b", "A", "a b", "ä", "a\0", &"x".repeat(33)] {
            assert_eq!(GroupKey::new(name, Secret::new([1; 32])).unwrap_err(), LineError::Name, "{name:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |line: &str| GroupKey::from_line(line).unwrap_err();
        let what = "group key";
        assert!(matches!(says(""), LineError::Other { .. }));
        assert!(matches!(says("mcp-sender1-aaaa"), LineError::Other { .. }));
        assert_eq!(says("mcp-key2-lab-aaaa"), LineError::Version { what });
        for cut in 9..GOLDEN.len() {
            assert_eq!(says(&GOLDEN[..cut]), LineError::Short { what }, "{cut}");
        }
        assert_eq!(says(&format!("{GOLDEN}{GOLDEN}")), LineError::Mistyped { what });
        assert_eq!(says(&format!("{GOLDEN}a")), LineError::Long { what });
        // The check covers the name too.
        assert_eq!(says(&GOLDEN.replace("lab", "lob")), LineError::Mistyped { what });
        assert_eq!(says(&GOLDEN.replace("lab", "../lab")), LineError::Mistyped { what });
        for at in 13..GOLDEN.len() {
            for other in ["a", "b", "7", "A", "0", " ", "."] {
                let mut line = GOLDEN.to_owned();
                line.replace_range(at..=at, other);
                assert!(line == GOLDEN || GroupKey::from_line(&line).is_err(), "{line}");
            }
        }
    }

    #[test]
    fn no_secret_is_printed_by_accident() {
        let printed = format!("{:?}", GroupKeys::new(key("lab", 7)));
        assert!(printed.contains("Secret(..)") && !printed.contains("07"), "{printed}");
    }

    #[test]
    fn files() {
        let mut keys = GroupKeys::new(key("lab", 1));
        keys.renew(key("lab", 2));
        keys.renew(key("other", 3));
        keys.renew(key("lab", 2));
        let seconds: Vec<u8> = keys.secrets().map(|s| s.expose()[0]).collect();
        assert_eq!(seconds, [2, 3, 1]);
        let text = format!("# the lab's\r\n\r\n  \n{}", keys.text().replace('\n', "\r\n"));
        let read = GroupKeys::parse(text.as_bytes()).unwrap();
        assert_eq!(read.secrets().map(|s| s.expose()[0]).collect::<Vec<_>>(), seconds);
        assert!(read.older().iter().all(|key| key.name() == "lab"));
        for n in 10..40 {
            keys.renew(key("lab", n));
        }
        assert_eq!((keys.older().len(), keys.current().secret().expose()[0]), (MAX_KEY_LINES - 1, 39));
        assert!(GroupKeys::parse(keys.text().as_bytes()).is_ok());
        keys.drop_older();
        assert_eq!(keys.text().as_str(), format!("{}\n", key("lab", 39).line().as_str()));
    }

    #[test]
    fn merging() {
        let keys = |seconds: &[u8]| {
            let text: Vec<String> = seconds.iter().map(|n| key("lab", *n).line().to_string()).collect();
            GroupKeys::parse(text.join("\n").as_bytes()).unwrap()
        };
        for (have, add, want) in [
            (&[1][..], &[1][..], &[1][..]),
            (&[1], &[2], &[2, 1]),
            (&[2, 1], &[1], &[2, 1]),
            (&[2, 1], &[3, 2, 1], &[3, 2, 1]),
            (&[1], &[3, 2, 1], &[3, 2, 1]),
            (&[3], &[3, 2, 1], &[3, 2, 1]),
        ] {
            let mut keys_here = keys(have);
            keys_here.merge(keys(add));
            let got: Vec<u8> = keys_here.secrets().map(|s| s.expose()[0]).collect();
            assert_eq!(got, want, "{have:?} and {add:?}");
        }
    }

    #[test]
    fn files_that_are_none() {
        let says = |bytes: &[u8]| GroupKeys::parse(bytes).unwrap_err();
        assert_eq!(says(b""), FileError::Empty);
        assert_eq!(says(b"# nothing\n\n"), FileError::Empty);
        assert_eq!(says(b"\xff"), FileError::NotText);
        assert_eq!(says(&vec![b'#'; MAX_KEY_FILE + 1]), FileError::TooLarge);
        let (a, b) = (key("a", 1).line(), key("b", 1).line());
        assert_eq!(says(format!("{}\n\n{}\n", a.as_str(), b.as_str()).as_bytes()), FileError::Mixed(3));
        let broken = format!("{}\n{}", a.as_str(), &a[..20]);
        assert_eq!(says(broken.as_bytes()), FileError::Line(2, LineError::Short { what: "group key" }));
        let many = format!("{}\n", a.as_str()).repeat(MAX_KEY_LINES + 1);
        assert_eq!(says(many.as_bytes()), FileError::TooMany);
    }

    #[test]
    fn anything_at_all_is_read_without_harm() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..3) {
                    0 => bytes[at] = rng.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, rng.u8(..)),
                }
            }
            if bytes != GOLDEN.as_bytes()
                && let Ok(keys) = GroupKeys::parse(&bytes)
            {
                assert_eq!(keys.current().line().as_str(), GOLDEN);
            }
        }
    }
}
