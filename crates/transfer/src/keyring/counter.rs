//! The session counter of this machine's sender. It increases from session to session.
//!
//! The counter is stored in the state directory, and written before it is used. It is never below the clock, so it
//! increases even if the directory is lost, restored from a backup or missing. If the clock stands in 1970, the
//! file alone makes it increase. No device refuses a session because of its counter (decision 15), so an error
//! here causes only a warning.

use super::{Keyring, KeyringError, at, read_private};
use crate::storage::write_private;
use std::time::{SystemTime, UNIX_EPOCH};

/// First line of the file.
const HEADING: &str = "mcp-session-counter 1";
/// Longest valid file.
const MAX_FILE: usize = 64;

/// Milliseconds since 1970; 0 before that.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The counter after `before` when the clock stands at `clock`, which may be in 1970.
const fn following(before: u64, clock: u64) -> u64 {
    let next = before.saturating_add(1);
    if clock > next { clock } else { next }
}

/// Parses the file.
fn parse(bytes: &[u8]) -> Option<u64> {
    let (heading, number) = std::str::from_utf8(bytes).ok()?.trim_end().split_once('\n')?;
    let number = number.parse().ok().filter(|_| heading == HEADING)?;
    // Only one text is valid for each counter.
    (bytes == text(number).as_bytes()).then_some(number)
}

fn text(number: u64) -> String {
    format!("{HEADING}\n{number}\n")
}

impl Keyring {
    /// Increases the counter and returns it, for a session that begins now.
    ///
    /// # Errors
    /// If the file system fails. Then use [`unrecorded_session_counter`].
    pub fn next_session_counter(&self, warnings: &mut Vec<String>) -> Result<u64, KeyringError> {
        let _lock = self.lock()?;
        let path = self.dir.join("session-counter");
        let before = match read_private(&path, MAX_FILE, Some("nothing need be done"), warnings)? {
            None => 0,
            Some(bytes) => parse(&bytes).unwrap_or_else(|| {
                warnings.push(format!("{} was unusable and is written anew", path.display()));
                0
            }),
        };
        let next = following(before, clock());
        at("write", &path, write_private(&path, text(next).as_bytes()))?;
        Ok(next)
    }
}

/// The counter of a session without a state directory: the clock alone.
#[must_use]
pub fn unrecorded_session_counter() -> u64 {
    clock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_rises_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().join("state"));
        let mut warnings = Vec::new();
        let mut next = || ring.next_session_counter(&mut warnings).unwrap();
        let (first, second) = (next(), next());
        assert!(first < second && first > 1_700_000_000_000);
        // The clock was once far ahead.
        let path = dir.path().join("state/session-counter");
        fs::write(&path, text(u64::MAX - 1)).unwrap();
        assert_eq!((next(), next()), (u64::MAX, u64::MAX));
        fs::write(&path, text(second + 1_000_000)).unwrap();
        assert_eq!(next(), second + 1_000_001);
        assert_eq!(parse(&fs::read(&path).unwrap()), Some(second + 1_000_001));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_clock_in_1970_takes_nothing_back() {
        assert_eq!(
            [(0, 0), (0, 9), (9, 9), (9, 0)].map(|(before, clock)| following(before, clock)),
            [1, 9, 10, 10]
        );
        let now = 1_763_740_800_000;
        let reset = [30_000, 40_000].iter().fold(now, |before, &clock| following(before, clock));
        assert_eq!((reset, following(reset, now + 60_000)), (now + 2, now + 60_000));
    }

    #[test]
    fn a_damaged_file_is_written_anew_and_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::new(dir.path().to_owned());
        let path = dir.path().join("session-counter");
        for damaged in ["", "7\n", "mcp-session-counter 2\n7\n", "mcp-session-counter 1\n07\n", "\u{0}"] {
            fs::write(&path, damaged).unwrap();
            let mut warnings = Vec::new();
            let next = ring.next_session_counter(&mut warnings).unwrap();
            assert!(next >= unrecorded_session_counter() - 10_000, "{damaged:?}");
            assert!(warnings.iter().any(|w| w.contains("written anew")), "{damaged:?}: {warnings:?}");
        }
        // The counter cannot be stored.
        let ring = Keyring::new(dir.path().join("session-counter"));
        assert!(ring.next_session_counter(&mut Vec::new()).is_err());
    }
}
