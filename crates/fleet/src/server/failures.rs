//! Failed authentications, counted by the address that they come from.
//!
//! Only failures count, and only their answers change: beyond the budget of an address they are 429 with `Retry-After`. Right credentials
//! are always taken, because a whole fleet may share an address with one device whose token is stale. Names of devices have no
//! budget: a stranger could use up that of any device.

use super::Shared;
use super::error::{ApiError, ApiResult};
use super::rate::{Beyond, Buckets, network};
use crate::limits::{FAILURE_RATE, FAILURE_WARNING, MAX_COUNTED_ADDRESSES};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// The failures of all addresses. IPv6 addresses count by their network of 64 bits, which is what one host has.
#[derive(Debug)]
pub(super) struct Failures {
    left: Buckets<IpAddr>,
    /// When the log was told last.
    told: Mutex<Option<Instant>>,
}

impl Failures {
    pub(super) fn new() -> Self {
        let (per_second, burst) = FAILURE_RATE;
        // More addresses than are counted fail as if each had used up its budget. Nobody with right credentials notices.
        let left = Buckets::new(per_second, burst, MAX_COUNTED_ADDRESSES, Beyond::Refuse);
        Self { left, told: Mutex::default() }
    }

    /// Counts a failure. Beyond the budget: the time until one is within it again.
    fn count(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let counted = self.left.take(network(address), now);
        if counted.is_err() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|at| now.saturating_duration_since(at) >= FAILURE_WARNING) {
                *told = Some(now);
                warn!(
                    %address,
                    "{address} fails to authenticate again and again; its failures are answered with 429"
                );
            }
        }
        counted
    }
}

impl Shared {
    /// Passes `result` on. Credentials that were refused (401) are counted, and beyond the budget of `address` the answer is 429.
    pub(super) fn counted<T>(&self, address: IpAddr, result: ApiResult<T>) -> ApiResult<T> {
        result.map_err(|error: ApiError| {
            if !error.is_unauthorized() {
                return error;
            }
            match self.failures.count(address, Instant::now()) {
                Ok(()) => error,
                Err(wait) => error.slowed(wait),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_a_budget_of_its_own_and_memory_is_bounded() {
        let (failures, start) = (Failures::new(), Instant::now());
        let fail = |address: &str, now| failures.count(address.parse().expect("an address"), now);
        let burst = FAILURE_RATE.1 as usize;
        assert_eq!((0..100).filter(|_| fail("192.0.2.1", start).is_ok()).count(), burst);
        let wait = fail("192.0.2.1", start).expect_err("beyond");
        assert!(fail("192.0.2.1", start + wait).is_ok() && fail("192.0.2.1", start + wait).is_err());
        assert!(fail("::ffff:192.0.2.1", start).is_err(), "the same address");
        assert!(fail("192.0.2.2", start).is_ok(), "another address");
        // A host has a whole network of IPv6 addresses.
        let many = (0..100).filter(|n| fail(&format!("2001:db8::{n:x}"), start).is_ok()).count();
        assert_eq!(many, burst);
        assert!(fail("2001:db8:0:1::1", start).is_ok(), "another network");
        // And a site may have many networks.
        for n in 0..MAX_COUNTED_ADDRESSES as u32 {
            let _ = failures.count(IpAddr::V4(n.into()), start);
        }
        for n in 0..10_000 {
            assert!(
                failures.count(IpAddr::V4((u32::MAX - n).into()), start).is_err(),
                "uncounted, so refused"
            );
        }
        assert!(fail("198.51.100.7", start + Duration::from_secs(3600)).is_ok(), "forgotten");
    }
}
