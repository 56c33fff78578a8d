//! Tasks as operators signed them, what the server alone decides about them, and their objects.

use super::assign::{Receiver, Receivers, insert_action, receivers};
use super::database::{Connection, Row};
use super::events::{self, EventKind};
use super::rollouts::{GroupCounts, Rollout, divide, drop_later, excuse, rollouts};
use super::terms::Terms;
use super::{Store, StoreError, column, json, sql, to_json, unsigned, words};
use crate::documents::{Envelope, Task};
use crate::objects::ObjectHashes;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

words! {
    /// Whether a task's actions are offered.
    TaskState {
        /// They are.
        Running = "running",
        /// Those that have not begun are held back.
        Paused = "paused",
        /// None is offered any more.
        Cancelled = "cancelled",
    }
}

/// A task as it was signed.
#[derive(Clone, Debug)]
pub struct TaskDocument {
    /// What was signed.
    pub task: Task,
    /// With signatures.
    pub envelope: Envelope,
    /// What the server alone decides.
    pub terms: Terms,
    /// The files, in the task's order.
    pub objects: Vec<StoredObject>,
}

/// A file of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name for devices.
    pub filename: String,
    /// Its size and hashes.
    pub hashes: ObjectHashes,
}

/// A task to be added.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What was signed.
    pub task: Task,
    /// With signatures, which the caller has checked.
    pub envelope: Envelope,
    /// What the server alone decides.
    pub terms: Terms,
    /// The signed task that undoes it, if there is one. The caller has checked it too.
    pub rollback: Option<Envelope>,
    /// The operator.
    pub by: String,
}

/// A task in the table.
#[derive(Clone, Debug)]
pub struct StoredTask {
    /// Its number.
    pub id: i64,
    /// Whether it is offered.
    pub state: TaskState,
    /// When it was added.
    pub created: u64,
    /// By whom.
    pub by: String,
    /// What was signed.
    pub document: Arc<TaskDocument>,
    /// Its devices by the state of their newest action; those whose group does not have it yet are [`LATER`].
    pub counts: Counts,
    /// How far it is, if it is given out in groups.
    pub rollout: Option<Rollout>,
    /// Whether there is a task that undoes it.
    pub rollback: bool,
}

/// How many devices are in each state, by the state's word.
pub type Counts = BTreeMap<String, u64>;

/// The word for devices whose group does not have the task yet.
pub const LATER: &str = "later";

/// The hash of an object as the database has it.
fn object_hashes(row: &Row) -> Result<ObjectHashes, StoreError> {
    let hash: String = column(row, "hash")?;
    Ok(ObjectHashes {
        size: unsigned(row, "size")?,
        blake3: blake3::Hash::from_hex(hash).map_err(|_| StoreError::damaged("an object's hash"))?,
        sha256: column(row, "sha256")?,
        sha1: column(row, "sha1")?,
        md5: column(row, "md5")?,
    })
}

