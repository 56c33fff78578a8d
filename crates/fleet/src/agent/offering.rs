//! What this device gives to its neighbours: copies of verified objects in a directory of their own, by HTTPS, to whoever has a token
//! that the server gave out. On by the administrator's policy only.
//!
//! A request names an object by its hash, and is answered from that directory or not at all. The bounds are those of [`SharePolicy`]:
//! bytes a second, bytes on the disk, and how long an object is kept.

use super::api::{Api, ApiError};
use super::clock;
use super::core::Core;
use super::fetch::blocking;
use crate::documents::Hash;
use crate::limits::{
    HEADER_PATIENCE, MAX_NEIGHBOUR_CONNECTIONS, MAX_NEIGHBOUR_DOWNLOADS, MAX_SHARED, MIN_SHARED,
    TOKEN_KEY_LIFE,
};
use crate::neighbour::{Offer, token};
use crate::objects::{ObjectError, Objects};
use crate::server::download::{Downloads, Kind, respond};
use crate::server::error::{ApiError as Refusal, ApiResult};
use crate::server::{listen, tls};
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::routing::get;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

/// The scheme of the token in `Authorization`.
pub(super) const SCHEME: &str = "NeighbourToken";

/// What the administrator of the machine lets it give to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePolicy {
    /// Where it listens. An unspecified address is all of this machine's; neighbours are then told the one that the server sees.
    pub listen: SocketAddr,
    /// Bytes a second of all downloads together.
    pub rate: u64,
    /// Bytes of the copies that are kept for neighbours.
    pub space: u64,
    /// How long each is kept.
    pub keep: Duration,
}

/// A copy that is kept.
#[derive(Clone, Copy, Debug)]
struct Copy {
    size: u64,
    /// When it was made, in seconds since 1970.
    since: u64,
}

/// What this device gives to its neighbours.
#[derive(Debug)]
pub(crate) struct Offering {
    policy: SharePolicy,
    objects: Arc<Objects>,
    downloads: Arc<Downloads>,
    /// Where it listens.
    pub address: SocketAddr,
    pin: Hash,
    copies: Mutex<BTreeMap<Hash, Copy>>,
    /// What tokens are made with, the newest last, and when each was made.
    keys: Mutex<VecDeque<(Hash, Instant)>>,
    /// One copy is made at a time, so that all together fit the space.
    copying: Mutex<()>,
    /// Whether the server lets its devices serve others.
    allowed: AtomicBool,
    /// What the server was told last.
    told: Mutex<Vec<Hash>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what was kept for neighbours by an earlier policy.
pub(super) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, "cannot remove {} ({error})", dir.display());
    }
}

impl Offering {
    /// Listens, and takes up the copies in `dir`. [`Offering::serve`] answers.
    ///
    /// # Errors
    /// If the directory or the address cannot be used.
    pub(super) fn open(
        dir: &Path,
        policy: SharePolicy,
    ) -> Result<(Arc<Self>, TcpListener, TlsAcceptor), Box<dyn Error + Send + Sync>> {
        let objects = Arc::new(Objects::open(&dir.join("objects"))?);
        let tls = tls::server_tls(dir, &[policy.listen.ip().to_string()], None)?;
        let cannot = |error| format!("cannot listen on {} ({error}); give another address", policy.listen);
        let listener = listen::bind(policy.listen).map_err(cannot)?;
        let mut copies = BTreeMap::new();
        for hash in Objects::listed(&dir.join("objects"))? {
            let (file, size) = objects.open_object(&hash)?;
            let since = file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
            let since = since.map_or(0, |since| since.as_secs());
            copies.insert(Hash(*hash.as_bytes()), Copy { size, since });
        }
        let downloads = Downloads::new(Arc::clone(&objects), Some(policy.rate), MAX_NEIGHBOUR_DOWNLOADS);
        let offering = Arc::new(Self {
            policy,
            objects,
            downloads,
            address: listener.local_addr()?,
            pin: tls.pin,
            copies: Mutex::new(copies),
            keys: Mutex::default(),
            copying: Mutex::default(),
            allowed: AtomicBool::default(),
            told: Mutex::default(),
        });
        offering.make_room(0)?;
        Ok((offering, listener, TlsAcceptor::from(tls.config)))
    }

