//! Objects by HTTP: whole or a range, from a directory of objects, paced over all downloads. The server answers with it, and an agent that
//! serves its neighbours.

use super::error::{ApiError, ApiResult};
use super::rate::Pacer;
use crate::objects::{ObjectError, Objects};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::error;

/// Bytes that are read and paced at once.
const PIECE: usize = 128 * 1024;

/// The objects that are served, and what bounds their downloads.
#[derive(Debug)]
pub(crate) struct Downloads {
    objects: Arc<Objects>,
    pub(crate) pacer: Pacer,
    /// For agents of ours.
    pub(crate) slots: Arc<Semaphore>,
    /// Downloads of other clients that are under way.
    pub(crate) stock: AtomicUsize,
    /// Bytes sent since the start.
    pub(crate) sent: AtomicU64,
}

impl Downloads {
    /// Downloads from `objects`, of at most `rate` bytes a second together; `most` of agents of ours at once.
    pub(crate) fn new(objects: Arc<Objects>, rate: Option<u64>, most: usize) -> Arc<Self> {
        let (pacer, slots) = (Pacer::new(rate), Arc::new(Semaphore::new(most)));
        let (stock, sent) = (AtomicUsize::default(), AtomicU64::default());
        Arc::new(Self { objects, pacer, slots, stock, sent })
    }
}

/// Who downloads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// A client of the device interface, an artifact of this name and with this tag. It is never refused: clients fail then.
    Artifact {
        /// The file's name.
        name: &'a str,
        /// Its SHA-1, which clients compare.
        sha1: &'a str,
    },
    /// An agent of ours. Beyond the bound it is told to come later.
    Object,
}

/// Held while a download lasts.
#[derive(Debug)]
enum Slot {
    Ours { _permit: OwnedSemaphorePermit },
    Stock(Arc<Downloads>),
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Self::Stock(downloads) = self {
            downloads.stock.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The range that a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// The first byte, and the one after the last.
    Part(u64, u64),
    /// There is no such part.
    Unsatisfiable,
}

/// Answers a GET or a HEAD of the object `hash`, which has `size` bytes.
pub(crate) async fn respond(
    downloads: &Arc<Downloads>,
    method: &Method,
    headers: &HeaderMap,
    (hash, size): (blake3::Hash, u64),
    kind: Kind<'_>,
) -> ApiResult {
    let tag = match kind {
        Kind::Artifact { sha1, .. } => sha1.to_owned(),
        Kind::Object => hash.to_string(),
    };
    let wanted = match wanted(headers, &tag, size) {
        Ok(wanted) => wanted,
        Err(status) => return Err(ApiError::bare(status)),
    };
    let (status, from, to) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Wanted::Unsatisfiable => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
    };
    let body = if *method == Method::HEAD || from == to {
        Body::empty()
    } else {
        let slot = match kind {
            Kind::Object => {
                let permit =
                    Arc::clone(&downloads.slots).try_acquire_owned().map_err(|_| ApiError::later(10))?;
                Slot::Ours { _permit: permit }
            }
            Kind::Artifact { .. } => {
                downloads.stock.fetch_add(1, Ordering::Relaxed);
                Slot::Stock(Arc::clone(downloads))
            }
        };
        let objects = Arc::clone(&downloads.objects);
        let opened = tokio::task::spawn_blocking(move || objects.open_object(&hash)).await;
        let (file, length) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(ObjectError::Missing(_))) => {
                error!(object = %hash, "object {hash} is in the database and not in the directory; add its task again");
                return Err(ApiError::coded(StatusCode::GONE, "artifact.binaryDeleted", "the file is gone"));
            }
            _ => return Err(ApiError::later(30)),
        };
        if length != size {
            error!(object = %hash, length, size, "object {hash} has {length} bytes on the disk, not {size}; add its task again");
            return Err(ApiError::coded(StatusCode::GONE, "artifact.binaryDeleted", "the file is damaged"));
        }
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(send(Arc::clone(downloads), file, from, to, sender, slot));
        Body::from_stream(Pieces(receiver))
    };
    let mut response = (status, body).into_response();
    fill(response.headers_mut(), &tag, (from, to, size), status, kind);
    Ok(response)
}

/// Sets the headers of an answer with bytes `from` to `to` of `size`.
fn fill(
    headers: &mut HeaderMap,
    tag: &str,
    (from, to, size): (u64, u64, u64),
    status: StatusCode,
    kind: Kind<'_>,
) {
    let mut set = |name: HeaderName, value: String| {
        // All values are printable ASCII; one that is not is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "application/octet-stream".into());
    set(header::CONTENT_LENGTH, (to - from).to_string());
    set(header::ACCEPT_RANGES, "bytes".into());
    set(header::ETAG, format!("\"{tag}\""));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff".into());
    // Objects never change; only answers need a date.
    set(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".into());
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1));
    }
    if let Kind::Artifact { name, .. } = kind {
        let name = percent_encoding::utf8_percent_encode(name, super::auth::SEGMENT);
        set(header::CONTENT_DISPOSITION, format!("attachment;filename={name}"));
    }
}

