//! Devices that serve others: what each offers, and which of them a device of the same segment is sent to.
//!
//! This is kept in memory. Devices offer anew with each check-in, so a server that is started again soon knows it.

use super::auth::{Caller, read_body};
use super::error::{ApiError, ApiResult};
use super::ours::json;
use super::rate::network;
use super::{App, Shared};
use crate::documents::Hash;
use crate::limits::{MAX_DDI_BODY, MAX_DRAWN, MAX_NEIGHBOURS, MAX_SERVING, MAX_SHARED, TOKEN_KEY_LIFE};
use crate::neighbour::{Near, Neighbour, Offer, token};
use crate::store::{Device, DeviceState};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Devices that are near each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    /// Those whose administrator says so: their attribute `segment`.
    Named(String),
    /// Those of one network: 24 bits of an IPv4 address, 64 of an IPv6 address.
    Network(IpAddr),
}

impl Segment {
    /// Where a device is that asks from this address.
    pub(super) fn of(device: &Device, client: IpAddr) -> Self {
        match device.attributes.get("segment").filter(|name| !name.is_empty()) {
            Some(name) => Self::Named(name.clone()),
            None => Self::Network(match network(client) {
                IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() >> 8 << 8).into(),
                address => address,
            }),
        }
    }
}

/// A device that serves others.
#[derive(Debug)]
struct Serving {
    segment: Segment,
    address: SocketAddr,
    pin: Hash,
    key: Hash,
    objects: BTreeSet<Hash>,
    until: Instant,
}

/// The devices that serve others, by name.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<HashMap<String, Serving>>);

impl Neighbours {
    /// Notes what a device offers; nothing: it serves no longer. Beyond [`MAX_SERVING`], those of which nothing was heard make room.
    fn put(&self, device: &str, serving: Serving, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.objects.is_empty() {
            all.remove(device);
            return;
        }
        if all.len() >= MAX_SERVING && !all.contains_key(device) {
            all.retain(|_, serving| serving.until > now);
            if all.len() >= MAX_SERVING {
                return;
            }
        }
        all.insert(device.to_owned(), serving);
    }

    /// Devices of a segment that have an object, those heard of last in random order.
    fn near(&self, asking: &str, segment: &Segment, object: &Hash, now: Instant) -> Vec<(String, Neighbour)> {
        let mut near: Vec<_> = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let near = all.iter().filter(|(device, serving)| {
                serving.segment == *segment
                    && serving.until > now
                    && *device != asking
                    && serving.objects.contains(object)
            });
            let named = |(device, serving): (&String, &Serving)| {
                let token = Hash(*token(&serving.key, object).as_bytes());
                let neighbour = Neighbour { address: serving.address, pin: serving.pin, token };
                (serving.until, (device.clone(), neighbour))
            };
            near.map(named).collect()
        };
        near.sort_by_key(|(until, _)| std::cmp::Reverse(*until));
        near.truncate(MAX_DRAWN);
        fastrand::shuffle(&mut near);
        near.into_iter().map(|(_, named)| named).collect()
    }
}

/// Refuses a device that may not serve or ask: keys and tokens go over encrypted connections, and only to devices of the fleet.
fn admitted(app: &Shared, caller: &Caller) -> ApiResult<()> {
    let accepted = caller.device.state == DeviceState::Accepted;
    if app.config.neighbours && caller.secure && accepted { Ok(()) } else { Err(ApiError::not_found()) }
}

