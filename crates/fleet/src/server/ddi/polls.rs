//! The poll.

use super::super::auth::Caller;
use super::super::deciding::{Offer, choose, sleep};
use super::super::error::ApiResult;
use super::{App, document};
use crate::ddi::{ControllerBase, Sleep};
use axum::extract::State;
use axum::http::HeaderMap;

pub(super) async fn poll(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult {
    let Caller { device, origin, base, .. } = &caller;
    let offer = choose(&app, device).await?;
    let begins_in = if let Offer::Nothing(when) = offer { when } else { None };
    let mut answer = ControllerBase::new(Sleep::new(sleep(app.config.poll, begins_in, fastrand::f64())));
    match &offer {
        Offer::Nothing(_) => {}
        Offer::Cancel(id) => answer.links.set("cancelAction", format!("{base}/cancelAction/{id}")),
        Offer::Confirm(id, task) => {
            answer
                .links
                .set("confirmationBase", format!("{base}/confirmationBase/{id}?c={}", terms_of(task)));
        }
        Offer::Deploy(action, task) => {
            answer
                .links
                .set("deploymentBase", format!("{base}/deploymentBase/{}?c={}", action.id, terms_of(task)));
        }
    }
    if let Some(installed) = device.installed {
        answer.links.set("installedBase", format!("{base}/installedBase/{installed}"));
    }
    if device.wants_attributes {
        answer.links.set("configData", format!("{base}/configData"));
    }
    if device.is_ours() {
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
