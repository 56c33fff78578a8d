//! What happened to tasks. An event is written by the commit that makes it true, and only if there is a web hook that is to be
//! told. It stays until each of them knows it, or it is too old.

use super::database::Connection;
use super::tasks::Counts;
use super::{Store, StoreError, column, json, sql, unsigned, words};
use crate::limits::{EVENT_VALIDITY, MAX_EVENTS};
use serde_json::{Value, json};
use std::collections::BTreeSet;

words! {
    /// What happened.
    EventKind {
        /// A web hook was added. Only that one is told.
        HookAdded = "hook.added",
        /// A task was added.
        TaskAdded = "task.added",
        /// The next group of devices has it.
        TaskGroup = "task.group",
        /// It is held back: by an operator, or by the server since it failed too often.
        TaskPaused = "task.paused",
        /// It goes on.
        TaskResumed = "task.resumed",
        /// It is offered no more: an operator ended it, or a newer task of its name did.
        TaskCancelled = "task.cancelled",
        /// It expired before some devices began it.
        TaskExpired = "task.expired",
        /// No device has it to do any more.
        TaskOver = "task.over",
        /// A device completed it.
        DeviceFinished = "device.finished",
        /// A device had no need for it.
        DeviceUnneeded = "device.unneeded",
        /// It failed at a device.
        DeviceFailed = "device.failed",
        /// A device stopped it.
        DeviceCancelled = "device.cancelled",
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HookAdded,
        Self::TaskAdded,
        Self::TaskGroup,
        Self::TaskPaused,
        Self::TaskResumed,
        Self::TaskCancelled,
        Self::TaskExpired,
        Self::TaskOver,
        Self::DeviceFinished,
        Self::DeviceUnneeded,
        Self::DeviceFailed,
        Self::DeviceCancelled,
    ];
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number. Later events have higher ones.
    pub id: i64,
    /// When.
    pub at: u64,
    /// What.
    pub kind: EventKind,
    /// To which task, and at which device.
    pub data: Value,
}

async fn is_heard(connection: &mut Connection) -> Result<bool, StoreError> {
    let hook: Option<(i64,)> =
        sqlx::query_as("SELECT id FROM hooks LIMIT 1").fetch_optional(connection).await?;
    Ok(hook.is_some())
}

