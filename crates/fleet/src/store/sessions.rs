//! Multicast sessions, and what devices lack of the objects that they wait for.

use super::{Store, StoreError, column, json, sql, to_json, unsigned};
use crate::lacking::Lacking;
use sqlx::sqlite::SqliteRow;
use zeroize::Zeroizing;

/// Sessions of a task that are shown.
const SHOWN: i64 = 20;

/// A multicast session for an object of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its number.
    pub id: i64,
    /// The task.
    pub task: i64,
    /// Which object of the task.
    pub position: usize,
    /// When it was called.
    pub called: u64,
    /// Devices that it was called for.
    pub expected: u64,
    /// How often it has begun.
    pub runs: u64,
    /// Its keys are derived from this; `None` once it is over.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// When it was over.
    pub ended: Option<u64>,
    /// What came of it, as its server wrote it; empty until it is over.
    pub figures: String,
}

/// A device that could take part in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub device: String,
    /// Whether it has yet to check in for its task.
    pub waits: bool,
    /// What it said it lacks of this object; `None`: nothing of it is known to be there.
    pub lacks: Option<Lacking>,
}

/// Where a task's multicast stands: which object, and what counts as lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where {
    /// The task.
    pub task: i64,
    /// Which object of it.
    pub position: usize,
    /// Devices that were heard of since then.
    pub heard: u64,
    /// When the last session for this object was over; 0 if there was none.
    pub ended: u64,
}

const SELECT: &str =
    "SELECT id, task, position, called, expected, runs, secret, ended, figures FROM sessions";

/// Agents of a task that were heard of.
const AGENTS: &str = "FROM actions a JOIN devices d ON d.id = a.device \
                      WHERE a.task = $1 AND a.newest = 1 AND d.state = 'accepted' AND d.last_seen >= $2 \
                      AND d.attributes LIKE '%\"mcp.multicast\"%'";

fn place(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

impl StoredSession {
    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: column(row, "id")?,
            task: column(row, "task")?,
            position: usize::try_from(unsigned(row, "position")?).unwrap_or(usize::MAX),
            called: unsigned(row, "called")?,
            expected: unsigned(row, "expected")?,
            runs: unsigned(row, "runs")?,
            secret: column::<Option<Vec<u8>>>(row, "secret")?.map(Zeroizing::new),
            ended: super::optional_unsigned(row, "ended")?,
            figures: column(row, "figures")?,
        })
    }
}

impl Store {
    /// Notes a session before it begins.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn call_session(
        &self,
        (task, position): (i64, usize),
        expected: u64,
        secret: Zeroizing<Vec<u8>>,
        now: u64,
    ) -> Result<StoredSession, StoreError> {
        let id = self
            .write(move |connection| {
                Box::pin(async move {
                    let (id,): (i64,) = sqlx::query_as(
                        "INSERT INTO sessions (task, position, called, expected, runs, secret) \
                         VALUES ($1, $2, $3, $4, 1, $5) RETURNING id",
                    )
                    .bind(task)
                    .bind(place(position))
                    .bind(sql(now))
                    .bind(sql(expected))
                    .bind(secret.as_slice())
                    .fetch_one(connection)
                    .await?;
                    Ok(id)
                })
            })
            .await?;
        let row = sqlx::query(&format!("{SELECT} WHERE id = $1")).bind(id).fetch_one(&self.readers).await?;
        StoredSession::read(&row)
    }

    /// Notes that sessions which a server left open begin once more, and returns them, the oldest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn take_up_sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        self.write(|connection| {
            Box::pin(async move {
                sqlx::query("UPDATE sessions SET runs = runs + 1 WHERE ended IS NULL")
                    .execute(&mut *connection)
                    .await?;
                let rows = sqlx::query(&format!("{SELECT} WHERE ended IS NULL ORDER BY id"))
                    .fetch_all(connection)
                    .await?;
                rows.iter().map(StoredSession::read).collect()
            })
        })
        .await
    }

    /// Notes that a session is over, and forgets its keys.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn end_session(&self, id: i64, figures: String, now: u64) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE sessions SET ended = $2, secret = NULL, figures = $3 WHERE id = $1 AND ended IS NULL",
                )
                .bind(id)
                .bind(sql(now))
                .bind(figures)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// The newest sessions of a task, the oldest of them first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn sessions_of_task(&self, task: i64) -> Result<Vec<StoredSession>, StoreError> {
        let rows = sqlx::query(&format!("{SELECT} WHERE task = $1 ORDER BY id DESC LIMIT $2"))
            .bind(task)
            .bind(SHOWN)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().rev().map(StoredSession::read).collect()
    }

    /// When the last session for an object of a task was called, and when it was over; `None` if there was none.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn last_session(&self, task: i64, position: usize) -> Result<Option<(u64, u64)>, StoreError> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT called, ended FROM sessions WHERE task = $1 AND position = $2 AND ended IS NOT NULL \
             ORDER BY id DESC LIMIT 1",
        )
        .bind(task)
        .bind(place(position))
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map(|(called, ended)| (called.unsigned_abs(), ended.unsigned_abs())))
    }

    /// Notes what a device lacks of the object that it waits for. `None`: it waits for none any more.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn lacks(
        &self,
        action: i64,
        lacks: Option<(usize, Lacking)>,
        now: u64,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let (position, ranges) = lacks.map(|(position, ranges)| (place(position), ranges)).unzip();
                sqlx::query("UPDATE actions SET position = $2, lacks = $3, said = $4 WHERE id = $1")
                    .bind(action)
                    .bind(position)
                    .bind(ranges.map(|ranges| to_json(&ranges)))
                    .bind(sql(now))
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// The devices that could take part in a session: agents that were heard of lately, and have either not checked in for
    /// the task yet, or have just taken it, or wait for this object or an earlier one. After a session, those that have not asked since do not count.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn candidates(&self, at: Where) -> Result<Vec<Candidate>, StoreError> {
        let rows: Vec<(String, String, Option<i64>, Option<String>)> = sqlx::query_as(&format!(
            "SELECT a.device, a.state, a.position, a.lacks {AGENTS} \
             AND (a.state = 'waiting' OR (a.state = 'running' AND \
             (a.said IS NULL OR a.position < $3 OR (a.position = $3 AND a.said >= $4))))"
        ))
        .bind(at.task)
        .bind(sql(at.heard))
        .bind(place(at.position))
        .bind(sql(at.ended))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(device, state, position, lacks)| {
                let lacks = lacks.filter(|_| position == Some(place(at.position)));
                let lacks = lacks.map(|text| json(&text, "what a device lacks")).transpose()?;
                Ok(Candidate { device, waits: state == "waiting", lacks })
            })
            .collect()
    }

    /// How many devices wait for an object, were heard of, and have not said since the last session what they lack.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn unheard(&self, at: Where) -> Result<u64, StoreError> {
        let (count,): (i64,) = sqlx::query_as(&format!(
            "SELECT COUNT(*) {AGENTS} AND a.state = 'running' AND a.position = $3 AND a.said < $4"
        ))
        .bind(at.task)
        .bind(sql(at.heard))
        .bind(place(at.position))
        .bind(sql(at.ended))
        .fetch_one(&self.readers)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// Waits no longer for those devices.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn give_up_unheard(&self, at: Where) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE actions SET position = NULL WHERE task = $1 AND position = $2 AND said < $3",
                )
                .bind(at.task)
                .bind(place(at.position))
                .bind(sql(at.ended))
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }
}
