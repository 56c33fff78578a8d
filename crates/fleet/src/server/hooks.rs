//! Web hooks: what happens to tasks is sent to the URLs that administrators named, as [Standard Webhooks] has it. Events wait in
//! the database, so none is lost with this server, and each hook gets them in their order, one at a time, at least once. A
//! hook that fails is tried again later and later; no request of a device and no other hook waits for it.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use super::{App, Shared, clock, listen};
use crate::cause::cause;
use crate::limits::{MAX_RETRY_AFTER, MIN_RETRY_AFTER};
use crate::store::{Claim, DueHook, Event, StoreError};
use data_encoding::BASE64;
use mcp_transfer::crypto::derive::Secret;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Url};
use ring::hmac;
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// How long a hook has to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long other servers leave a hook to the one that tells it. Longer than [`NOTE`] and [`PATIENCE`] together.
const CLAIM: u64 = 60;
/// How often it is noted what a hook knows, at least.
const NOTE: Duration = Duration::from_secs(10);
/// Events that are read at once.
const TOGETHER: u32 = 100;
/// Seconds until a hook that failed is tried again: the first time, and at most.
const FIRST_PAUSE: u64 = 5;
const LONGEST_PAUSE: u64 = 3600;
/// Bytes of an answer that are read, so that the connection can be used again.
const MAX_ANSWER: usize = 64 << 10;

/// Tells the hooks until the server stops.
pub(super) async fn tell(app: App, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What it told before it ended the last time, others do not tell.
    let _ = app.store.release_hooks(&app.name).await;
    let (mut client, mut busy, mut under_way) = (None, HashSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            () = listen::stopped(&mut stop) => break,
            Some(done) = under_way.join_next() => {
                if let Ok(id) = done {
                    busy.remove(&id);
                }
                continue;
            }
            _ = every.tick() => {}
        }
        // If the database is away, the next look finds them.
        let Ok(due) = app.store.claim_hooks(app.claim(), clock::now()).await else { continue };
        for hook in due {
            if client.is_none() {
                client = new_client().map_err(|error| error!(%error, "web hooks are not told: {error}")).ok();
            }
            if let Some(client) = client.clone().filter(|_| busy.insert(hook.id)) {
                let app = App::clone(&app);
                under_way.spawn(async move {
                    let id = hook.id;
                    // If the database is away, it is told again.
                    let _ = app.tell_hook(&client, hook).await;
                    id
                });
            }
        }
    }
    under_way.shutdown().await;
    let _ = app.store.release_hooks(&app.name).await;
}

fn new_client() -> Result<Client, String> {
    // Another part of the process may have installed the same provider before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(concat!("mcp/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(PATIENCE)
        .build();
    client.map_err(|error| cause(&error))
}

/// Why a hook did not take an event.
struct Refusal {
    why: String,
    /// Seconds after which it may be tried again, as it says.
    after: u64,
}

impl Refusal {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), after: 0 }
    }
}

