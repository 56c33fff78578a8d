//! Where each device stands, over all its tasks: what somebody who watches the fleet looks at first.

use super::{ActionState, DeviceState, Store, StoreError, column, optional_unsigned, words};
use crate::limits::MAX_WATCHED;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

words! {
    /// Where a device stands. What needs somebody comes first.
    Standing {
        /// A task failed there.
        Failed = "failed",
        /// Nobody has decided about it.
        Pending = "pending",
        /// It was not heard of lately.
        Silent = "silent",
        /// It works on a task.
        Working = "working",
        /// Tasks wait for it, or it for them.
        Waiting = "waiting",
        /// Nothing is to be done.
        Ready = "ready",
        /// It is kept out.
        Refused = "refused",
    }
}

impl Standing {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Failed, Self::Pending, Self::Silent, Self::Working, Self::Waiting, Self::Ready, Self::Refused];
}

/// A device in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub standing: Standing,
    /// When it was last heard of.
    pub last_seen: Option<u64>,
    /// The task that this is about.
    pub task: Option<String>,
    /// What the device said of it last.
    pub message: String,
    /// Steps done, of all steps.
    pub progress: Option<(u64, u64)>,
}

/// What of a device's actions comes first.
const fn rank(state: ActionState) -> u8 {
    match state {
        ActionState::Failed => 3,
        ActionState::Running | ActionState::Cancelling => 2,
        _ => 1,
    }
}

struct Open {
    state: ActionState,
    task: String,
    message: String,
    progress: Option<(u64, u64)>,
}

impl Store {
    /// All devices in short, by name. Those that were not heard of since `heard` are silent.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn summaries(&self, heard: u64) -> Result<Vec<DeviceSummary>, StoreError> {
        let rows = sqlx::query(
            "SELECT a.device, a.state, a.message, a.done, a.of, t.name FROM actions a JOIN tasks t ON t.id = a.task \
             WHERE a.newest = 1 AND (a.state = 'cancelling' OR (t.state <> 'cancelled' AND \
             a.state IN ('waiting', 'confirming', 'running', 'failed'))) ORDER BY a.id",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut open = HashMap::<String, Open>::new();
        for row in &rows {
            let new = Open {
                state: column::<String>(row, "state")?.parse()?,
                task: column(row, "name")?,
                message: column(row, "message")?,
                progress: optional_unsigned(row, "done")?.zip(optional_unsigned(row, "of")?),
            };
            let device: String = column(row, "device")?;
            if open.get(&device).is_none_or(|known| rank(known.state) < rank(new.state)) {
                open.insert(device, new);
            }
        }
        let rows = sqlx::query("SELECT id, state, last_seen FROM devices ORDER BY id LIMIT $1")
            .bind(i64::from(MAX_WATCHED))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let id: String = column(row, "id")?;
                let last_seen = optional_unsigned(row, "last_seen")?;
                let found = open.remove(&id);
                let silent = last_seen.is_none_or(|at| at < heard);
                let standing =
                    match (column::<String>(row, "state")?.parse()?, found.as_ref().map(|open| open.state)) {
                        (DeviceState::Refused, _) => Standing::Refused,
                        (DeviceState::Pending, _) => Standing::Pending,
                        (DeviceState::Accepted, Some(ActionState::Failed)) => Standing::Failed,
                        (DeviceState::Accepted, _) if silent => Standing::Silent,
                        (DeviceState::Accepted, Some(state)) if rank(state) == 2 => Standing::Working,
                        (DeviceState::Accepted, Some(_)) => Standing::Waiting,
                        (DeviceState::Accepted, None) => Standing::Ready,
                    };
                let (task, message, progress) = match found {
                    Some(open) => (Some(open.task), open.message, open.progress),
                    None => (None, String::new(), None),
                };
                Ok(DeviceSummary { id, standing, last_seen, task, message, progress })
            })
            .collect()
    }
}