    /// Answers neighbours until `stop` says true.
    pub(super) async fn serve(
        self: Arc<Self>,
        (listener, acceptor): (TcpListener, TlsAcceptor),
        stop: watch::Receiver<bool>,
    ) {
        let bounds = listen::Bounds {
            connections: MAX_NEIGHBOUR_CONNECTIONS,
            of_address: MAX_NEIGHBOUR_CONNECTIONS / 2,
            header: HEADER_PATIENCE,
        };
        let router = Router::new().route("/mcp/v1/objects/{hash}", get(object)).with_state(self);
        listen::serve(listener, Some(acceptor), router, bounds, stop).await;
    }

    /// Whether a verified object of this size is worth a copy.
    pub(super) fn wants(&self, size: u64) -> bool {
        self.allowed.load(Ordering::Relaxed) && (MIN_SHARED..=self.policy.space).contains(&size)
    }

    /// Makes a copy of an object, and makes room for it before. The copy is hashed on the way. Blocks.
    ///
    /// # Errors
    /// If the disk fails, or the file has other bytes by now.
    pub(super) fn copy(&self, hash: Hash, size: u64, mut file: File) -> Result<(), ObjectError> {
        let _copying = lock(&self.copying);
        if self.held(&hash).is_some() {
            return Ok(());
        }
        self.make_room(size)?;
        file.rewind().map_err(ObjectError::Source)?;
        self.objects.import_from(file.take(size), Some(blake3::Hash::from_bytes(hash.0)))?;
        lock(&self.copies).insert(hash, Copy { size, since: clock() });
        Ok(())
    }

    /// Most bits per second of what neighbours get.
    pub(super) const fn bits_per_second(&self) -> u64 {
        self.policy.rate.saturating_mul(8)
    }

    /// Where the copy of an object is.
    pub(super) fn path(&self, hash: &Hash) -> PathBuf {
        self.objects.path(&blake3::Hash::from_bytes(hash.0))
    }

    /// Removes copies until `size` bytes more fit, those that were kept long enough first.
    fn make_room(&self, size: u64) -> Result<(), ObjectError> {
        let surplus: Vec<Hash> = {
            let mut copies = lock(&self.copies);
            let mut oldest: Vec<_> = copies.iter().map(|(hash, copy)| (*hash, *copy)).collect();
            oldest.sort_by_key(|(_, copy)| copy.since);
            let (mut bytes, mut count) = (size, usize::from(size > 0));
            let fits = |copy: &Copy, bytes: u64, count: usize| {
                self.is_fresh(copy)
                    && bytes.saturating_add(copy.size) <= self.policy.space
                    && count < MAX_SHARED
            };
            let mut surplus = Vec::new();
            for (hash, copy) in oldest.into_iter().rev() {
                if fits(&copy, bytes, count) {
                    (bytes, count) = (bytes + copy.size, count + 1);
                } else {
                    copies.remove(&hash);
                    surplus.push(hash);
                }
            }
            surplus
        };
        surplus.iter().try_for_each(|hash| self.objects.remove(&blake3::Hash::from_bytes(hash.0)))
    }

    fn is_fresh(&self, copy: &Copy) -> bool {
        clock().saturating_sub(copy.since) < self.policy.keep.as_secs()
    }

    /// The bytes of a copy that is kept. One whose file is gone is kept no longer.
    fn held(&self, hash: &Hash) -> Option<u64> {
        let mut copies = lock(&self.copies);
        let copy = copies.get(hash).filter(|copy| self.is_fresh(copy))?;
        let size = copy.size;
        if !self.objects.contains(&blake3::Hash::from_bytes(hash.0)) {
            copies.remove(hash);
            return None;
        }
        Some(size)
    }

    /// The objects that are offered now.
    fn offered(&self) -> Vec<Hash> {
        let all: Vec<Hash> = lock(&self.copies).keys().copied().collect();
        all.into_iter().filter(|hash| self.held(hash).is_some()).collect()
    }

    /// Whether the server is to be told of a change.
    fn has_news(&self) -> bool {
        *lock(&self.told) != self.offered()
    }