impl Store {
    /// Notes an object whose bytes are in the directory of objects.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn add_object(&self, hashes: &ObjectHashes, now: u64) -> Result<(), StoreError> {
        let hashes = hashes.clone();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO objects (hash, size, sha256, sha1, md5, created) VALUES ($1, $2, $3, $4, $5, $6) \
                     ON CONFLICT (hash) DO NOTHING",
                )
                .bind(hashes.blake3.to_string())
                .bind(sql(hashes.size))
                .bind(hashes.sha256)
                .bind(hashes.sha1)
                .bind(hashes.md5)
                .bind(sql(now))
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// An object that was noted.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn object(&self, hash: &blake3::Hash) -> Result<Option<ObjectHashes>, StoreError> {
        let row = sqlx::query("SELECT hash, size, sha256, sha1, md5 FROM objects WHERE hash = $1")
            .bind(hash.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(object_hashes).transpose()
    }

    /// The objects of the tasks that are neither cancelled nor expired, in no order.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn wanted_objects(&self, now: u64) -> Result<Vec<blake3::Hash>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT o.object FROM task_objects o JOIN tasks t ON t.id = o.task \
             WHERE t.state <> 'cancelled' AND t.expires > $1",
        )
        .bind(sql(now))
        .fetch_all(&self.readers)
        .await?;
        let hash = |(hash,): (String,)| {
            blake3::Hash::from_hex(&hash).map_err(|_| StoreError::damaged("an object's hash"))
        };
        rows.into_iter().map(hash).collect()
    }

    /// Adds a task, and an action for each accepted device that it is meant for. Earlier tasks of the same name end: what
    /// has not begun is cancelled, and devices that have begun are asked to stop. Returns the task's number; the same
    /// task added again is not added twice.
    ///
    /// # Errors
    ///
    /// If an object was not noted or has another size, the serial is not higher than those of the name, or the database
    /// fails.
    pub async fn add_task(&self, new: NewTask, now: u64) -> Result<i64, StoreError> {
        self.write(move |connection| Box::pin(add_task(connection, new, Receivers::Audience, now))).await
    }

    /// The document of a task.
    ///
    /// # Errors
    ///
    /// If there is no such task, or the database fails.
    pub async fn document(&self, id: i64) -> Result<Arc<TaskDocument>, StoreError> {
        if let Some(known) = self.cached(id) {
            return Ok(known);
        }
        let mut connection = self.readers.acquire().await?;
        self.load_document(&mut connection, id).await
    }

    fn cached(&self, id: i64) -> Option<Arc<TaskDocument>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(super) async fn load_document(
        &self,
        connection: &mut Connection,
        id: i64,
    ) -> Result<Arc<TaskDocument>, StoreError> {
        /// Documents kept in memory. Tasks that are over are not asked for any more, so it is emptied now and then.
        const KEPT: usize = 512;
        if let Some(known) = self.cached(id) {
            return Ok(known);
        }
        let row = sqlx::query("SELECT envelope, terms FROM tasks WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(|| StoreError::missing(format!("task {id}; 'mcp task list' shows them")))?;
        let objects = sqlx::query(
            "SELECT t.filename, o.hash, o.size, o.sha256, o.sha1, o.md5 FROM task_objects t \
             JOIN objects o ON o.hash = t.object WHERE t.task = $1 ORDER BY t.position",
        )
        .bind(id)
        .fetch_all(connection)
        .await?;
        let objects = objects
            .iter()
            .map(|row| Ok(StoredObject { filename: column(row, "filename")?, hashes: object_hashes(row)? }))
            .collect::<Result<_, StoreError>>()?;
        let envelope = Envelope::parse(column(&row, "envelope")?).map_err(StoreError::damaged)?;
        let task = Task::parse(envelope.payload()).map_err(StoreError::damaged)?;
        let terms = json(column(&row, "terms")?, "a task's terms")?;
        let document = Arc::new(TaskDocument { task, envelope, terms, objects });
        let mut kept = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(id, Arc::clone(&document));
        Ok(document)
    }

    /// All tasks with their counts, newest first; one of them, if it is named.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn tasks(&self, only: Option<i64>) -> Result<Vec<StoredTask>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, state, created, created_by, CASE WHEN rollback IS NULL THEN 0 ELSE 1 END AS rollback FROM tasks \
             WHERE $1 IS NULL OR id = $1 ORDER BY id DESC LIMIT 1000",
        )
        .bind(only)
        .fetch_all(&self.readers)
        .await?;
        let counted: Vec<(i64, String, i64)> = sqlx::query_as(
            "SELECT task, state, COUNT(*) FROM actions WHERE newest = 1 AND ($1 IS NULL OR task = $1) GROUP BY task, state",
        )
        .bind(only)
        .fetch_all(&self.readers)
        .await?;
        let mut counts = BTreeMap::<i64, Counts>::new();
        for (task, state, count) in counted {
            counts.entry(task).or_default().insert(state, count.unsigned_abs());
        }
        let mut rollouts = rollouts(&mut *self.readers.acquire().await?, only).await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = column(row, "id")?;
            let document = self.document(id).await?;
            let mut counts = counts.remove(&id).unwrap_or_default();
            let groups = document.terms.groups.len();
            let rollout = rollouts.remove(&id).filter(|_| groups > 0).map(|mut rollout| {
                rollout.groups.resize(groups + 1, GroupCounts::default());
                rollout
            });
            let later =
                |rollout: &Rollout| rollout.groups.iter().skip(rollout.open + 1).map(|g| g.devices).sum();
            let later: u64 = rollout.as_ref().map_or(0, later);
            if later > 0 {
                counts.insert(LATER.into(), later);
            }
            tasks.push(StoredTask {
                id,
                state: column::<String>(row, "state")?.parse()?,
                created: unsigned(row, "created")?,
                by: column(row, "created_by")?,
                document,
                counts,
                rollout,
                rollback: column::<i64>(row, "rollback")? == 1,
            });
        }
        Ok(tasks)
    }

    /// The highest serial of a name; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn serial(&self, name: &str) -> Result<u64, StoreError> {
        let (serial,): (Option<i64>,) = sqlx::query_as("SELECT MAX(serial) FROM tasks WHERE name = $1")
            .bind(name)
            .fetch_one(&self.readers)
            .await?;
        Ok(serial.unwrap_or(0).unsigned_abs())
    }

    /// Pauses a task or lets it go on, in spite of the devices where it has failed so far.
    ///
    /// # Errors
    ///
    /// If there is no such task, it was cancelled, or the database fails.
    pub async fn pause_task(&self, id: i64, paused: bool, now: u64) -> Result<(), StoreError> {
        let (state, event) = match paused {
            true => (TaskState::Paused, EventKind::TaskPaused),
            false => (TaskState::Running, EventKind::TaskResumed),
        };
        let by = self.by();
        self.write(move |connection| {
            Box::pin(async move {
                let before = task_state(connection, id).await?;
                if before == TaskState::Cancelled {
                    return Err(StoreError::conflict(format!("task {id} was cancelled; add it again")));
                }
                sqlx::query("UPDATE tasks SET state = $2, held = NULL WHERE id = $1")
                    .bind(id)
                    .bind(state.as_str())
                    .execute(&mut *connection)
                    .await?;
                if !paused {
                    excuse(connection, id).await?;
                }
                if before == state {
                    return Ok(());
                }
                events::of_task(connection, event, id, (&by, ""), now).await
            })
        })
        .await
    }

    /// Cancels a task: what has not begun is over, and devices that have begun are asked to stop.
    ///
    /// # Errors
    ///
    /// If there is no such task, or the database fails.
    pub async fn cancel_task(&self, id: i64, now: u64) -> Result<(), StoreError> {
        let by = self.by();
        self.write(move |connection| {
            Box::pin(async move {
                task_state(connection, id).await?;
                end_task(connection, id, (&by, "cancelled by the operator"), now).await
            })
        })
        .await
    }
}

