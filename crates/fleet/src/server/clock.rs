//! The time, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The minute of the day in the server's time zone, and the seconds gone of it.
#[must_use]
pub fn minute_of_day(at: u64) -> (u16, u64) {
    let seconds = i64::try_from(at).unwrap_or(i64::MAX);
    let Ok(time) = jiff::Timestamp::from_second(seconds) else { return (0, 0) };
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
    (minute, u64::from(time.second().unsigned_abs()))
}
