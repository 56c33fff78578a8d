//! Any bytes as each document of the device interface: what a device may send to the server, and a server to a device.

use super::quiet;
use crate::agent::{Work, unsigned};
use crate::ddi::{
    AutoConfirmRequest, Cancel, ConfigData, ConfirmationBase, ConfirmationFeedback, ControllerBase,
    Deployment, DeploymentBase, ErrorBody, Feedback, Installed, Sleep, parse, task_from_metadata,
    task_to_metadata,
};
use crate::documents::is_filename;
use crate::limits::{MAX_DDI_BODY, MAX_METADATA, MAX_METADATA_VALUE, MAX_SLEEP, MIN_SLEEP};
use crate::store::{ActionState, Answer, Report};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// How much longer a document may become by being read and written: an empty chunk gets its members.
const GROWTH: usize = 32;

/// The body of the fuzz target `ddi`.
///
/// # Panics
/// If a document is not what it was when it is written and read again, or something that is read breaks a bound.
pub fn fuzz_ddi(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_DDI_BODY)];
    if let Some(text) = Sleep::read(&String::from_utf8_lossy(bytes)) {
        sleep(text);
    }
    if let Some(poll) = document::<ControllerBase>(bytes) {
        poll.config.polling.sleep.into_iter().for_each(sleep);
    }
    if let Some(base) = document::<DeploymentBase>(bytes) {
        assert!(!base.id.is_empty());
        base.deployment.iter().chain(&base.confirmation).for_each(deployment);
    }
    if let Some(change) = document::<ConfigData>(bytes) {
        let mut known = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        change.apply(&mut known);
        assert!(known.len() <= 1 + change.data.len());
        let once = known.clone();
        change.apply(&mut known);
        assert_eq!(known, once, "the same change once more changes nothing");
    }
    if let Some(feedback) = document::<Feedback>(bytes) {
        over(&feedback);
    }
    document::<Cancel>(bytes);
    document::<ConfirmationBase>(bytes);
    document::<ConfirmationFeedback>(bytes);
    document::<AutoConfirmRequest>(bytes);
    document::<Installed>(bytes);
    document::<ErrorBody>(bytes);
}

/// Reads a document. What is written of it is JSON to the letter, and says the same.
fn document<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = match parse(bytes) {
        Ok(read) => read,
        Err(error) => {
            quiet(&error.to_string());
            return None;
        }
    };
    let written = serde_json::to_vec(&read).expect("string keys and finite numbers");
    assert!(written.len() <= GROWTH * bytes.len() + 512, "{} bytes of {}", written.len(), bytes.len());
    let again: T = serde_json::from_slice(&written).expect("JSON to the letter");
    assert_eq!(again, read);
    assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
    Some(read)
}

fn sleep(sleep: Sleep) {
    assert!((MIN_SLEEP..=MAX_SLEEP).contains(&sleep.get()), "{sleep}");
    assert_eq!(Sleep::read(&sleep.to_string()), Some(sleep));
}

/// What a device makes of a deployment that nobody signed, and the signed task that it may carry.
fn deployment(deployment: &Deployment) {
    if let Some((id, content)) = unsigned(deployment) {
        let work = Work::new(id, "", content);
        match work.plan() {
            Ok(plan) => {
                for file in &plan.files {
                    assert!(is_filename(&file.filename), "{file:?}");
                    assert!(file.digests.strong() || file.digests.sha1.is_some(), "{file:?}");
                }
            }
            Err(why) => quiet(&why),
        }
    }
    for chunk in &deployment.chunks {
        let Some(text) = task_from_metadata(&chunk.metadata) else { continue };
        let carried = task_to_metadata(&text);
        assert!(carried.len() <= MAX_METADATA);
        // Pieces are cut at bytes: what base64url has.
        if text.is_ascii() {
            assert!(carried.iter().all(|entry| entry.value.len() <= MAX_METADATA_VALUE));
            assert_eq!(task_from_metadata(&carried).as_ref(), Some(&text));
        }
    }
}

/// Whatever a device says of it, an action that is over does not open again.
fn over(feedback: &Feedback) {
    let (execution, finished) = (feedback.status.execution, feedback.status.result.finished);
    let reports = [false, true].map(|download_only| Report::Deployment { download_only });
    for report in reports.into_iter().chain([Report::Cancellation]) {
        for state in
            [ActionState::Finished, ActionState::Failed, ActionState::Cancelled, ActionState::Unneeded]
        {
            if let Answer::Taken(next) = report.answer(state, execution, finished) {
                assert!(!next.is_open(), "{report:?} {state:?} {feedback:?}");
            }
        }
    }
}
