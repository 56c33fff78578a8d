//! The actions of devices: what waits for one, how it begins, how it is tried again.

use super::database::{Connection, Row};
use super::events;
use super::rollouts::drop_later;
use super::{ActionState, Amount, Store, StoreError, TaskState, column, optional_unsigned, sql, unsigned};
use serde::{Deserialize, Serialize};

/// An action: one attempt of a device at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its number, which the device sees.
    pub id: i64,
    /// The task.
    pub task: i64,
    /// The device.
    pub device: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Its state.
    pub state: ActionState,
    /// The state of its task.
    pub task_state: TaskState,
    /// When the device first knew its terms.
    pub begun: Option<u64>,
    /// When the device said that it has the bytes.
    pub downloaded: Option<u64>,
    /// When it last changed.
    pub updated: u64,
    /// What was said last, for people.
    pub message: String,
    /// The device's code of the last feedback.
    pub code: Option<i64>,
    /// Steps done, of all steps, by the last feedback.
    pub progress: Option<(u64, u64)>,
}

/// What [`Store::begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The device knows the terms now, or did before.
    Running,
    /// The action changed meanwhile, or as many devices as the task allows are at it.
    No,
}

const SELECT: &str = "SELECT a.id, a.task, a.device, a.attempt, a.state, t.state AS task_state, a.begun, a.downloaded, \
                      a.updated, a.message, a.code, a.done, a.of FROM actions a JOIN tasks t ON t.id = a.task";

impl Action {
    /// Whether the device may begin it, or has: a signed list names its task.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.state {
            ActionState::Running => true,
            ActionState::Waiting => self.task_state == TaskState::Running,
            _ => false,
        }
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let (done, of) = (optional_unsigned(row, "done")?, optional_unsigned(row, "of")?);
        Ok(Self {
            id: column(row, "id")?,
            task: column(row, "task")?,
            device: column(row, "device")?,
            attempt: u32::try_from(unsigned(row, "attempt")?).unwrap_or(u32::MAX),
            state: column::<String>(row, "state")?.parse()?,
            task_state: column::<String>(row, "task_state")?.parse()?,
            begun: optional_unsigned(row, "begun")?,
            downloaded: optional_unsigned(row, "downloaded")?,
            updated: unsigned(row, "updated")?,
            message: column(row, "message")?,
            code: column(row, "code")?,
            progress: done.zip(of),
        })
    }
}

/// The action of this number, if it is the device's.
pub(super) async fn action_of(
    connection: &mut Connection,
    device: &str,
    id: i64,
) -> Result<Option<Action>, StoreError> {
    let row = sqlx::query(&format!("{SELECT} WHERE a.id = $1 AND a.device = $2"))
        .bind(id)
        .bind(device)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(Action::read).transpose()
}