/// What the conditions and the range of a request come to.
fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Result<Wanted, StatusCode> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let same = |value: &str| matches!(value.trim().trim_matches('"'), one if one == tag);
    if let Some(value) = text(header::IF_MATCH)
        && !value.split(',').any(|one| one.trim() == "*" || same(one))
    {
        return Err(StatusCode::PRECONDITION_FAILED);
    }
    if let Some(value) = text(header::IF_NONE_MATCH)
        && value.split(',').any(|one| one.trim() == "*" || same(one))
    {
        return Err(StatusCode::NOT_MODIFIED);
    }
    let Some(range) = headers.get(header::RANGE) else { return Ok(Wanted::Whole) };
    if headers.contains_key(header::IF_RANGE) && !text(header::IF_RANGE).is_some_and(same) {
        return Ok(Wanted::Whole);
    }
    Ok(range.to_str().map_or(Wanted::Unsatisfiable, |range| parse(range, size)))
}

/// Reads `bytes=a-b`, `a-` or `-n`. Several ranges, and other units, get the whole.
fn parse(range: &str, size: u64) -> Wanted {
    let Some((unit, range)) = range.split_once('=') else { return Wanted::Unsatisfiable };
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Wanted::Whole;
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match range.trim().split_once('-').map(|(a, b)| (a.trim(), b.trim())) {
        Some((from, "")) => match number(from) {
            Some(from) if from < size => Wanted::Part(from, size),
            _ => Wanted::Unsatisfiable,
        },
        Some(("", last)) => match number(last) {
            Some(count) if count > 0 && size > 0 => Wanted::Part(size - count.min(size), size),
            _ => Wanted::Unsatisfiable,
        },
        Some((from, to)) => match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to && from < size => {
                Wanted::Part(from, to.saturating_add(1).min(size))
            }
            _ => Wanted::Unsatisfiable,
        },
        None => Wanted::Unsatisfiable,
    }
}

/// Reads the range and hands it on, as fast as the client takes it and the pacer lets it.
async fn send(
    downloads: Arc<Downloads>,
    file: File,
    mut at: u64,
    to: u64,
    sender: mpsc::Sender<io::Result<Bytes>>,
    slot: Slot,
) {
    let _held = slot;
    let file = Arc::new(file);
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        let wait = downloads.pacer.reserve(length, Instant::now());
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = sender.closed() => return,
            }
        }
        let reader = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            reader.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
        });
        // A disk that fails ends the answer short, which the client sees.
        let piece = read.await.unwrap_or_else(|_| Err(io::Error::other("the reader ended")));
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() || failed {
            return;
        }
        downloads.sent.fetch_add(length as u64, Ordering::Relaxed);
        at += length as u64;
    }
}

/// The pieces of an answer.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The bytes of a small answer of ours.
pub(super) fn octets(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use Wanted::{Part, Unsatisfiable, Whole};
        for (range, size, want) in [
            ("bytes=0-", 10, Part(0, 10)),
            ("bytes=3-5", 10, Part(3, 6)),
            ("bytes=3-99", 10, Part(3, 10)),
            ("bytes=-4", 10, Part(6, 10)),
            ("bytes=-99", 10, Part(0, 10)),
            ("bytes=9-9", 10, Part(9, 10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=5-3", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=a-b", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-99999999999999999999999", 10, Part(0, 10)),
            ("0-5", 10, Unsatisfiable),
            ("bytes=0-1,3-4", 10, Whole),
            ("lines=1-2", 10, Whole),
        ] {
            assert_eq!(parse(range, size), want, "{range} of {size}");
        }
    }

    #[test]
    fn conditions() {
        let check = |headers: &[(HeaderName, &'static str)]| {
            let map: HeaderMap =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            wanted(&map, "abc", 10)
        };
        let range = (header::RANGE, "bytes=5-");
        assert_eq!(check(&[]), Ok(Wanted::Whole));
        assert_eq!(check(&[range.clone(), (header::IF_RANGE, "\"abc\"")]), Ok(Wanted::Part(5, 10)));
        assert_eq!(check(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Ok(Wanted::Whole));
        // hawkBit writes it without quotes.
        assert_eq!(check(&[range.clone(), (header::IF_MATCH, "abc")]), Ok(Wanted::Part(5, 10)));
        assert_eq!(
            check(&[range.clone(), (header::IF_MATCH, "\"x\"")]),
            Err(StatusCode::PRECONDITION_FAILED)
        );
        assert_eq!(check(&[(header::IF_NONE_MATCH, "\"abc\"")]), Err(StatusCode::NOT_MODIFIED));
        assert_eq!(check(&[(header::IF_NONE_MATCH, "\"x\"")]), Ok(Wanted::Whole));
    }
}
