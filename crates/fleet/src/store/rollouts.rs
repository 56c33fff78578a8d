//! Rollouts: tasks that are given to groups of devices one after the other, and the way back from a task.
//!
//! A device whose group does not have the task yet has no action for it, so nothing else needs to know of groups. When enough
//! of a group is done, the devices of the next one get their actions; when too many have failed, the task is paused.

use super::assign::{Receiver, Receivers, insert_action};
use super::audit::{self, AuditEntry};
use super::database::Connection;
use super::events::{self, EventKind};
use super::tasks::{LATER, add_task, task_state};
use super::terms::{Amount, Group, Percent, Terms};
use super::{NewTask, Store, StoreError, TaskState, sql};
use crate::documents::{Envelope, Task};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Devices that were heard of within so many seconds come into earlier groups than others.
const LATELY: u64 = 24 * 60 * 60;

/// How far a task is that is given out in groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The last group that has the task; 0 is the first one.
    pub open: usize,
    /// All groups, in their order. The last one is that of the devices which are in no other.
    pub groups: Vec<GroupCounts>,
    /// Why the server paused the task; absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// The devices of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// All that are accepted.
    pub devices: u64,
    /// Those that are done, or did not need the task.
    pub done: u64,
    /// Those where it failed or was cancelled.
    pub failed: u64,
    /// Those of them that had failed when somebody let the task go on. They count no more.
    pub excused: u64,
}

/// What is to happen with a rollout.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The next group gets the task.
    Open,
    /// The task is paused: why.
    Hold(String),
    /// Nothing.
    Wait,
}

impl Rollout {
    /// A word for the group `at`: `done`, `open`, or `later`.
    #[must_use]
    pub fn state(&self, at: usize) -> &'static str {
        match self.groups.get(at) {
            Some(group) if at <= self.open && group.done == group.devices => "done",
            _ if at <= self.open => "open",
            _ => LATER,
        }
    }

    fn step(&self, terms: &Terms) -> Step {
        let counted = |group: &GroupCounts| group.devices - group.excused;
        for (number, group) in (1..).zip(self.groups.iter().take(self.open + 1)) {
            let (failed, devices) = (group.failed - group.excused, counted(group));
            if terms.failures.is_exceeded(failed, devices) {
                let why = format!("{failed} of {devices} devices of group {number} failed");
                return Step::Hold(format!("{why}; at most {} may", terms.failures));
            }
        }
        let enough = |group: &GroupCounts| group.done >= terms.required().of(counted(group));
        let more = self.open + 1 < self.groups.len();
        if more && self.groups.get(self.open).is_some_and(enough) { Step::Open } else { Step::Wait }
    }
}

/// What the database says of the tasks that are given out in groups; of one, if it is named.
pub(super) async fn rollouts(
    connection: &mut Connection,
    only: Option<i64>,
) -> Result<BTreeMap<i64, Rollout>, StoreError> {
    let tasks: Vec<(i64, i64, Option<String>)> = sqlx::query_as(
        "SELECT id, open_group, held FROM tasks WHERE open_group IS NOT NULL AND ($1 IS NULL OR id = $1)",
    )
    .bind(only)
    .fetch_all(&mut *connection)
    .await?;
    let mut found = BTreeMap::new();
    for (id, open, held) in tasks {
        let open = usize::try_from(open).map_err(|_| StoreError::damaged("a task's group"))?;
        found.insert(id, Rollout { open, groups: Vec::new(), held });
    }
    if found.is_empty() {
        return Ok(found);
    }
    let groups: Vec<(i64, i64, [i64; 4])> = counted(connection, only).await?;
    for (task, position, counts) in groups {
        let Some(rollout) = found.get_mut(&task) else { continue };
        let position = usize::try_from(position).map_err(|_| StoreError::damaged("a device's group"))?;
        let [devices, done, failed, excused] = counts.map(i64::unsigned_abs);
        if rollout.groups.len() <= position {
            rollout.groups.resize(position + 1, GroupCounts::default());
        }
        rollout.groups[position] = GroupCounts { devices, done, failed, excused };
    }
    Ok(found)
}