impl Shared {
    fn claim(&self) -> Claim<'_> {
        Claim { server: &self.name, until: clock::now() + CLAIM }
    }

    /// Tells a hook what it does not know, until it fails or knows all.
    async fn tell_hook(&self, client: &Client, mut hook: DueHook) -> Result<(), StoreError> {
        let mut noted = Instant::now();
        loop {
            let events = self.store.events_after(hook.told, TOGETHER).await?;
            if events.is_empty() {
                self.store.hook_told(&hook, Claim { until: 0, ..self.claim() }).await?;
                return Ok(());
            }
            for event in events {
                if hook.wants(&event) {
                    let taken = self.send_event(client, &hook, &event).await;
                    self.metrics.hook_tried(taken.is_ok());
                    if let Err(refusal) = taken {
                        return self.hook_refused(hook, &refusal).await;
                    }
                    if hook.failures > 0 {
                        info!(hook = hook.id, "web hook {} takes events again", hook.id);
                        hook.failures = 0;
                    }
                }
                hook.told = event.id;
                if noted.elapsed() >= NOTE {
                    if !self.store.hook_told(&hook, self.claim()).await? {
                        // It was removed, or another server took it for abandoned.
                        return Ok(());
                    }
                    noted = Instant::now();
                }
            }
            if !self.store.hook_told(&hook, self.claim()).await? {
                return Ok(());
            }
            noted = Instant::now();
        }
    }

    async fn hook_refused(&self, mut hook: DueHook, refusal: &Refusal) -> Result<(), StoreError> {
        if hook.failures == 0 {
            // A path may hold a secret.
            let place =
                hook.url.parse::<Url>().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
            let (hook, why) = (hook.id, &refusal.why);
            warn!(hook, place, why, "web hook {hook} ({place}) failed: {why}; it is tried again later");
        }
        hook.failures += 1;
        let pause = pause(hook.failures);
        let again = clock::now() + refusal.after.max(pause + fastrand::u64(0..=pause / 2));
        self.store.hook_failed(&hook, (&refusal.why, again), &self.name).await
    }

    /// Sends an event.
    async fn send_event(&self, client: &Client, hook: &DueHook, event: &Event) -> Result<(), Refusal> {
        let at =
            jiff::Timestamp::from_second(i64::try_from(event.at).unwrap_or(i64::MAX)).unwrap_or_default();
        let body = json!({
            "type": event.kind.as_str(),
            "timestamp": at.to_string(),
            "fleet": self.fleet,
            "data": event.data,
        });
        let body = body.to_string();
        // Numbers begin anew when a database is restored; the time does not.
        let id = format!("evt_{}_{}", event.at, event.id);
        let now = clock::now();
        let request = client
            .post(&hook.url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature(&hook.secret, &id, now, &body))
            .body(body);
        let exchange = async {
            let mut answer = request.send().await?;
            let (mut read, status) = (0, answer.status());
            let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            // What it says is of no interest.
            while let Ok(Some(chunk)) = answer.chunk().await
                && read < MAX_ANSWER
            {
                read += chunk.len();
            }
            Ok::<_, reqwest::Error>((status, after))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok((status, _))) if status.is_success() => Ok(()),
            Ok(Ok((status, after))) => {
                let longest = MAX_RETRY_AFTER.as_secs().min(LONGEST_PAUSE);
                let after = after.map_or(0, |after: u64| after.clamp(MIN_RETRY_AFTER.as_secs(), longest));
                Err(Refusal { why: format!("it answers {status}"), after })
            }
            Ok(Err(error)) => Err(Refusal::new(cause(&error))),
            Err(_) => Err(Refusal::new(format!("it does not answer within {} seconds", PATIENCE.as_secs()))),
        }
    }
}

/// Seconds until a hook is tried again that has failed so often.
fn pause(failures: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    2_u64
        .checked_pow(doublings)
        .map_or(LONGEST_PAUSE, |factor| factor.saturating_mul(FIRST_PAUSE).min(LONGEST_PAUSE))
}

/// The secret as receivers are told it.
pub(super) fn secret_text(secret: &Secret) -> String {
    format!("whsec_{}", BASE64.encode(secret.expose()))
}

/// The value of `webhook-signature`.
fn signature(secret: &Secret, id: &str, timestamp: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        assert_eq!([1, 2, 3, 10].map(pause), [5, 10, 20, 2560]);
        assert_eq!([11, 64, 65, u64::MAX].map(pause), [3600; 4]);
    }

    #[test]
    fn signatures_are_those_of_another_implementation() {
        // printf '%s' 'evt_1_2.1614265330.{"test": 2432232314}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101... -binary | base64
        let secret = Secret::new([1; 32]);
        assert_eq!(secret_text(&secret), "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
        let signature = signature(&secret, "evt_1_2", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,UfABMncRgve9aQXJqAvPbAFvRMg5f3A+br5SLMcnrgo=");
    }
}
