//! The poll.

use super::super::auth::Caller;
use super::super::deciding::{Offer, choose, sleep};
use super::super::error::ApiResult;
use super::{App, document};
use crate::ddi::{ControllerBase, Links, Sleep};
use axum::extract::State;
use axum::http::HeaderMap;

pub(super) async fn poll(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult {
    app.metrics.check_in();
    let Caller { device, origin, base, .. } = &caller;
    let (offers, soonest) = choose(&app, device).await?;
    let begins_in = soonest.filter(|_| offers.is_empty());
    let mut answer = ControllerBase::new(Sleep::new(sleep(app.config.poll, begins_in, fastrand::f64())));
    let link = |offer: &Offer| match offer {
        Offer::Cancel(id) => ("cancelAction", format!("{base}/cancelAction/{id}")),
        Offer::Confirm(id, task) => {
            ("confirmationBase", format!("{base}/confirmationBase/{id}?c={}", terms_of(task)))
        }
        Offer::Deploy(action, task) => {
            ("deploymentBase", format!("{base}/deploymentBase/{}?c={}", action.id, terms_of(task)))
        }
    };
    if let Some(offer) = offers.first() {
        let (rel, href) = link(offer);
        answer.links.set(rel, href);
    }
    if let Some(installed) = device.installed {
        answer.links.set("installedBase", format!("{base}/installedBase/{installed}"));
    }
    if device.wants_attributes {
        answer.links.set("configData", format!("{base}/configData"));
    }
    if device.is_ours() {
        answer.offers = offers.iter().map(|offer| Links::from([link(offer)])).collect();
        let id = percent_encoding::utf8_percent_encode(&device.id, super::super::auth::SEGMENT);
        answer.links.set("mcp-list", format!("{origin}/mcp/v1/devices/{id}/list"));
    }
    document(&headers, &answer)
}

/// A number that stands for the terms of a task, so that no cache answers with other ones.
fn terms_of(task: &crate::store::TaskDocument) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&task.envelope.hash().0).update(task.terms.part.as_bytes());
    let hash = hasher.finalize();
    u32::from_be_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default()) >> 1
}