/// Task, group, and the counts in the order of [`GroupCounts`].
async fn counted(
    connection: &mut Connection,
    only: Option<i64>,
) -> Result<Vec<(i64, i64, [i64; 4])>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT g.task, g.position, COUNT(*), \
         SUM(CASE WHEN a.state IN ('finished', 'unneeded') THEN 1 ELSE 0 END), \
         SUM(CASE WHEN a.state IN ('failed', 'cancelled') THEN 1 ELSE 0 END), \
         SUM(CASE WHEN a.state IN ('failed', 'cancelled') AND g.counts = 0 THEN 1 ELSE 0 END) \
         FROM grouped g JOIN devices d ON d.id = g.device AND d.state = 'accepted' \
         LEFT JOIN actions a ON a.task = g.task AND a.device = g.device AND a.newest = 1 \
         WHERE $1 IS NULL OR g.task = $1 GROUP BY g.task, g.position",
    )
    .bind(only)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(task, position, a, b, c, d)| (task, position, [a, b, c, d])).collect())
}

/// What is to happen with a task that runs in groups.
async fn next(connection: &mut Connection, task: i64, terms: &Terms) -> Result<(Step, usize), StoreError> {
    let Some(mut rollout) = rollouts(connection, Some(task)).await?.remove(&task) else {
        return Ok((Step::Wait, 0));
    };
    rollout.groups.resize(terms.groups.len() + 1, GroupCounts::default());
    Ok((rollout.step(terms), rollout.open))
}

/// Divides the devices of a new task into its groups, and gives the task to the first one.
pub(super) async fn divide(
    connection: &mut Connection,
    (task, salt): (i64, &[u8]),
    groups: &[Group],
    mut receivers: Vec<Receiver>,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tasks SET open_group = 0 WHERE id = $1").bind(task).execute(&mut *connection).await?;
    let lately: Vec<(String,)> = sqlx::query_as("SELECT id FROM devices WHERE last_seen >= $1")
        .bind(sql(now.saturating_sub(LATELY)))
        .fetch_all(&mut *connection)
        .await?;
    let lately: BTreeSet<String> = lately.into_iter().map(|(id,)| id).collect();
    // Not always the same devices come first.
    let lot =
        |device: &str| *blake3::Hasher::new().update(salt).update(device.as_bytes()).finalize().as_bytes();
    receivers.sort_by_cached_key(|r| (!lately.contains(&r.device), lot(&r.device)));
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT device, tag FROM tags").fetch_all(&mut *connection).await?;
    let mut tags = BTreeMap::<String, BTreeSet<String>>::new();
    for (device, tag) in rows {
        tags.entry(device).or_default().insert(tag);
    }
    let found = Group::divide(groups, receivers.iter().map(|r| tags.get(&r.device)));
    for (Receiver { device, confirm }, position) in receivers.iter().zip(found) {
        put(connection, task, device, position).await?;
        if position == 0 {
            insert_action(connection, task, device, *confirm, now).await?;
        }
    }
    Ok(())
}

