//! One place that has an object, and one answer of it: a range or the whole, checked as far as headers can be.

use super::super::net::{Net, NetError, classify};
use crate::limits::{MAX_RETRY_AFTER, MIN_RETRY_AFTER};
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use std::ops::Range;
use std::time::{Duration, Instant};

/// What is expected of a source before the next one is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The longest silence, also before the answer.
    pub stall: Duration,
    /// The time over which the speed is taken.
    pub window: Duration,
    /// The least speed in bytes per second.
    pub least: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { stall: Duration::from_secs(20), window: Duration::from_secs(10), least: 16 << 10 }
    }
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// No answer.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It asks to come later.
    #[error("asks to come back in {} s", .0.as_secs())]
    Later(Duration),
    /// An answer that is no success.
    #[error("answers with status {0}")]
    Status(u16),
    /// The body is compressed or otherwise coded, unasked.
    #[error("answers with a content coding that nobody asked for")]
    Coding,
    /// The answer is of another range than asked for.
    #[error("answers with another range than was asked for")]
    Range,
    /// The object has another size there.
    #[error("has another size of it: {0} bytes")]
    Size(u64),
    /// The body ends too early.
    #[error("ends {0} bytes too early")]
    Short(u64),
    /// The bytes come too slowly.
    #[error("is slower than {0} bytes per second")]
    Slow(u64),
    /// The bytes are wrong.
    #[error("gives wrong bytes in block {0}")]
    Wrong(usize),
    /// The bytes are wrong somewhere.
    #[error("gives wrong bytes")]
    WrongWhole,
}

impl Problem {
    /// Whether the source does not have what it says: it is not asked again for this object.
    pub(crate) const fn is_lie(&self) -> bool {
        matches!(self, Self::Coding | Self::Range | Self::Size(_) | Self::Wrong(_) | Self::WrongWhole)
    }
}

/// A part of an object on its way.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    /// Bytes before the range, which the answer has nevertheless.
    skip: u64,
    /// Bytes of the range that have not come yet.
    left: u64,
    pace: Pace,
    since: Instant,
    bytes: u64,
    /// Whether the answer is the whole object, though a range was asked for.
    pub whole: bool,
}

/// Asks `url` for the bytes `range` of an object of `size` bytes.
pub(crate) async fn open(
    net: &Net,
    url: &Url,
    range: Range<u64>,
    size: u64,
    pace: Pace,
) -> Result<Body, Problem> {
    let part = range != (0..size);
    let asked = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    let headers: Vec<_> =
        HeaderValue::from_str(&asked).ok().filter(|_| part).map(|value| (RANGE, value)).into_iter().collect();
    let response = net.get(url.clone(), &headers, pace.stall).await?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if header(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::Coding);
    }
    let length: Option<u64> = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let whole = match response.status() {
        StatusCode::OK => {
            if let Some(other) = length.filter(|length| *length != size) {
                return Err(Problem::Size(other));
            }
            true
        }
        StatusCode::PARTIAL_CONTENT => {
            let stated = header(CONTENT_RANGE).and_then(content_range).ok_or(Problem::Range)?;
            if let Some(other) = stated.1.filter(|total| *total != size) {
                return Err(Problem::Size(other));
            }
            let len = range.end - range.start;
            if !part || stated.0 != range || length.is_some_and(|length| length != len) {
                return Err(Problem::Range);
            }
            false
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            return Err(Problem::Later(retry_after(&response).unwrap_or(Duration::from_secs(30))));
        }
        other => return Err(Problem::Status(other.as_u16())),
    };
    // All of a whole answer is of use, because later blocks may be missing as well.
    let end = if whole { size } else { range.end };
    let skip = if whole { range.start } else { 0 };
    let (left, since) = (end - range.start, Instant::now());
    Ok(Body { response, skip, left, pace, since, bytes: 0, whole })
}

impl Body {
    /// The next bytes; `None` once the range is complete. Whatever follows is not read.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        while self.left > 0 {
            let chunk = tokio::time::timeout(self.pace.stall, self.response.chunk()).await;
            let Some(mut bytes) = chunk.map_err(|_| NetError::Timeout)?.map_err(|error| classify(&error))?
            else {
                return Err(Problem::Short(self.left));
            };
            self.bytes += bytes.len() as u64;
            let passed = self.since.elapsed();
            if passed >= self.pace.window {
                let wanted =
                    self.pace.least.saturating_mul(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
                        / 1000;
                if self.bytes < wanted {
                    return Err(Problem::Slow(self.pace.least));
                }
                (self.since, self.bytes) = (Instant::now(), 0);
            }
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            let mut bytes = bytes.split_off(skipped as usize);
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes.to_vec()));
            }
        }
        Ok(None)
    }
}

/// Reads `bytes A-B/SIZE`; the size may be `*`.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    let range = first.trim().parse().ok()?..last.checked_add(1)?;
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some((range, size))
}

/// How long an answer asks to wait: seconds only, clamped. A date would need a clock that is right.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_an_answer_asks_to_wait_is_clamped() {
        let asked = |value: &str| {
            let answer = axum::http::Response::builder().header(RETRY_AFTER, value).body("").unwrap();
            retry_after(&Response::from(answer))
        };
        assert_eq!(asked("0"), Some(MIN_RETRY_AFTER));
        assert_eq!(asked(" 30 "), Some(Duration::from_secs(30)));
        assert_eq!(asked("1000000000"), Some(MAX_RETRY_AFTER));
        for none in ["", "soon", "-1", "1e3", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(asked(none), None, "{none}");
        }
    }

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0..10, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5..6, None)));
        for wrong in
            ["", "bytes */100", "bytes 1-/2", "bytes -5/9", "items 0-1/2", "bytes 0-18446744073709551615/1"]
        {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
