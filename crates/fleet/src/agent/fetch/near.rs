//! Neighbours as sources: devices of the same segment, which the server names for one object. They are trusted with nothing.

use super::super::net::Net;
use super::super::offering::SCHEME;
use super::{Candidate, Load};
use crate::documents::Hash;
use crate::limits::MIN_SHARED;
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
        let near: Vec<_> = named.iter().filter_map(|neighbour| candidate(neighbour, object)).collect();
        self.neighbours = near.len();
        self.candidates.splice(0..0, near);
    }
}

/// A neighbour as a source; `None` if it cannot be one.
fn candidate(neighbour: &Neighbour, object: Hash) -> Option<Candidate> {
    let url: Url = format!("https://{}/mcp/v1/objects/{object}", neighbour.address).parse().ok()?;
    let mut token = HeaderValue::from_str(&format!("{SCHEME} {}", neighbour.token)).ok()?;
    token.set_sensitive(true);
    let net = Net::of_neighbour(url.clone(), neighbour.pin, token).ok()?;
    Some(Candidate::new(net, url))
}
