//! What the loop trusts: roots, the list, and the tasks that are signed as they say.

use super::CheckIn;
use crate::agent::api::ApiError;
use crate::agent::clock;
use crate::agent::work::{Content, unsigned};
use crate::ddi::Deployment;
use crate::documents::{Envelope, Hash, Kind, Listing, Refusal, Task, Trusted};
use crate::limits::{MAX_REFUSED, MAX_ROOT_STEPS};
use reqwest::Url;
use std::time::Instant;

/// Why what a server offers is not taken.
#[derive(Debug)]
pub(super) enum TakeError {
    /// It is refused.
    Refused {
        /// The refusal's code.
        code: i32,
        /// Why.
        why: String,
        /// It may be taken later.
        held: bool,
    },
    /// The server could not be asked for newer roots.
    Unasked(ApiError),
}

impl From<Refusal> for TakeError {
    fn from(refusal: Refusal) -> Self {
        let held = matches!(
            refusal,
            Refusal::Frozen(_)
                | Refusal::NoList
                | Refusal::Unlisted { .. }
                | Refusal::Expired { kind: Kind::Root, .. }
        );
        Self::Refused { code: refusal.code(), why: refusal.to_string(), held }
    }
}

impl From<(i32, String)> for TakeError {
    fn from((code, why): (i32, String)) -> Self {
        Self::Refused { code, why, held: false }
    }
}

/// Whether a newer root may explain the refusal.
const fn asks_for_roots(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Signatures { .. } | Refusal::Expired { kind: Kind::Root, .. })
}

impl CheckIn {
    pub(super) async fn take_roots(&mut self) -> Result<(), ApiError> {
        let Some(trusted) = self.core.lock().trusted.clone() else { return Ok(()) };
        let mut roots = Vec::new();
        let mut version = trusted.root().version;
        while (roots.len() as u64) < MAX_ROOT_STEPS {
            version += 1;
            match self.core.api.root(version).await? {
                Some(root) => roots.push(root),
                None => break,
            }
        }
        self.roots = Some(Instant::now());
        if !roots.is_empty() {
            let taken = match trusted.take_roots(&roots, clock()) {
                Ok(next) => self.core.trust(next).await.map_err(|error| (0, error.to_string())),
                Err(refusal) => Err((refusal.code(), refusal.to_string())),
            };
            self.note("the root", taken);
        }
        Ok(())
    }

    pub(super) async fn take_list(&mut self) -> Result<(), (i32, String)> {
        let Some(trusted) = self.core.lock().trusted.clone() else { return Ok(()) };
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| (0, error.to_string()))?;
        let nonce = data_encoding::HEXLOWER.encode(&nonce);
        let list = self.core.api.envelope(self.core.api.list(&nonce)).await;
        let list = list.map_err(|error| (0, error.to_string()))?;
        match trusted.take_list(&list, Some(&nonce), clock()) {
            Ok(next) => self.core.trust(next).await.map_err(|error| (0, error.to_string())),
            Err(refusal) => {
                if asks_for_roots(&refusal) {
                    self.roots = None;
                }
                Err((refusal.code(), refusal.to_string()))
            }
        }
    }

    /// Checks a signed task. Returns what the device trusts once it has taken it. If a newer root may explain a refusal, the server is asked
    /// for one, but only once because of the same task.
    pub(super) async fn check_task(
        &mut self,
        text: &str,
        listing: Listing,
    ) -> Result<(Envelope, Trusted, Task), TakeError> {
        let envelope = Envelope::from_metadata(text).map_err(Refusal::from)?;
        let name = Hash::of(text.as_bytes());
        let mut first = self.core.listing == Listing::Required && !self.strangers.contains(&name);
        loop {
            let trusted = self.core.lock().trusted.clone();
            let trusted = trusted
                .ok_or_else(|| (4011, "this device has joined no fleet, so it trusts no key".to_owned()))?;
            match trusted.take_task(&envelope, &self.core.attributes(), listing, clock()) {
                Ok((next, task)) => return Ok((envelope, next, task)),
                Err(refusal) if first && asks_for_roots(&refusal) => {
                    self.take_roots().await.map_err(TakeError::Unasked)?;
                    if self.strangers.len() >= MAX_REFUSED {
                        self.strangers.clear();
                    }
                    self.strangers.insert(name);
                    first = false;
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Checks a signed task, and stores what follows from it for the trusted state.
    pub(super) async fn take_task(&mut self, text: &str) -> Result<(Hash, Content), TakeError> {
        let (envelope, next, _) = self.check_task(text, self.core.listing).await?;
        self.core
            .trust(next)
            .await
            .map_err(|error| (5007, format!("cannot store what is trusted ({error})")))?;
        let json = String::from_utf8(envelope.to_bytes()).map_err(|error| (4000, error.to_string()))?;
        Ok((envelope.hash(), Content::Signed(json)))
    }

    /// Checks an unsigned deployment against the policy of this device.
    pub(super) fn take_unsigned(
        &self,
        deployment: &Deployment,
        feedback: &Url,
    ) -> Result<(Hash, Content), (i32, String)> {
        let settings = &self.core.settings;
        if settings.unsigned_copies.is_none() {
            return Err((4010, "nobody signed this, and this device takes signed tasks only".to_owned()));
        }
        if feedback.scheme() != "https" && !settings.plain {
            return Err((4010, "nobody signed this, and the server is not authenticated by TLS".to_owned()));
        }
        unsigned(deployment).ok_or_else(|| (4001, "the deployment has no files".to_owned()))
    }
}
