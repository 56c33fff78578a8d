//! Tasks as operators signed them, what the server alone decides about them, and their objects.

use super::devices::device_of;
use super::{DeviceState, Store, StoreError, column, json, sql, to_json, unsigned, words};
use crate::ddi::Handling;
use crate::documents::{Envelope, Task};
use crate::objects::ObjectHashes;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
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

/// What the server alone decides about a task. Not signed: it says when the task is offered and how it is presented to
/// clients of the device interface, and cannot change what a device does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The chunk's part: `bApp`, `os`...
    pub part: String,
    /// How the installation is handled: forced, or attempted when it suits the device.
    pub update: Handling,
    /// Whether devices only load the objects, and install nothing.
    pub download_only: bool,
    /// Whether each device must confirm first.
    pub confirm: bool,
    /// At how many devices the task may be under way at once; 0: at any number.
    pub at_once: u32,
    /// Tasks of higher weight are offered first.
    pub weight: u16,
    /// Whether devices also load only from the task's earliest start on and in its window, in the server's time zone.
    #[serde(default)]
    pub load_in_window: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            part: "bApp".into(),
            update: Handling::Forced,
            download_only: false,
            confirm: false,
            at_once: 0,
            weight: 1000,
            load_in_window: false,
        }
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
    /// Its devices by the state of their newest action.
    pub counts: Counts,
}

/// How many devices are in each state, by the state's word.
pub type Counts = BTreeMap<String, u64>;

/// The hash of an object as the database has it.
fn object_hashes(row: &SqliteRow) -> Result<ObjectHashes, StoreError> {
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

    /// Adds a task, and an action for each accepted device that it is meant for. Earlier tasks of the same name end: what
    /// has not begun is cancelled, and devices that have begun are asked to stop. Returns the task's number; the same
    /// task added again is not added twice.
    ///
    /// # Errors
    ///
    /// If an object was not noted or has another size, the serial is not higher than those of the name, or the database
    /// fails.
    pub async fn add_task(&self, new: NewTask, now: u64) -> Result<i64, StoreError> {
        self.write(move |connection| Box::pin(add_task(connection, new, now))).await
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
        connection: &mut SqliteConnection,
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
            "SELECT id, state, created, created_by FROM tasks WHERE $1 IS NULL OR id = $1 ORDER BY id DESC LIMIT 1000",
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
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = column(row, "id")?;
            tasks.push(StoredTask {
                id,
                state: column::<String>(row, "state")?.parse()?,
                created: unsigned(row, "created")?,
                by: column(row, "created_by")?,
                document: self.document(id).await?,
                counts: counts.remove(&id).unwrap_or_default(),
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

    /// Pauses a task or lets it go on.
    ///
    /// # Errors
    ///
    /// If there is no such task, it was cancelled, or the database fails.
    pub async fn pause_task(&self, id: i64, paused: bool) -> Result<(), StoreError> {
        let state = if paused { TaskState::Paused } else { TaskState::Running };
        self.write(move |connection| {
            Box::pin(async move {
                if task_state(connection, id).await? == TaskState::Cancelled {
                    return Err(StoreError::conflict(format!("task {id} was cancelled; add it again")));
                }
                sqlx::query("UPDATE tasks SET state = $2 WHERE id = $1")
                    .bind(id)
                    .bind(state.as_str())
                    .execute(connection)
                    .await?;
                Ok(())
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
        self.write(move |connection| {
            Box::pin(async move {
                task_state(connection, id).await?;
                end_task(connection, id, "cancelled by the operator", now).await
            })
        })
        .await
    }

    /// Gives the device the tasks that are meant for it and that it has no action for, and looks again at those that it
    /// had no need for.
    pub(super) async fn assign_to_device(
        &self,
        connection: &mut SqliteConnection,
        id: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let Some(device) = device_of(connection, id).await? else { return Ok(()) };
        if device.state != DeviceState::Accepted {
            return Ok(());
        }
        let live: Vec<(i64, Option<String>)> = sqlx::query_as(
            "SELECT t.id, a.state FROM tasks t LEFT JOIN actions a ON a.task = t.id AND a.device = $1 AND a.newest = 1 \
             WHERE t.state <> 'cancelled' AND t.expires > $2 AND (a.state IS NULL OR a.state = 'unneeded') ORDER BY t.id",
        )
        .bind(id)
        .bind(sql(now))
        .fetch_all(&mut *connection)
        .await?;
        for (task, state) in live {
            let document = self.load_document(connection, task).await?;
            if !document.task.to.includes(id, &device.attributes) {
                continue;
            }
            if state.is_none() {
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

async fn task_state(connection: &mut SqliteConnection, id: i64) -> Result<TaskState, StoreError> {
    let row: Option<(String,)> =
        sqlx::query_as("SELECT state FROM tasks WHERE id = $1").bind(id).fetch_optional(connection).await?;
    row.ok_or_else(|| StoreError::missing(format!("task {id}; 'mcp task list' shows them")))?.0.parse()
}

/// Ends a task: it offers nothing any more.
async fn end_task(connection: &mut SqliteConnection, id: i64, why: &str, now: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE tasks SET state = 'cancelled' WHERE id = $1")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    // What was begun is the device's to end.
    sqlx::query(
        "UPDATE actions SET state = CASE state WHEN 'running' THEN 'cancelling' ELSE 'cancelled' END, updated = $2, \
         message = $3 WHERE task = $1 AND state IN ('waiting', 'confirming', 'running')",
    )
    .bind(id)
    .bind(sql(now))
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds the first action of a device for a task.
async fn insert_action(
    connection: &mut SqliteConnection,
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

async fn add_task(connection: &mut SqliteConnection, new: NewTask, now: u64) -> Result<i64, StoreError> {
    let NewTask { task, envelope, terms, by } = new;
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
        "INSERT INTO tasks (name, serial, envelope, hash, version, expires, terms, weight, state, created, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'running', $9, $10) RETURNING id",
    )
    .bind(&task.name)
    .bind(serial)
    .bind(envelope.to_bytes())
    .bind(hash)
    .bind(&task.version)
    .bind(sql(task.expires))
    .bind(to_json(&terms))
    .bind(i64::from(terms.weight))
    .bind(sql(now))
    .bind(by)
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
    for (older, _, _) in earlier {
        end_task(connection, older, "replaced by a newer task of this name", now).await?;
    }
    let devices: Vec<(String, String, Option<String>)> =
        sqlx::query_as("SELECT id, attributes, auto_confirm FROM devices WHERE state = 'accepted'")
            .fetch_all(&mut *connection)
            .await?;
    for (device, attributes, auto_confirm) in devices {
        let attributes = json(&attributes, "a device's attributes")?;
        if task.to.includes(&device, &attributes) {
            insert_action(connection, id, &device, terms.confirm && auto_confirm.is_none(), now).await?;
        }
    }
    Ok(id)
}