impl Store {
    /// What is open for a device: highest weight first, then the oldest.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn open_actions(&self, device: &str) -> Result<Vec<Action>, StoreError> {
        let rows = sqlx::query(&format!(
            "{SELECT} WHERE a.device = $1 AND a.state IN ('waiting', 'confirming', 'running', 'cancelling') \
             ORDER BY t.weight DESC, a.id"
        ))
        .bind(device)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(Action::read).collect()
    }

    /// The action of this number, if it is the device's.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn action(&self, device: &str, id: i64) -> Result<Option<Action>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        action_of(&mut connection, device, id).await
    }

    /// The newest action of each device for a task, by device.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn actions_of_task(&self, task: i64) -> Result<Vec<Action>, StoreError> {
        let rows = sqlx::query(&format!("{SELECT} WHERE a.task = $1 AND a.newest = 1 ORDER BY a.device"))
            .bind(task)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(Action::read).collect()
    }

    /// The newest actions of a device, latest first, at most `most`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn actions_of_device(&self, device: &str, most: u32) -> Result<Vec<Action>, StoreError> {
        let rows = sqlx::query(&format!(
            "{SELECT} WHERE a.device = $1 AND a.newest = 1 ORDER BY a.id DESC LIMIT $2"
        ))
        .bind(device)
        .bind(i64::from(most))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(Action::read).collect()
    }

    /// Whether the device has an open action whose task has this object and that may load it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn may_load(&self, device: &str, object: &blake3::Hash) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT 1 FROM actions a JOIN task_objects o ON o.task = a.task \
             WHERE a.device = $1 AND o.object = $2 AND a.state IN ('waiting', 'running', 'cancelling') LIMIT 1",
        )
        .bind(device)
        .bind(object.to_string())
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.is_some())
    }

    /// The newest action of a device for a task.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn action_for(&self, device: &str, task: i64) -> Result<Option<Action>, StoreError> {
        let row = sqlx::query(&format!("{SELECT} WHERE a.task = $1 AND a.device = $2 AND a.newest = 1"))
            .bind(task)
            .bind(device)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(Action::read).transpose()
    }

    /// How many devices are at a task.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn under_way(&self, task: i64) -> Result<u64, StoreError> {
        let (count,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM actions WHERE task = $1 AND state IN ('running', 'cancelling')",
        )
        .bind(task)
        .fetch_one(&self.readers)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// At how many devices a task may be under way at once; `None`: at any number. A share of the devices that have the
    /// task or will get it is rounded down, but one may always.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn most_at_once(&self, task: i64, at_once: Amount) -> Result<Option<u64>, StoreError> {
        let share = match at_once {
            Amount::Devices(0) => return Ok(None),
            Amount::Devices(n) => return Ok(Some(n.into())),
            Amount::Share(share) => share,
        };
        let (all,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) + (SELECT COUNT(*) FROM grouped g JOIN tasks t ON t.id = g.task \
             WHERE g.task = $1 AND g.position > t.open_group) FROM actions WHERE task = $1 AND newest = 1",
        )
        .bind(task)
        .fetch_one(&self.readers)
        .await?;
        Ok(Some(share.within(all.unsigned_abs()).max(1)))
    }

    /// The device's newest action for the newest task of this name; `None` if no task of the name was ever for it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn action_named(&self, device: &str, name: &str) -> Result<Option<Action>, StoreError> {
        let row = sqlx::query(&format!(
            "{SELECT} WHERE a.device = $1 AND a.newest = 1 AND t.name = $2 ORDER BY t.serial DESC LIMIT 1"
        ))
        .bind(device)
        .bind(name)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(Action::read).transpose()
    }

    /// The version of the task of this name that the device completed last; `None` if there is none. What it was only to load does not count.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn completed_version(&self, device: &str, name: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT t.version FROM actions a JOIN tasks t ON t.id = a.task \
             WHERE a.device = $1 AND t.name = $2 AND a.state = 'finished' \
             AND t.terms NOT LIKE $3 ORDER BY t.serial DESC LIMIT 1",
        )
        .bind(device)
        .bind(name)
        .bind("%\"download_only\":true%")
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map(|(version,)| version).filter(|version| !version.is_empty()))
    }

    /// Begins an action, unless `most` devices are at its task already: from now on the device knows its terms.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn begin(&self, action: &Action, most: Option<u64>, now: u64) -> Result<Begun, StoreError> {
        let (id, task) = (action.id, action.task);
        self.write(move |connection| {
            Box::pin(async move {
                let changed = sqlx::query(
                    "UPDATE actions SET state = 'running', begun = $2, updated = $2 WHERE id = $1 AND state = 'waiting' \
                     AND ($3 IS NULL OR (SELECT COUNT(*) FROM actions WHERE task = $4 AND state IN ('running', 'cancelling')) < $3)",
                )
                .bind(id)
                .bind(sql(now))
                .bind(most.map(sql))
                .bind(task)
                .execute(&mut *connection)
                .await?;
                if changed.rows_affected() > 0 {
                    note(connection, id, "Update Server: the device retrieved the action", now).await?;
                    return Ok(Begun::Running);
                }
                let state: Option<(String,)> = sqlx::query_as("SELECT state FROM actions WHERE id = $1")
                    .bind(id)
                    .fetch_optional(connection)
                    .await?;
                Ok(if state.is_some_and(|(state,)| state == "running") { Begun::Running } else { Begun::No })
            })
        })
        .await
    }

    /// Ends an action that has not begun: the device has what the task brings, or the task expired.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn settle(&self, id: i64, state: ActionState, why: &str, now: u64) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let changed = sqlx::query(
                    "UPDATE actions SET state = $2, updated = $3, message = $4 \
                     WHERE id = $1 AND state IN ('waiting', 'confirming')",
                )
                .bind(id)
                .bind(state.as_str())
                .bind(sql(now))
                .bind(&why)
                .execute(&mut *connection)
                .await?;
                note(connection, id, &format!("Update Server: {why}"), now).await?;
                if changed.rows_affected() > 0 {
                    events::of_action(connection, id, now).await
                } else {
                    Ok(())
                }
            })
        })
        .await
    }

    /// Ends all actions that have not begun and whose task expired, and forgets what is too old. Returns which web hooks
    /// missed how many events thereby.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn expire(&self, now: u64) -> Result<Vec<(i64, u64)>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let ended: Vec<(i64,)> = sqlx::query_as(
                    "UPDATE actions SET state = 'cancelled', updated = $1, message = 'the task expired before it began' \
                     WHERE state IN ('waiting', 'confirming') AND task IN (SELECT id FROM tasks WHERE expires <= $1) \
                     RETURNING task",
                )
                .bind(sql(now))
                .fetch_all(&mut *connection)
                .await?;
                sqlx::query("DELETE FROM requests WHERE until <= $1")
                    .bind(sql(now))
                    .execute(&mut *connection)
                    .await?;
                drop_later(connection, None, now).await?;
                events::of_expiry(connection, ended.into_iter().map(|(task,)| task).collect(), now).await?;
                events::drop_old(connection, now).await
            })
        })
        .await
    }

    /// Tries a task again at the devices where it failed or was cancelled; at `device` alone, if it is named. Returns how
    /// many devices that are.
    ///
    /// # Errors
    ///
    /// If the task is not live, or the database fails.
    pub async fn retry(&self, task: i64, device: Option<&str>, now: u64) -> Result<u64, StoreError> {
        let device = device.map(str::to_owned);
        self.write(move |connection| {
            Box::pin(async move {
                let row: Option<(String, i64)> = sqlx::query_as("SELECT state, expires FROM tasks WHERE id = $1")
                    .bind(task)
                    .fetch_optional(&mut *connection)
                    .await?;
                let (state, expires) =
                    row.ok_or_else(|| StoreError::missing(format!("task {task}; 'mcp task list' shows them")))?;
                if state == "cancelled" || expires <= sql(now) {
                    return Err(StoreError::conflict(format!("task {task} is over; add it again")));
                }
                let again: Vec<(i64,)> = sqlx::query_as(
                    "UPDATE actions SET newest = 0 WHERE task = $1 AND newest = 1 AND state IN ('failed', 'cancelled') \
                     AND ($2 IS NULL OR device = $2) RETURNING id",
                )
                .bind(task)
                .bind(device)
                .fetch_all(&mut *connection)
                .await?;
                for (id,) in &again {
                    sqlx::query(
                        "UPDATE grouped SET counts = 1 WHERE task = $1 AND device = (SELECT device FROM actions WHERE id = $2)",
                    )
                    .bind(task)
                    .bind(id)
                    .execute(&mut *connection)
                    .await?;
                    sqlx::query(
                        "INSERT INTO actions (task, device, attempt, newest, state, created, updated) \
                         SELECT task, device, attempt + 1, 1, 'waiting', $2, $2 FROM actions WHERE id = $1",
                    )
                    .bind(id)
                    .bind(sql(now))
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(again.len() as u64)
            })
        })
        .await
    }
}

/// Adds a message to an action's history.
pub(super) async fn note(
    connection: &mut Connection,
    action: i64,
    text: &str,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO messages (action, at, text) VALUES ($1, $2, $3)")
        .bind(action)
        .bind(sql(now))
        .bind(text)
        .execute(connection)
        .await?;
    Ok(())
}