    /// The key that the server is to make tokens with: a new one after [`TOKEN_KEY_LIFE`]. The one before counts as long again.
    fn key(&self, now: Instant) -> io::Result<Hash> {
        let mut keys = lock(&self.keys);
        if let Some((key, made)) = keys.back()
            && now.saturating_duration_since(*made) < TOKEN_KEY_LIFE
        {
            return Ok(*key);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        keys.push_back((Hash(key), now));
        // The last two.
        while keys.len() > 2 {
            keys.pop_front();
        }
        Ok(Hash(key))
    }

    /// Whether these headers have a token for this object.
    fn admits(&self, headers: &HeaderMap, object: &Hash, now: Instant) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((SCHEME, text)) = value.and_then(|value| value.split_once(' ')) else { return false };
        let Ok(shown) = blake3::Hash::from_hex(text) else { return false };
        let keys = lock(&self.keys);
        let mut counting =
            keys.iter().filter(|(_, made)| now.saturating_duration_since(*made) < TOKEN_KEY_LIFE * 2);
        // Comparing two values of `blake3::Hash` takes constant time.
        counting.any(|(key, _)| token(key, object) == shown)
    }
}

/// Answers a neighbour. Without a token it learns nothing, not even which objects are here.
async fn object(
    State(offering): State<Arc<Offering>>,
    UrlPath(hash): UrlPath<String>,
    method: Method,
    headers: HeaderMap,
) -> ApiResult {
    let hash: Hash = hash.parse().map_err(|_| Refusal::bare(StatusCode::UNAUTHORIZED))?;
    if !offering.admits(&headers, &hash, Instant::now()) {
        return Err(Refusal::bare(StatusCode::UNAUTHORIZED));
    }
    let size = offering.held(&hash).ok_or_else(Refusal::not_found)?;
    let hash = blake3::Hash::from_bytes(hash.0);
    respond(&offering.downloads, &method, &headers, (hash, size), Kind::Object).await
}

impl Core {
    /// Copies an object that was loaded and verified, for neighbours, if the policy and the server let it. Does not wait for it.
    pub(super) fn share(self: &Arc<Self>, hash: Hash, size: u64, file: &File) {
        let Some(offering) = self.offering.clone().filter(|offering| offering.wants(size)) else { return };
        let Ok(file) = file.try_clone() else { return };
        let core = Arc::clone(self);
        tokio::spawn(async move {
            let copied = blocking(move || offering.copy(hash, size, file).map_err(io::Error::other)).await;
            match copied {
                Ok(()) => core.changed.notify_one(),
                Err(error) => warn!(%error, "cannot keep an object for neighbours ({error})"),
            }
        });
    }

    /// Tells the server what neighbours may load here: at each check-in, and otherwise if there is news.
    pub(super) async fn tell_offering(&self, always: bool) {
        let Some(offering) = self.offering.clone() else { return };
        let tidied = Arc::clone(&offering);
        if let Err(error) = blocking(move || tidied.make_room(0).map_err(io::Error::other)).await {
            warn!(%error, "cannot remove what was kept for neighbours ({error})");
        }
        if !always && !offering.has_news() {
            return;
        }
        let result = offering.tell(&self.api).await;
        if let Err(ApiError::Gone(_)) = result {
            offering.allowed.store(false, Ordering::Relaxed);
        }
    }
}

