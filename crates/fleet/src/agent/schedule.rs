//! When a step may begin: not before `start`, and within the daily window in the device's time zone. Pure.

use crate::documents::Window;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// The earliest time from `now` on at which a step may begin. All in seconds since 1970.
pub(crate) fn opening(start: Option<u64>, window: Option<Window>, now: u64, zone: &TimeZone) -> u64 {
    let earliest = now.max(start.unwrap_or(0));
    let Some(window) = window else { return earliest };
    next_in_window(window, earliest, zone).unwrap_or(earliest)
}

/// `None` for times that no calendar has.
fn next_in_window(window: Window, earliest: u64, zone: &TimeZone) -> Option<u64> {
    let at = Timestamp::from_second(i64::try_from(earliest).ok()?).ok()?.to_zoned(zone.clone());
    let minute = u16::try_from(i32::from(at.hour()) * 60 + i32::from(at.minute())).ok()?;
    if window.contains(minute) {
        return Some(earliest);
    }
    let (hour, minute) = (i8::try_from(window.from() / 60).ok()?, i8::try_from(window.from() % 60).ok()?);
    // Today's opening has passed if it is earlier in the day. A day without that time (the clock is put forward) opens just after.
    for day in 0..3 {
        let date = at.date().checked_add(i64::from(day).days()).ok()?;
        let opens = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?.timestamp().as_second();
        let opens = u64::try_from(opens).ok()?;
        if opens > earliest {
            return Some(opens);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn berlin() -> TimeZone {
        // Central European time with its summer time, as POSIX writes it: independent of the machine's database.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn second(month: i8, day: i8, hour: i8, minute: i8) -> u64 {
        let zoned = date(2026, month, day).at(hour, minute, 0, 0).to_zoned(berlin()).unwrap();
        zoned.timestamp().as_second() as u64
    }

    #[test]
    fn steps_begin_in_the_window_of_the_device() {
        let opening = |window: &str, now| opening(None, Some(window.parse().unwrap()), now, &berlin());
        let noon = second(11, 22, 12, 0);
        assert_eq!(opening("22:00-05:00", noon), second(11, 22, 22, 0));
        assert_eq!(opening("22:00-05:00", second(11, 22, 23, 0)), second(11, 22, 23, 0));
        assert_eq!(opening("22:00-05:00", second(11, 23, 4, 59)), second(11, 23, 4, 59));
        assert_eq!(opening("22:00-05:00", second(11, 23, 5, 0)), second(11, 23, 22, 0));
        assert_eq!(opening("08:00-09:00", noon), second(11, 23, 8, 0));
        // The night of the 29th of March has no 02:30; the window opens at the next time that there is.
        assert_eq!(opening("02:30-02:45", second(3, 29, 0, 0)), second(3, 29, 3, 30));
        // The night of the 25th of October has 02:30 twice; the first one counts.
        assert_eq!(opening("02:30-04:00", second(10, 25, 0, 0)), second(10, 25, 0, 0) + 9000);
    }

    #[test]
    fn start_and_window_both_hold() {
        let window = Some("22:00-05:00".parse().unwrap());
        let (now, start) = (second(11, 22, 23, 0), second(11, 24, 12, 0));
        assert_eq!(opening(Some(start), window, now, &berlin()), second(11, 24, 22, 0));
        assert_eq!(opening(Some(start), None, now, &berlin()), start);
        assert_eq!(opening(Some(now - 5), None, now, &berlin()), now);
        assert_eq!(opening(None, window, u64::MAX, &berlin()), u64::MAX, "no calendar has this time");
    }
}