pub(super) async fn insert(
    connection: &mut Connection,
    kind: EventKind,
    data: &Value,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO events (at, kind, data) VALUES ($1, $2, $3)")
        .bind(sql(now))
        .bind(kind.as_str())
        .bind(data.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// What an event says of a task: number, name, serial, version.
async fn task_data(connection: &mut Connection, task: i64) -> Result<Value, StoreError> {
    let (name, serial, version): (String, i64, String) =
        sqlx::query_as("SELECT name, serial, version FROM tasks WHERE id = $1")
            .bind(task)
            .fetch_one(connection)
            .await?;
    Ok(json!({ "id": task, "name": name, "serial": serial, "version": version }))
}

/// Something happened to a task: because of whom, and why.
pub(super) async fn of_task(
    connection: &mut Connection,
    kind: EventKind,
    task: i64,
    (by, why): (&str, &str),
    now: u64,
) -> Result<(), StoreError> {
    if !is_heard(connection).await? {
        return Ok(());
    }
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT state, COUNT(*) FROM actions WHERE task = $1 AND newest = 1 GROUP BY state")
            .bind(task)
            .fetch_all(&mut *connection)
            .await?;
    let counts: Counts = counts.into_iter().map(|(state, count)| (state, count.unsigned_abs())).collect();
    let task = task_data(connection, task).await?;
    let data = json!({ "task": task, "by": by, "why": why, "devices": counts });
    insert(connection, kind, &data, now).await
}

/// An action may have ended: says how, and whether its task is over.
pub(super) async fn of_action(connection: &mut Connection, action: i64, now: u64) -> Result<(), StoreError> {
    if !is_heard(connection).await? {
        return Ok(());
    }
    let row = sqlx::query("SELECT task, device, attempt, state, message, code FROM actions WHERE id = $1")
        .bind(action)
        .fetch_one(&mut *connection)
        .await?;
    let kind = match column::<&str>(&row, "state")? {
        "finished" => EventKind::DeviceFinished,
        "unneeded" => EventKind::DeviceUnneeded,
        "failed" => EventKind::DeviceFailed,
        "cancelled" => EventKind::DeviceCancelled,
        _ => return Ok(()),
    };
    let task: i64 = column(&row, "task")?;
    let data = json!({
        "task": task_data(connection, task).await?,
        "device": column::<&str>(&row, "device")?,
        "attempt": column::<i64>(&row, "attempt")?,
        "message": column::<&str>(&row, "message")?,
        "code": column::<Option<i64>>(&row, "code")?,
    });
    insert(connection, kind, &data, now).await?;
    if_over(connection, task, now).await
}

/// Says that a task is over, if no device has it to do or will get it.
pub(super) async fn if_over(connection: &mut Connection, task: i64, now: u64) -> Result<(), StoreError> {
    let left: Option<(i64,)> = sqlx::query_as(
        "SELECT 1 FROM actions WHERE task = $1 AND state IN ('waiting', 'confirming', 'running', 'cancelling') \
         UNION ALL SELECT 1 FROM grouped g JOIN tasks t ON t.id = g.task \
         JOIN devices d ON d.id = g.device AND d.state = 'accepted' \
         WHERE g.task = $1 AND g.position > t.open_group LIMIT 1",
    )
    .bind(task)
    .fetch_optional(&mut *connection)
    .await?;
    if left.is_some() {
        return Ok(());
    }
    of_task(connection, EventKind::TaskOver, task, ("server", ""), now).await
}

/// The actions that have not begun expired, by these tasks.
pub(super) async fn of_expiry(
    connection: &mut Connection,
    tasks: BTreeSet<i64>,
    now: u64,
) -> Result<(), StoreError> {
    for task in tasks {
        of_task(connection, EventKind::TaskExpired, task, ("server", ""), now).await?;
        if_over(connection, task, now).await?;
    }
    Ok(())
}

/// Drops events that every hook knows, those that are too old, and the oldest if there are too many. Returns which hooks
/// missed how many.
pub(super) async fn drop_old(connection: &mut Connection, now: u64) -> Result<Vec<(i64, u64)>, StoreError> {
    let (first, last): (Option<i64>, Option<i64>) =
        sqlx::query_as("SELECT MIN(id), MAX(id) FROM events").fetch_one(&mut *connection).await?;
    let Some((first, last)) = first.zip(last) else { return Ok(Vec::new()) };
    let (old,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(id), 0) FROM events WHERE at <= $1")
        .bind(sql(now.saturating_sub(EVENT_VALIDITY.as_secs())))
        .fetch_one(&mut *connection)
        .await?;
    let bound = old.max(last - i64::from(MAX_EVENTS));
    let late: Vec<(i64, i64, String)> = sqlx::query_as("SELECT id, told, kinds FROM hooks WHERE told < $1")
        .bind(bound)
        .fetch_all(&mut *connection)
        .await?;
    let mut missed = Vec::new();
    for (hook, told, kinds) in late {
        let wanted: Vec<EventKind> = json(&kinds, "a hook's kinds of events")?;
        let dropped: Vec<(String, i64)> =
            sqlx::query_as("SELECT kind, COUNT(*) FROM events WHERE id > $1 AND id <= $2 GROUP BY kind")
                .bind(told)
                .bind(bound)
                .fetch_all(&mut *connection)
                .await?;
        let wanted = |kind: &str| wanted.is_empty() || wanted.iter().any(|w| w.as_str() == kind);
        let count: i64 = dropped.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| count).sum();
        sqlx::query("UPDATE hooks SET told = $2, missed = missed + $3 WHERE id = $1")
            .bind(hook)
            .bind(bound)
            .bind(count)
            .execute(&mut *connection)
            .await?;
        if count > 0 {
            missed.push((hook, count.unsigned_abs()));
        }
    }
    let (known,): (Option<i64>,) =
        sqlx::query_as("SELECT MIN(told) FROM hooks").fetch_one(&mut *connection).await?;
    let known = known.unwrap_or(last);
    if known >= first {
        sqlx::query("DELETE FROM events WHERE id <= $1").bind(known).execute(connection).await?;
    }
    Ok(missed)
}

impl Store {
    /// The events after the one with the number `told`, oldest first, at most `most`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn events_after(&self, told: i64, most: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query("SELECT id, at, kind, data FROM events WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(told)
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Event {
                    id: column(row, "id")?,
                    at: unsigned(row, "at")?,
                    kind: column::<&str>(row, "kind")?.parse()?,
                    data: json(column(row, "data")?, "an event")?,
                })
            })
            .collect()
    }
}