pub(super) async fn task_state(connection: &mut Connection, id: i64) -> Result<TaskState, StoreError> {
    let row: Option<(String,)> =
        sqlx::query_as("SELECT state FROM tasks WHERE id = $1").bind(id).fetch_optional(connection).await?;
    row.ok_or_else(|| StoreError::missing(format!("task {id}; 'mcp task list' shows them")))?.0.parse()
}

/// Ends a task: it offers nothing any more.
async fn end_task(
    connection: &mut Connection,
    id: i64,
    (by, why): (&str, &str),
    now: u64,
) -> Result<(), StoreError> {
    let ended = sqlx::query("UPDATE tasks SET state = 'cancelled' WHERE id = $1 AND state <> 'cancelled'")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    // What was begun is the device's to end.
    let changed = sqlx::query(
        "UPDATE actions SET state = CASE state WHEN 'running' THEN 'cancelling' ELSE 'cancelled' END, updated = $2, \
         message = $3 WHERE task = $1 AND state IN ('waiting', 'confirming', 'running')",
    )
    .bind(id)
    .bind(sql(now))
    .bind(why)
    .execute(&mut *connection)
    .await?;
    drop_later(connection, Some(id), now).await?;
    if ended.rows_affected() > 0 {
        events::of_task(connection, EventKind::TaskCancelled, id, (by, why), now).await?;
    }
    if changed.rows_affected() > 0 { events::if_over(connection, id, now).await } else { Ok(()) }
}

