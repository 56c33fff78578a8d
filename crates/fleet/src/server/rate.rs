//! How much of something there may be: requests of a device, bytes of all downloads, connections of an address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an address stands for: itself, or with IPv6 its network of 64 bits, of which one host has all addresses.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// What becomes of keys beyond the number of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// They are served, uncounted.
    Serve,
    /// They get nothing.
    Refuse,
}

/// How often buckets that are full again are looked for. Each time costs a look at all.
const SWEEP: Duration = Duration::from_secs(1);

/// A token bucket for each of many keys. Keys whose bucket is full again are forgotten.
#[derive(Debug)]
pub struct Buckets<K> {
    per_second: f64,
    burst: f64,
    most: usize,
    beyond: Beyond,
    levels: Mutex<Levels<K>>,
}

#[derive(Debug)]
struct Levels<K> {
    /// Tokens left, and when that was.
    of: HashMap<K, (f64, Instant)>,
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Buckets that hold `burst` and gain `per_second`; at most `most` of them.
    #[must_use]
    pub fn new(per_second: f64, burst: f64, most: usize, beyond: Beyond) -> Self {
        let levels = Mutex::new(Levels { of: HashMap::new(), swept: None });
        Self { per_second, burst, most, beyond, levels }
    }

    /// Takes one token of `key`.
    ///
    /// # Errors
    /// If there is none: the time until there is one.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut levels = lock(&self.levels);
        let filled = |level: f64, since: Instant| {
            (level + now.saturating_duration_since(since).as_secs_f64() * self.per_second).min(self.burst)
        };
        let missing = |level: f64| Duration::from_secs_f64((1.0 - level) / self.per_second);
        if levels.of.len() >= self.most && !levels.of.contains_key(&key) {
            if levels.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
                levels.swept = Some(now);
                levels.of.retain(|_, (level, since)| filled(*level, *since) < self.burst);
            }
            if levels.of.len() >= self.most {
                return match self.beyond {
                    Beyond::Serve => Ok(()),
                    Beyond::Refuse => Err(missing(0.0)),
                };
            }
        }
        let (level, since) = levels.of.entry(key).or_insert((self.burst, now));
        (*level, *since) = (filled(*level, *since), now);
        if *level < 1.0 {
            return Err(missing(*level));
        }
        *level -= 1.0;
        Ok(())
    }
}

/// Bounds bytes per second over everybody who asks. Whoever asks first is served first.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: Option<f64>,
    free_at: Mutex<Instant>,
}

impl Pacer {
    /// A pacer; `None` bounds nothing.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.map(|n| n as f64), free_at: Mutex::new(Instant::now()) }
    }

    /// How long to wait before sending `bytes` more.
    #[must_use]
    pub fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let mut free_at = lock(&self.free_at);
        let start = (*free_at).max(now);
        *free_at = start + Duration::from_secs_f64(bytes as f64 / rate);
        start.saturating_duration_since(now)
    }
}

/// Counts of something by key, with a bound for each key.
#[derive(Debug)]
pub struct Counts<K> {
    most: usize,
    counts: Mutex<HashMap<K, usize>>,
}

/// One of a [`Counts`], until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Hash + Eq + Clone> {
    key: K,
    of: Arc<Counts<K>>,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    /// Counts of at most `most` each.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// One more of `key`; `None` if there are as many as there may be.
    #[must_use]
    pub fn one(self: &Arc<Self>, key: K) -> Option<Counted<K>> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted { key, of: Arc::clone(self) })
    }
}

impl<K: Hash + Eq + Clone> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.of.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, start) = (Buckets::new(2.0, 5.0, 10, Beyond::Serve), Instant::now());
        assert_eq!((0..10).filter(|_| buckets.take("a", start).is_ok()).count(), 5);
        assert_eq!(buckets.take("a", start), Err(Duration::from_millis(500)));
        assert!(buckets.take("b", start).is_ok(), "another key has its own");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| buckets.take("a", later).is_ok()).count(), 2);
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        for beyond in [Beyond::Serve, Beyond::Refuse] {
            let (buckets, start) = (Buckets::new(1.0, 1.0, 2, beyond), Instant::now());
            let take = |key, now| buckets.take(key, now).is_ok();
            assert!(take(1, start) && take(2, start));
            assert!(!take(1, start));
            let served = beyond == Beyond::Serve;
            assert_eq!([take(3, start), take(3, start)], [served; 2], "uncounted");
            // Full again, so forgotten.
            let later = start + Duration::from_secs(10);
            assert!(take(3, later) && !take(3, later));
            assert_eq!(lock(&buckets.levels).of.len(), 1);
        }
    }

    #[test]
    fn bytes_are_paced_over_all() {
        let (pacer, start) = (Pacer::new(Some(1000)), Instant::now());
        let _ = pacer.reserve(0, start);
        let begin = start.max(*lock(&pacer.free_at));
        assert_eq!(pacer.reserve(500, begin), Duration::ZERO);
        assert_eq!(pacer.reserve(500, begin), Duration::from_millis(500));
        assert_eq!(pacer.reserve(500, begin), Duration::from_secs(1));
        assert_eq!(pacer.reserve(1, begin + Duration::from_secs(5)), Duration::ZERO, "nothing is saved up");
        assert_eq!(Pacer::new(None).reserve(usize::MAX, start), Duration::ZERO);
    }

    #[test]
    fn counts_go_down_when_dropped() {
        let counts = Counts::new(1);
        let one = counts.one("a");
        assert!(one.is_some() && counts.one("a").is_none() && counts.one("b").is_some());
        drop(one);
        assert!(counts.one("a").is_some());
        assert!(lock(&counts.counts).is_empty());
    }
}
