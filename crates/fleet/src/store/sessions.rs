//! Multicast sessions, and what devices lack of the objects that they wait for.

use super::database::Row;
use super::{Store, StoreError, column, json, sql, to_json, unsigned};
use crate::lacking::Lacking;
use std::net::SocketAddr;
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
    /// How it stands, or what came of it, as its server wrote it.
    pub figures: String,
    /// The server that sends it; `None`: none, and any may take it up.
    pub server: Option<String>,
    /// It counts up while that server lives.
    pub beat: u64,
    /// Where it is sent to; `None` until it is known.
    pub destination: Option<SocketAddr>,
    /// When it begins at the latest.
    pub begins: u64,
}

/// What the server of a session is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    GoOn,
    /// Begin with the devices that are there.
    Begin,
    /// End it: its task is cancelled, or another server has taken it up.
    End,
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

const SELECT: &str = "SELECT id, task, position, called, expected, runs, secret, ended, figures, server, beat, destination, \
                      begins FROM sessions";

/// Agents of a task that were heard of.
const AGENTS: &str = "FROM actions a JOIN devices d ON d.id = a.device \
                      WHERE a.task = $1 AND a.newest = 1 AND d.state = 'accepted' AND d.last_seen >= $2 \
                      AND d.attributes LIKE '%\"mcp.multicast\"%'";

fn place(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

impl StoredSession {
    fn read(row: &Row) -> Result<Self, StoreError> {
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
            server: column(row, "server")?,
            beat: unsigned(row, "beat")?,
            destination: destination(column(row, "destination")?)?,
            begins: unsigned(row, "begins")?,
        })
    }
}

fn destination(text: Option<String>) -> Result<Option<SocketAddr>, StoreError> {
    text.map(|text| text.parse().map_err(|_| StoreError::damaged("where a session is sent to"))).transpose()
}

impl Store {
    /// Notes a session that `server` calls, before it begins. `None`: another one is open, and there is one at a time.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn call_session(
        &self,
        (task, position): (i64, usize),
        expected: u64,
        secret: Zeroizing<Vec<u8>>,
        (server, now): (&str, u64),
    ) -> Result<Option<StoredSession>, StoreError> {
        let server = server.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let (open,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM sessions WHERE ended IS NULL")
                    .fetch_one(&mut *connection)
                    .await?;
                if open > 0 {
                    return Ok(None);
                }
                let (id,): (i64,) = sqlx::query_as(
                    "INSERT INTO sessions (task, position, called, expected, runs, secret, server) \
                     VALUES ($1, $2, $3, $4, 1, $5, $6) RETURNING id",
                )
                .bind(task)
                .bind(place(position))
                .bind(sql(now))
                .bind(sql(expected))
                .bind(secret.as_slice())
                .bind(server)
                .fetch_one(&mut *connection)
                .await?;
                let row =
                    sqlx::query(&format!("{SELECT} WHERE id = $1")).bind(id).fetch_one(connection).await?;
                StoredSession::read(&row).map(Some)
            })
        })
        .await
    }

    /// The sessions that are not over, the oldest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn open_sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        let open = format!("{SELECT} WHERE ended IS NULL ORDER BY id");
        let rows = sqlx::query(&open).fetch_all(&self.readers).await?;
        rows.iter().map(StoredSession::read).collect()
    }

    /// Notes that a session begins once more, at `server`. `None`: it is over, or another server was faster.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn take_up_session(
        &self,
        session: &StoredSession,
        server: &str,
    ) -> Result<Option<StoredSession>, StoreError> {
        let (id, runs, server) = (session.id, sql(session.runs), server.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                let taken = sqlx::query(
                    "UPDATE sessions SET runs = runs + 1, server = $3, destination = NULL, begin_now = 0 \
                     WHERE id = $1 AND runs = $2 AND ended IS NULL",
                )
                .bind(id)
                .bind(runs)
                .bind(server)
                .execute(&mut *connection)
                .await?;
                if taken.rows_affected() == 0 {
                    return Ok(None);
                }
                let row =
                    sqlx::query(&format!("{SELECT} WHERE id = $1")).bind(id).fetch_one(connection).await?;
                StoredSession::read(&row).map(Some)
            })
        })
        .await
    }

    /// Notes where a session is sent to, and when it begins at the latest: devices may be told of it now.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn session_starts(
        &self,
        session: &StoredSession,
        destination: SocketAddr,
        begins: u64,
    ) -> Result<(), StoreError> {
        let (id, runs) = (session.id, sql(session.runs));
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE sessions SET destination = $3, begins = $4 WHERE id = $1 AND runs = $2")
                    .bind(id)
                    .bind(runs)
                    .bind(destination.to_string())
                    .bind(sql(begins))
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// Notes that the server of a session lives, and how the session stands. Returns what the server is to do.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn beat(&self, session: &StoredSession, figures: String) -> Result<Order, StoreError> {
        let (id, runs) = (session.id, sql(session.runs));
        self.write(move |connection| {
            Box::pin(async move {
                let row: Option<(i64, String)> = sqlx::query_as(
                    "UPDATE sessions SET beat = beat + 1, figures = $3 WHERE id = $1 AND runs = $2 AND ended IS NULL \
                     RETURNING begin_now, (SELECT state FROM tasks WHERE tasks.id = sessions.task)",
                )
                .bind(id)
                .bind(runs)
                .bind(figures)
                .fetch_optional(connection)
                .await?;
                Ok(match row {
                    Some((_, state)) if state == "cancelled" => Order::End,
                    Some((begin, _)) if begin != 0 => Order::Begin,
                    Some(_) => Order::GoOn,
                    None => Order::End,
                })
            })
        })
        .await
    }

    /// Lets the sessions of a task begin with the devices that are there, whichever server sends them.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn begin_sessions(&self, task: i64) -> Result<(), StoreError> {
        self.change_sessions("SET begin_now = 1 WHERE task = $1", task).await
    }

    /// Gives the sessions of a server to any other one: it ends.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn release_sessions(&self, server: &str) -> Result<(), StoreError> {
        self.change_sessions("SET server = NULL WHERE server = $1", server.to_owned()).await
    }

    async fn change_sessions<T>(&self, change: &'static str, of: T) -> Result<(), StoreError>
    where
        T: for<'q> sqlx::Encode<'q, sqlx::Any> + sqlx::Type<sqlx::Any> + Send + 'static,
    {
        self.write(move |connection| {
            Box::pin(async move {
                let change = format!("UPDATE sessions {change} AND ended IS NULL");
                sqlx::query(&change).bind(of).execute(connection).await?;
                Ok(())
            })
        })
        .await
    }

    /// Notes that a session is over, and forgets its keys, unless another server has taken it up.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn end_session(
        &self,
        session: &StoredSession,
        figures: String,
        now: u64,
    ) -> Result<(), StoreError> {
        let (id, runs) = (session.id, sql(session.runs));
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE sessions SET ended = $3, secret = NULL, figures = $4 \
                     WHERE id = $1 AND runs = $2 AND ended IS NULL",
                )
                .bind(id)
                .bind(runs)
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
