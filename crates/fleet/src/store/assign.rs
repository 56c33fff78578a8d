//! Who gets a task: devices that are there when it is added, and devices that come later.

use super::database::Connection;
use super::devices::device_of;
use super::rollouts::may_have;
use super::terms::Terms;
use super::{DeviceState, Store, StoreError, json, sql};
use crate::documents::Task;

/// Which devices get a task.
pub(super) enum Receivers {
    /// Those that it is meant for.
    Audience,
    /// Those of them that have begun this task.
    Begun(i64),
}

/// A device that gets a task: its name, and whether it has to confirm it.
pub(super) struct Receiver {
    pub(super) device: String,
    pub(super) confirm: bool,
}

/// The devices that get a task.
pub(super) async fn receivers(
    connection: &mut Connection,
    task: &Task,
    terms: &Terms,
    to: &Receivers,
) -> Result<Vec<Receiver>, StoreError> {
    let begun = match to {
        Receivers::Audience => None,
        Receivers::Begun(task) => Some(*task),
    };
    let devices: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT id, attributes, auto_confirm FROM devices WHERE state = 'accepted' AND ($1 IS NULL OR id IN \
         (SELECT device FROM actions WHERE task = $1 AND begun IS NOT NULL AND state <> 'unneeded')) ORDER BY id",
    )
    .bind(begun)
    .fetch_all(connection)
    .await?;
    let mut receivers = Vec::new();
    for (device, attributes, auto_confirm) in devices {
        if task.to.includes(&device, &json(&attributes, "a device's attributes")?) {
            receivers.push(Receiver { device, confirm: terms.confirm && auto_confirm.is_none() });
        }
    }
    Ok(receivers)
}

/// Adds the first action of a device for a task.
pub(super) async fn insert_action(
    connection: &mut Connection,
    task: i64,
    device: &str,
    confirm: bool,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO actions (task, device, attempt, newest, state, created, updated) VALUES ($1, $2, 1, 1, $3, $4, $4)",
    )
    .bind(task)
    .bind(device)
    .bind(if confirm { "confirming" } else { "waiting" })
    .bind(sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Gives the device the tasks that are meant for it and that it has no action for, and looks again at those that it
    /// had no need for.
    pub(super) async fn assign_to_device(
        &self,
        connection: &mut Connection,
        id: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let Some(device) = device_of(connection, id).await? else { return Ok(()) };
        if device.state != DeviceState::Accepted {
            return Ok(());
        }
        let live: Vec<(i64, Option<i64>, Option<String>)> = sqlx::query_as(
            "SELECT t.id, t.open_group, a.state FROM tasks t LEFT JOIN actions a ON a.task = t.id AND a.device = $1 AND a.newest = 1 \
             WHERE t.state <> 'cancelled' AND t.expires > $2 AND (a.state IS NULL OR a.state = 'unneeded') ORDER BY t.id",
        )
        .bind(id)
        .bind(sql(now))
        .fetch_all(&mut *connection)
        .await?;
        for (task, open, state) in live {
            let document = self.load_document(connection, task).await?;
            if !document.task.to.includes(id, &device.attributes) {
                continue;
            }
            if state.is_none() {
                let groups = &document.terms.groups;
                if let Some(open) = open
                    && !may_have(connection, (task, open), groups, id).await?
                {
                    continue;
                }
                insert_action(
                    connection,
                    task,
                    id,
                    document.terms.confirm && device.auto_confirm.is_none(),
                    now,
                )
                .await?;
            } else if document.task.when.iter().all(|term| term.holds(&device.attributes)) {
                sqlx::query(
                    "UPDATE actions SET state = 'waiting', updated = $3 WHERE task = $1 AND device = $2 AND newest = 1",
                )
                .bind(task)
                .bind(id)
                .bind(sql(now))
                .execute(&mut *connection)
                .await?;
            }
        }
        Ok(())
    }
}
