//! The time until a device's next poll.

use crate::limits::{MAX_SLEEP, MIN_SLEEP};
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// The time until the next poll, in whole seconds. Written as `HH:MM:SS`, from [`MIN_SLEEP`] to [`MAX_SLEEP`]: clients
/// poll in a busy loop at zero, and none reads a day or more. Read from `HH:MM:SS` with any number of hours, or from an
/// ISO 8601 duration of days, hours, minutes and seconds, and clamped likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sleep(Duration);

impl Sleep {
    /// A time until the next poll, clamped to what may be asked for.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self(Duration::from_secs(time.clamp(MIN_SLEEP, MAX_SLEEP).as_secs()))
    }

    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }

    /// Reads either form; `None` if it is neither.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        clock(text).or_else(|| iso_8601(text)).map(|seconds| Self::new(Duration::from_secs(seconds)))
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Seconds of `HH:MM:SS`.
fn clock(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Seconds of `PnDTnHnMnS`; a fraction of a second is cut off.
fn iso_8601(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('P').or_else(|| text.strip_prefix('p'))?;
    let (mut total, mut in_time, mut any) = (0_u64, false, false);
    while !rest.is_empty() {
        if !in_time && rest.starts_with(['T', 't']) {
            (in_time, rest) = (true, &rest[1..]);
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let value = number(rest[..end].split('.').next()?)?;
        let unit = match (in_time, rest.as_bytes()[end].to_ascii_uppercase()) {
            (false, b'D') => 86_400,
            (true, b'H') => 3600,
            (true, b'M') => 60,
            (true, b'S') => 1,
            _ => return None,
        };
        total = total.checked_add(value * unit)?;
        (rest, any) = (&rest[end + 1..], true);
    }
    any.then_some(total)
}

impl fmt::Display for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.as_secs();
        write!(f, "{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

impl Serialize for Sleep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sleep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::read(&text).ok_or_else(|| D::Error::custom("a sleep must be HH:MM:SS"))
    }
}