/// A device says what it offers to its neighbours.
pub(super) async fn offer(State(app): State<App>, caller: Caller, body: Body) -> ApiResult {
    let body = read_body(body, MAX_DDI_BODY).await?;
    admitted(&app, &caller)?;
    let Offer { address, port, pin, key, objects } =
        serde_json::from_slice(&body).map_err(ApiError::unreadable)?;
    let address = address.unwrap_or(caller.client).to_canonical();
    if objects.len() > MAX_SHARED || port == 0 || address.is_unspecified() || address.is_multicast() {
        let why = "an offer has at most 64 objects, a port, and an address of one host";
        return Err(ApiError::unreadable(why));
    }
    let now = Instant::now();
    // Until it has missed two check-ins; and not longer than its key counts.
    let life = (app.config.poll * 2 + Duration::from_secs(30)).min(TOKEN_KEY_LIFE);
    let serving = Serving {
        segment: Segment::of(&caller.device, caller.client),
        address: SocketAddr::new(address, port),
        pin,
        key,
        objects: objects.into_iter().collect(),
        until: now + life,
    };
    app.neighbours.put(&caller.device.id, serving, now);
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
pub(super) struct ObjectPath {
    hash: String,
}

/// Names neighbours that have an object which the device may load.
pub(super) async fn near(State(app): State<App>, caller: Caller, Path(path): Path<ObjectPath>) -> ApiResult {
    admitted(&app, &caller)?;
    let object: Hash = path.hash.parse().map_err(|_| ApiError::not_found())?;
    if !app.store.may_load(&caller.device.id, &blake3::Hash::from_bytes(object.0)).await? {
        return Err(ApiError::not_found());
    }
    let segment = Segment::of(&caller.device, caller.client);
    let mut neighbours = Vec::new();
    for (device, neighbour) in app.neighbours.near(&caller.device.id, &segment, &object, Instant::now()) {
        // One that was refused or forgotten meanwhile serves nobody.
        let device = app.store.device(&device).await?;
        if device.is_some_and(|device| device.state == DeviceState::Accepted) {
            neighbours.push(neighbour);
        }
        if neighbours.len() == MAX_NEIGHBOURS {
            break;
        }
    }
    json(&Near { neighbours })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn device(segment: Option<&str>) -> Device {
        let attributes = segment.map(|name| ("segment".to_owned(), name.to_owned()));
        Device {
            id: "d".into(),
            state: DeviceState::Accepted,
            token: None,
            public_key: None,
            attributes: BTreeMap::from_iter(attributes),
            wants_attributes: false,
            auto_confirm: None,
            installed: None,
            created: 0,
            last_seen: None,
            last_address: None,
        }
    }

    #[test]
    fn a_segment_is_what_the_administrator_says_or_the_network() {
        let of = |name, address: &str| Segment::of(&device(name), address.parse().expect("an address"));
        assert_eq!(of(None, "10.1.2.3"), of(None, "10.1.2.200"));
        assert_eq!(of(None, "10.1.2.3"), of(None, "::ffff:10.1.2.9"));
        assert_ne!(of(None, "10.1.2.3"), of(None, "10.1.3.3"));
        assert_eq!(of(None, "2001:db8:1:2::1"), of(None, "2001:db8:1:2:ffff::1"));
        assert_ne!(of(None, "2001:db8:1:2::1"), of(None, "2001:db8:1:3::1"));
        assert_eq!(of(Some("lab"), "10.1.2.3"), of(Some("lab"), "192.0.2.1"));
        assert_ne!(of(Some("lab"), "10.1.2.3"), of(Some("hall"), "10.1.2.3"));
        assert_ne!(of(Some("lab"), "10.1.2.3"), of(None, "10.1.2.3"));
        assert_eq!(of(Some(""), "10.1.2.3"), of(None, "10.1.2.3"));
    }

    fn serving(n: u16, segment: &str, objects: &[Hash], until: Instant) -> Serving {
        Serving {
            segment: Segment::Named(segment.into()),
            address: SocketAddr::from(([10, 0, 0, 1], n)),
            pin: Hash([1; 32]),
            key: Hash([n as u8; 32]),
            objects: objects.iter().copied().collect(),
            until,
        }
    }

    #[test]
    fn those_heard_of_last_are_named_with_a_token_for_the_object_alone() {
        let (all, now) = (Neighbours::default(), Instant::now());
        let (object, other) = (Hash([7; 32]), Hash([8; 32]));
        let later = |seconds| now + Duration::from_secs(seconds);
        let ports = |named: Vec<(String, Neighbour)>| -> BTreeSet<u16> {
            named.into_iter().map(|(_, neighbour)| neighbour.address.port()).collect()
        };
        for n in 0..40 {
            all.put(&format!("d{n}"), serving(n, "lab", &[object], later(100 + u64::from(n))), now);
        }
        all.put("far", serving(100, "hall", &[object], later(999)), now);
        all.put("another", serving(101, "lab", &[other], later(999)), now);
        all.put("gone", serving(102, "lab", &[object], now), now);
        all.put("asks", serving(103, "lab", &[object], later(999)), now);
        let lab = Segment::Named("lab".into());
        let near = all.near("asks", &lab, &object, now);
        for (_, neighbour) in &near {
            let key = Hash([neighbour.address.port() as u8; 32]);
            assert_eq!(neighbour.token.0, *token(&key, &object).as_bytes());
            assert_ne!(neighbour.token.0, *token(&key, &other).as_bytes());
        }
        assert_eq!(ports(near), (40 - MAX_DRAWN as u16..40).collect());
        // Nothing to offer: it is forgotten.
        all.put("d39", serving(39, "lab", &[], later(999)), now);
        assert!(!ports(all.near("asks", &lab, &object, now)).contains(&39));
        assert!(ports(all.near("asks", &lab, &object, later(150))).is_empty());
    }

    #[test]
    fn the_number_of_serving_devices_is_bounded() {
        let (all, now) = (Neighbours::default(), Instant::now());
        let put = |n: usize, at: Instant| {
            let serving = serving(1, "lab", &[Hash([7; 32])], at + Duration::from_secs(1));
            all.put(&n.to_string(), serving, at);
            all.0.lock().expect("a lock").len()
        };
        for n in 0..MAX_SERVING + 5 {
            put(n, now);
        }
        assert_eq!(put(MAX_SERVING, now), MAX_SERVING);
        assert_eq!(put(MAX_SERVING, now + Duration::from_secs(2)), 1, "those that are gone made room");
    }
}
