//! Devices that the server's multicast does not reach get an object from a device of their segment; see `segments`.

use super::segments::Told;
use super::{AGAIN, Failure, MARGIN, NOTICE, Verdict};
use crate::ddi::{Perform, SessionKeys};
use crate::lacking::{pays, whole};
use crate::server::auth::Caller;
use crate::server::neighbours::Segment;
use crate::server::state_dir::random;
use crate::server::{App, Shared};
use crate::store::{StoreError, StoredObject, TaskDocument};
use mcp_transfer::crypto::derive::Secret;
use mcp_transfer::limits::DEFAULT_GROUP_V4;
use mcp_transfer::session::Target;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tracing::info;

/// How long a session in a segment waits for the devices that were told of it: they ask again every [`AGAIN`].
const GATHER: Duration = Duration::from_secs(3 * AGAIN.as_secs());

impl Shared {
    /// The segment of a device that this server's multicast does not reach. With `unreached`, the device says that it has
    /// heard nobody in the session that it was told of.
    pub(super) fn segment_of(&self, caller: &Caller, unreached: bool) -> Option<Segment> {
        if !self.config.neighbours || !caller.secure {
            return None;
        }
        let (device, now) = (&caller.device, Instant::now());
        let mut segments = self.campaigns.segments();
        if unreached {
            segments.note_away(&device.id, Segment::of(device, caller.client), now);
        }
        segments.away(&device.id, now).cloned()
    }

    /// What a device does that lacks an object and is out of reach. One that `serves` would give it to its neighbours.
    pub(super) async fn ask_segment(
        &self,
        (caller, serves): (&Caller, bool),
        object: &StoredObject,
        segment: Segment,
    ) -> Result<Verdict, StoreError> {
        let key = (object.hashes.blake3, segment);
        let asking = (caller.device.id.as_str(), serves);
        let doubtful = self.campaigns.segments().doubtful(&key, asking.0, Instant::now());
        if let Some(handler) = doubtful
            && !self.still_loads(&handler, &key.0).await?
        {
            self.campaigns.segments().note_gone(&key, &handler, Instant::now());
        }
        Ok(match self.campaigns.segments().ask(key, asking, object.hashes.size, Instant::now()) {
            Told::Join(session) => Verdict::Join(session),
            Told::Again => Verdict::Again(AGAIN),
            Told::Alone => Verdict::Alone,
        })
    }

    /// Whether a device checks in, and has a task that needs this object.
    async fn still_loads(&self, device: &str, object: &blake3::Hash) -> Result<bool, StoreError> {
        self.note_seen().await;
        let known = self.store.device(device).await?;
        let there = known.is_some_and(|known| known.last_seen >= Some(self.silent_before()));
        Ok(there && self.store.may_load(device, object).await?)
    }

    /// A device out of reach has an object: if others of its segment wait for it there, it performs a session for them, once it
    /// `serves`. Nobody waits for one of a task that is paused or over.
    pub(super) async fn has_it(
        self: &App,
        (caller, serves): (&Caller, bool),
        (task, position): (i64, usize),
        document: &TaskDocument,
        segment: Segment,
    ) -> Result<Verdict, Failure> {
        let (Some(multicast), Some(object)) = (&self.config.multicast, document.objects.get(position)) else {
            return Ok(Verdict::Alone);
        };
        let (key, device) = ((object.hashes.blake3, segment), &caller.device.id);
        let now = Instant::now();
        let Some(waited) = self.campaigns.segments().has_it(&key, device, now) else {
            return Ok(Verdict::Alone);
        };
        if !serves {
            // It makes the copy that it will send.
            return Ok(Verdict::Again(AGAIN));
        }
        let at = self.lately((task, position)).await;
        let mut others = self.store.candidates(at).await?;
        {
            let segments = self.campaigns.segments();
            others
                .retain(|other| other.device != *device && segments.away(&other.device, now) == Some(&key.1));
        }
        let all = whole(object.hashes.size);
        let group = match multicast.target {
            Target::At(destination) => destination.addr,
            Target::Rendezvous(port) => SocketAddr::from((DEFAULT_GROUP_V4, port)),
        };
        let worth = pays(others.iter().map(|other| other.lacks.as_ref().unwrap_or(&all).as_slice()));
        if !worth && waited < NOTICE {
            // Others may find out later that they hear nobody.
            return Ok(Verdict::Again(AGAIN));
        }
        if !worth || !group.ip().is_multicast() {
            self.campaigns.segments().drop_call(&key);
            return Ok(Verdict::Alone);
        }
        let secret = random::<32>()?;
        let session = SessionKeys::of(&Secret::new(*secret))?.session(group, GATHER + MARGIN);
        self.campaigns.segments().perform(&key, device, session);
        let devices = others.len() as u64;
        let file = object.filename.as_str();
        info!(
            task,
            file,
            device,
            expected = devices,
            "{file}: {device} sends it to {devices} devices of its segment"
        );
        Ok(Verdict::Perform(Perform::new(&secret, group, devices, GATHER)))
    }
}
