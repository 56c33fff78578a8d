//! Neighbours as sources: devices of the same segment, which the server names for one object. They are trusted with nothing, and left
//! sooner than sources that an operator chose.

use super::super::net::Net;
use super::super::offering::SCHEME;
use super::{Candidate, Load, Pace};
use crate::documents::Hash;
use crate::limits::{MIN_NEIGHBOUR_SPEED, MIN_SHARED, NEIGHBOUR_PATIENCE};
use crate::neighbour::Neighbour;
use reqwest::Url;
use reqwest::header::HeaderValue;

impl<P: Fn(u64)> Load<'_, P> {
    /// Puts the neighbours that the server names before all other sources. A server that names none is no hindrance.
    pub(super) async fn add_neighbours(&mut self, size: u64) {
        let (Some(api), Some(object)) = (&self.wanted.near, self.wanted.digests.blake3) else { return };
        if size < MIN_SHARED {
            return;
        }
        let named = api.neighbours(object).await.unwrap_or_default();
        let Pace { stall, window, least } = self.wanted.pace;
        let (stall, least) = (stall.min(NEIGHBOUR_PATIENCE), least.max(MIN_NEIGHBOUR_SPEED));
        let pace = Pace { stall, window, least };
        let near: Vec<_> = named.iter().filter_map(|neighbour| candidate(neighbour, pace, object)).collect();
        self.neighbours = near.len();
        self.candidates.splice(0..0, near);
    }
}

/// A neighbour as a source; `None` if it cannot be one.
fn candidate(neighbour: &Neighbour, pace: Pace, object: Hash) -> Option<Candidate> {
    let url: Url = format!("https://{}/mcp/v1/objects/{object}", neighbour.address).parse().ok()?;
    let mut token = HeaderValue::from_str(&format!("{SCHEME} {}", neighbour.token)).ok()?;
    token.set_sensitive(true);
    let net = Net::of_neighbour(url.clone(), neighbour.pin, token).ok()?;
    Some(Candidate::new(net, pace, url))
}