impl Offering {
    /// A server that cannot be told is told at the next check-in.
    async fn tell(&self, api: &Api) -> Result<(), ApiError> {
        let objects = self.offered();
        let key = self.key(Instant::now()).map_err(|error| ApiError::Unreadable(error.to_string()))?;
        let address = Some(self.address.ip()).filter(|address| !address.is_unspecified());
        let offer = Offer { address, port: self.address.port(), pin: self.pin, key, objects };
        api.offer(&offer).await?;
        self.allowed.store(true, Ordering::Relaxed);
        *lock(&self.told) = offer.objects;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(space: u64) -> SharePolicy {
        let listen = "127.0.0.1:0".parse().unwrap();
        SharePolicy { listen, rate: 1 << 30, space, keep: Duration::from_secs(3600) }
    }

    fn file(dir: &Path, bytes: &[u8]) -> (Hash, File) {
        let path = dir.join("file");
        std::fs::write(&path, bytes).unwrap();
        (Hash::of(bytes), File::open(path).unwrap())
    }

    #[tokio::test]
    async fn a_token_is_for_one_object_and_its_key_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (offering, ..) = Offering::open(dir.path(), policy(100)).unwrap();
        let (start, objects) = (Instant::now(), [Hash([1; 32]), Hash([2; 32])]);
        let headers = |key: Hash, object: &Hash| {
            let value = format!("{SCHEME} {}", token(&key, object));
            HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
        };
        let first = offering.key(start).unwrap();
        let shown = headers(first, &objects[0]);
        assert!(offering.admits(&shown, &objects[0], start));
        assert!(!offering.admits(&shown, &objects[1], start), "of another object");
        assert!(!offering.admits(&headers(Hash([0; 32]), &objects[0]), &objects[0], start), "of another key");
        assert!(!offering.admits(&HeaderMap::new(), &objects[0], start));
        for text in ["", "x", "Basic x", SCHEME, "NeighbourToken zz"] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
            assert!(!offering.admits(&headers, &objects[0], start), "{text}");
        }
        // The key is replaced, and the tokens of the one before count for a while.
        let (later, last) = (start + TOKEN_KEY_LIFE, start + TOKEN_KEY_LIFE * 2);
        assert_eq!(offering.key(later - Duration::from_secs(1)).unwrap(), first);
        let second = offering.key(later).unwrap();
        assert_ne!(second, first);
        assert!(offering.admits(&shown, &objects[0], last - Duration::from_secs(1)));
        assert!(!offering.admits(&shown, &objects[0], last));
        assert!(offering.admits(&headers(second, &objects[0]), &objects[0], last));
    }

    #[tokio::test]
    async fn all_downloads_together_keep_to_the_rate() {
        let dir = tempfile::tempdir().unwrap();
        let (offering, ..) = Offering::open(dir.path(), SharePolicy { rate: 1000, ..policy(100) }).unwrap();
        let (pacer, start) = (&offering.downloads.pacer, Instant::now() + Duration::from_secs(60));
        let waits = [700, 300, 500, 1].map(|bytes| pacer.reserve(bytes, start));
        assert_eq!(waits, [0, 700, 1000, 1500].map(Duration::from_millis));
        let slots = &offering.downloads.slots;
        assert_eq!(slots.available_permits(), MAX_NEIGHBOUR_DOWNLOADS);
    }

    #[tokio::test]
    async fn copies_fit_the_space_and_only_right_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("offered");
        std::fs::create_dir(&state).unwrap();
        let (offering, ..) = Offering::open(&state, policy(100)).unwrap();
        let copy = |bytes: &[u8]| {
            let (hash, file) = file(dir.path(), bytes);
            offering.copy(hash, bytes.len() as u64, file).map(|()| hash)
        };
        let first = copy(&[1; 60]).unwrap();
        lock(&offering.copies).get_mut(&first).unwrap().since -= 10;
        let second = copy(&[2; 30]).unwrap();
        assert_eq!((offering.held(&first), offering.held(&second)), (Some(60), Some(30)));
        lock(&offering.copies).get_mut(&second).unwrap().since -= 5;
        let third = copy(&[3; 50]).unwrap();
        assert_eq!(offering.held(&first), None, "the oldest made room");
        assert_eq!((offering.held(&second), offering.held(&third)), (Some(30), Some(50)));
        assert!(!offering.objects.contains(&blake3::Hash::from_bytes(first.0)));

        // A file that was changed meanwhile is no copy of the object.
        let (_, wrong) = file(dir.path(), &[4; 10]);
        let expected = Hash::of(&[5; 10]);
        assert!(matches!(offering.copy(expected, 10, wrong), Err(ObjectError::Differs { .. })));
        assert_eq!(offering.held(&expected), None);

        // Kept long enough; and cleaned away by somebody.
        lock(&offering.copies).get_mut(&second).unwrap().since -= 3600;
        std::fs::remove_file(offering.objects.path(&blake3::Hash::from_bytes(third.0))).unwrap();
        assert_eq!((offering.held(&second), offering.offered()), (None, vec![]));
        offering.make_room(0).unwrap();
        assert!(!offering.objects.contains(&blake3::Hash::from_bytes(second.0)));

        // What is kept is there after a restart, as far as the policy of now goes.
        let (fourth, fifth) = (copy(&[6; 40]).unwrap(), copy(&[7; 20]).unwrap());
        lock(&offering.copies).clear();
        let (again, ..) = Offering::open(&state, policy(100)).unwrap();
        assert_eq!((again.held(&fourth), again.held(&fifth)), (Some(40), Some(20)));
        let (small, ..) = Offering::open(&state, policy(30)).unwrap();
        assert_eq!(small.held(&fourth), None);
    }
}