async fn put(
    connection: &mut Connection,
    task: i64,
    device: &str,
    position: usize,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO grouped (task, device, position) VALUES ($1, $2, $3)")
        .bind(task)
        .bind(device)
        .bind(sql(position as u64))
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether a device that has no action for a task that is given out in groups gets one now. One that is new joins a group.
pub(super) async fn may_have(
    connection: &mut Connection,
    (task, open): (i64, i64),
    groups: &[Group],
    device: &str,
) -> Result<bool, StoreError> {
    let known: Option<(i64,)> =
        sqlx::query_as("SELECT position FROM grouped WHERE task = $1 AND device = $2")
            .bind(task)
            .bind(device)
            .fetch_optional(&mut *connection)
            .await?;
    if let Some((position,)) = known {
        return Ok(position <= open);
    }
    // A way back is for those that went the way.
    if groups.is_empty() {
        return Ok(false);
    }
    let tags: Vec<(String,)> = sqlx::query_as("SELECT tag FROM tags WHERE device = $1")
        .bind(device)
        .fetch_all(&mut *connection)
        .await?;
    let position = Group::of_late(groups, &tags.into_iter().map(|(tag,)| tag).collect());
    put(connection, task, device, position).await?;
    Ok(sql(position as u64) <= open)
}

/// Forgets the devices that are in groups which do not get the task any more. `$1` is the time: tasks that expired by then, or
/// the task `only`.
pub(super) async fn drop_later(
    connection: &mut Connection,
    only: Option<i64>,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM grouped WHERE task IN (SELECT id FROM tasks WHERE open_group IS NOT NULL \
         AND (id = $1 OR $1 IS NULL AND expires <= $2)) \
         AND position > (SELECT open_group FROM tasks WHERE id = grouped.task)",
    )
    .bind(only)
    .bind(sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// The devices where the task has failed so far count no more: somebody lets it go on.
pub(super) async fn excuse(connection: &mut Connection, task: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE grouped SET counts = 0 WHERE task = $1 AND device IN (SELECT device FROM actions \
         WHERE task = $1 AND newest = 1 AND state IN ('failed', 'cancelled'))",
    )
    .bind(task)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Goes on with the tasks that are given out in groups: gives them to the next group, or pauses them.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn roll_out(&self, now: u64) -> Result<(), StoreError> {
        let running: Vec<(i64,)> = sqlx::query_as(
            "SELECT id FROM tasks WHERE open_group IS NOT NULL AND state = 'running' AND expires > $1 ORDER BY id",
        )
        .bind(sql(now))
        .fetch_all(&self.readers)
        .await?;
        for (task,) in running {
            let terms = &self.document(task).await?.terms;
            let mut reader = self.readers.acquire().await?;
            // Groups without devices take no time.
            while next(&mut reader, task, terms).await?.0 != Step::Wait {
                let terms = terms.clone();
                let step = self.write(move |connection| {
                    Box::pin(async move { take_step(connection, task, &terms, now).await })
                });
                if !step.await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Ends a task, and gives the task that undoes it to the devices that have begun it. Returns that task's number, and
    /// how many devices those are.
    ///
    /// # Errors
    ///
    /// If the task has no such task, has been replaced, or the database fails.
    pub async fn roll_back(&self, id: i64, by: &str, now: u64) -> Result<(i64, u64), StoreError> {
        let terms = self.document(id).await?.terms.clone();
        let by = by.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let row: Option<(Option<Vec<u8>>,)> =
                    sqlx::query_as("SELECT rollback FROM tasks WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&mut *connection)
                        .await?;
                let bytes = row.and_then(|(bytes,)| bytes).ok_or_else(|| {
                    StoreError::conflict(format!(
                        "task {id} has no task to roll back to; cancel it, and add one"
                    ))
                })?;
                let envelope = Envelope::parse(&bytes).map_err(StoreError::damaged)?;
                let task = Task::parse(envelope.payload()).map_err(StoreError::damaged)?;
                if task.expires <= now {
                    return Err(StoreError::conflict(format!(
                        "the rollback of task {id} has expired; add a task"
                    )));
                }
                let terms = Terms {
                    groups: Vec::new(),
                    success: None,
                    failures: Percent::ALL,
                    at_once: Amount::Devices(0),
                    ..terms
                };
                let new = NewTask { task, envelope, terms, rollback: None, by };
                let back = add_task(connection, new, Receivers::Begun(id), now).await?;
                let (devices,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM actions WHERE task = $1")
                    .bind(back)
                    .fetch_one(connection)
                    .await?;
                Ok((back, devices.unsigned_abs()))
            })
        })
        .await
    }
}

/// Takes the next step with a task, if there is one still, and says so in the audit trail. Returns whether there may be
/// another one.
async fn take_step(
    connection: &mut Connection,
    task: i64,
    terms: &Terms,
    now: u64,
) -> Result<bool, StoreError> {
    if task_state(connection, task).await? != TaskState::Running {
        return Ok(false);
    }
    let (step, open) = next(connection, task, terms).await?;
    let ((what, event), why, more) = match step {
        Step::Wait => return Ok(false),
        Step::Hold(why) => {
            sqlx::query("UPDATE tasks SET state = 'paused', held = $2 WHERE id = $1")
                .bind(task)
                .bind(&why)
                .execute(&mut *connection)
                .await?;
            (("pause task", EventKind::TaskPaused), why, false)
        }
        Step::Open => {
            let position = sql(open as u64 + 1);
            sqlx::query("UPDATE tasks SET open_group = $2 WHERE id = $1")
                .bind(task)
                .bind(position)
                .execute(&mut *connection)
                .await?;
            let devices: Vec<(String, Option<String>)> = sqlx::query_as(
                "SELECT d.id, d.auto_confirm FROM grouped g JOIN devices d ON d.id = g.device \
                 WHERE g.task = $1 AND g.position = $2 AND d.state = 'accepted' ORDER BY d.id",
            )
            .bind(task)
            .bind(position)
            .fetch_all(&mut *connection)
            .await?;
            for (device, auto_confirm) in devices {
                insert_action(connection, task, &device, terms.confirm && auto_confirm.is_none(), now)
                    .await?;
            }
            let which = format!("{} of {}", position + 1, terms.groups.len() + 1);
            (("open group", EventKind::TaskGroup), which, true)
        }
    };
    events::of_task(connection, event, task, ("server", &why), now).await?;
    let (what, who, subject) = (what.into(), "server".into(), format!("{task}: {why}"));
    audit::note(connection, AuditEntry { at: now, who, address: String::new(), what, subject }).await?;
    Ok(more)
}