pub(super) async fn add_task(
    connection: &mut Connection,
    new: NewTask,
    to: Receivers,
    now: u64,
) -> Result<i64, StoreError> {
    let NewTask { task, envelope, terms, rollback, by } = new;
    let earlier: Vec<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT id, serial, hash FROM tasks WHERE name = $1 ORDER BY serial")
            .bind(&task.name)
            .fetch_all(&mut *connection)
            .await?;
    let serial = i64::try_from(task.serial).map_err(|_| StoreError::conflict("the serial is beyond 2^63"))?;
    let hash = envelope.hash().0.to_vec();
    if let Some((id, _, _)) = earlier.iter().find(|(_, s, h)| *s == serial && *h == hash) {
        return Ok(*id);
    }
    if let Some((_, newest, _)) = earlier.last().filter(|(_, newest, _)| *newest >= serial) {
        return Err(StoreError::conflict(format!(
            "task {} has serial {newest} already; sign it with a higher one than that",
            task.name
        )));
    }
    let (id,): (i64,) = sqlx::query_as(
        "INSERT INTO tasks (name, serial, envelope, hash, version, expires, terms, weight, state, created, created_by, \
         rollback) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'running', $9, $10, $11) RETURNING id",
    )
    .bind(&task.name)
    .bind(serial)
    .bind(envelope.to_bytes())
    .bind(&hash)
    .bind(&task.version)
    .bind(sql(task.expires))
    .bind(to_json(&terms))
    .bind(i64::from(terms.weight))
    .bind(sql(now))
    .bind(&by)
    .bind(rollback.map(|envelope| envelope.to_bytes()))
    .fetch_one(&mut *connection)
    .await?;
    for (position, object) in (0_i64..).zip(&task.objects) {
        let known: Option<(i64, String)> = sqlx::query_as("SELECT size, sha256 FROM objects WHERE hash = $1")
            .bind(object.blake3.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        let (size, sha256) =
            known.ok_or_else(|| StoreError::missing(format!("object {}; upload it first", object.blake3)))?;
        if size.unsigned_abs() != object.size || sha256 != object.sha256.to_string() {
            return Err(StoreError::conflict(format!(
                "{} has another size or SHA-256 than the task says; sign the task again",
                object.filename
            )));
        }
        sqlx::query("INSERT INTO task_objects (task, position, filename, object) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(position)
            .bind(&object.filename)
            .bind(object.blake3.to_string())
            .execute(&mut *connection)
            .await?;
    }
    let why = match to {
        Receivers::Audience => "replaced by a newer task of this name",
        Receivers::Begun(_) => "rolled back by the operator",
    };
    for (older, _, _) in earlier {
        end_task(connection, older, (&by, why), now).await?;
    }
    let receivers = receivers(connection, &task, &terms, &to).await?;
    if terms.groups.is_empty() && matches!(to, Receivers::Audience) {
        for Receiver { device, confirm } in receivers {
            insert_action(connection, id, &device, confirm, now).await?;
        }
    } else {
        divide(connection, (id, &hash), &terms.groups, receivers, now).await?;
    }
    events::of_task(connection, EventKind::TaskAdded, id, (&by, ""), now).await?;
    Ok(id)
}
