//! What the server knows, and keeps: devices, objects, tasks, the action of each device for each task, what devices said,
//! enrolment lines, operators, and who did what. In a file of SQLite, in WAL mode, or in PostgreSQL, which several servers
//! may use (`database`).
//!
//! - One thread of control writes. Changes that are requested at the same time are committed together (`writer`), so a
//!   thousand devices that report cost a few syncs and not a thousand. A change is answered once it is on the disk.
//! - A database that is full, locked or away is [`StoreError::Away`]: nothing was changed, and the caller says "later".
//! - Which state may follow which is in [`ActionState`], which is pure.
//!
//! Times are seconds since 1970 and come from the caller.

mod action;
mod actions;
mod assign;
mod audit;
mod database;
mod devices;
mod enrolments;
mod events;
mod feedback;
mod hooks;
mod logins;
mod operators;
#[cfg(test)]
pub(crate) mod postgres;
mod rollouts;
mod schema;
mod sessions;
mod summary;
mod tasks;
mod terms;
#[cfg(test)]
mod tests;
mod writer;

pub use action::{ActionState, Answer, Report};
pub use actions::{Action, Begun};
pub use audit::AuditEntry;
pub use database::Database;
pub use devices::{Device, DeviceState};
pub use enrolments::{Enrolled, EnrolmentLine, EnrolmentUse, LineKind, NewLine};
pub use events::{Event, EventKind};
pub use hooks::{Claim, DueHook, Hook, NewHook};
pub use operators::{Operator, OperatorRole};
pub use rollouts::{GroupCounts, Rollout};
pub use sessions::{Candidate, Order, StoredSession, Where};
pub use summary::{DeviceSummary, Standing};
pub use tasks::{Counts, LATER, NewTask, StoredObject, StoredTask, TaskDocument, TaskState};
pub(crate) use terms::is_tag;
pub use terms::{Amount, Group, Percent, Terms};

use database::{Connection, Pool, Row};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a reader waits for a connection, SQLite for a lock, and PostgreSQL takes for a statement, until the database
/// counts as away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that read at the same time.
const READERS: u32 = 4;

/// Error of the store: a lowercase clause with the next step. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is full, locked, slow or gone. Nothing was changed; the same request may succeed later.
    #[error("the database is away ({0}); check that it runs, and that its disk has room")]
    Away(Arc<str>),
    /// A later version of the program made the database.
    #[error(
        "the database {database} has schema {found}, and this mcp knows only {known}; run the newer mcp, or restore a backup"
    )]
    Newer {
        /// The database.
        database: Database,
        /// Its schema.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// A row holds what the program never writes.
    #[error("the database is damaged ({0}); restore a backup")]
    Damaged(Arc<str>),
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(Arc<str>),
    /// The request contradicts what is known.
    #[error("{0}")]
    Conflict(Arc<str>),
}

impl StoreError {
    fn missing(what: impl AsRef<str>) -> Self {
        Self::Missing(what.as_ref().into())
    }
    fn conflict(why: impl AsRef<str>) -> Self {
        Self::Conflict(why.as_ref().into())
    }
    fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged(what.to_string().into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. } => Self::damaged(error),
            sqlx::Error::Configuration(why) => Self::conflict(format!("the database cannot be used: {why}")),
            sqlx::Error::Database(inner) if inner.is_unique_violation() => {
                Self::conflict("it exists already; choose another name")
            }
            _ => Self::Away(error.to_string().into()),
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    readers: Pool,
    writer: writer::Writer,
    /// Signed documents of tasks by number. They never change.
    documents: Arc<Mutex<HashMap<i64, Arc<TaskDocument>>>>,
    /// What each change is noted as in the audit trail.
    audit: Option<AuditEntry>,
}

impl Store {
    /// Opens a database, creates it if it is a file that is missing, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or a later version of the program made it.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let (writer, readers) = database.connect().await?;
        schema::migrate(&writer, database).await?;
        let documents = Arc::default();
        Ok(Self { readers, writer: writer::Writer::start(writer), documents, audit: None })
    }

    /// Writes a consistent copy of the database at `from` to `path`, which must not exist, while a server uses it. The
    /// schema stays what it is.
    ///
    /// # Errors
    ///
    /// If there is no database, it is damaged, or the copy exists or cannot be written. What was written is left for a look.
    pub async fn backup(from: &Path, path: &Path) -> Result<(), StoreError> {
        sqlx::any::install_default_drivers();
        if !from.exists() {
            let why = format!("there is no {}; 'pg_dump' copies a database of PostgreSQL", from.display());
            return Err(StoreError::conflict(why));
        }
        let mut connection = database::sqlite(from, "rw")?.connect().await?;
        let name = path.to_str().ok_or_else(|| StoreError::conflict("the backup's path is not UTF-8"))?;
        if path.exists() {
            return Err(StoreError::conflict(format!("{name} exists; choose another name for the backup")));
        }
        // A copy would look whole: it is built anew from the rows that are found.
        let (found,): (String,) =
            sqlx::query_as("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
        if found != "ok" {
            return Err(StoreError::damaged(found.replace('\n', " ")));
        }
        sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await?;
        forget_secrets(path).await?;
        let copy = std::fs::File::open(path).and_then(|file| file.sync_all());
        copy.map_err(|error| StoreError::Away(error.to_string().into()))
    }

    /// How many changes there were since it was opened, and how long they took to be on the disk, all together.
    #[must_use]
    pub fn changes(&self) -> (u64, Duration) {
        self.writer.took()
    }

    /// Waits for changes under way, and closes the database.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }

    /// Because of whom something changes.
    fn by(&self) -> String {
        self.audit.as_ref().map_or("server", |entry| entry.who.as_str()).to_owned()
    }

    /// Runs `change` in a transaction. Its error undoes what it did.
    async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> Change<'c, T> + Send + 'static,
    {
        let Some(entry) = self.audit.clone() else { return self.writer.run(change).await };
        self.writer
            .run(move |connection| {
                Box::pin(async move {
                    let value = change(&mut *connection).await?;
                    audit::note(connection, entry).await?;
                    Ok(value)
                })
            })
            .await
    }
}

/// Takes the keys of sessions out of a backup: they are of use to the present server alone.
async fn forget_secrets(backup: &Path) -> Result<(), StoreError> {
    let mut connection = database::sqlite(backup, "rw")?.connect().await?;
    sqlx::query("PRAGMA secure_delete = ON").execute(&mut connection).await?;
    // An older schema has no sessions.
    let has: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM sqlite_master WHERE name = 'sessions'")
        .fetch_optional(&mut connection)
        .await?;
    if has.is_some() {
        sqlx::query("UPDATE sessions SET secret = NULL WHERE secret IS NOT NULL")
            .execute(&mut connection)
            .await?;
    }
    Ok(connection.close().await?)
}

/// A change under way.
type Change<'c, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// A column of a row.
fn column<'r, T>(row: &'r Row, name: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(name).map_err(StoreError::from)
}

/// A time or a count of a row. Never negative in the database.
fn unsigned(row: &Row, name: &str) -> Result<u64, StoreError> {
    let value: i64 = column(row, name)?;
    u64::try_from(value).map_err(|_| StoreError::damaged(format!("{name} is negative")))
}

/// The same, which may be null.
fn optional_unsigned(row: &Row, name: &str) -> Result<Option<u64>, StoreError> {
    let value: Option<i64> = column(row, name)?;
    value
        .map(|v| u64::try_from(v).map_err(|_| StoreError::damaged(format!("{name} is negative"))))
        .transpose()
}

/// A time or a count as SQL has it. What is beyond 2^63 is taken as that.
fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// JSON of a column.
fn json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::damaged(what))
}

/// A value as JSON for a column. Maps with text keys and lists always have one.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Makes an enum whose values are words in the database and in answers.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Its word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::store::StoreError;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($crate::store::StoreError::Damaged(word.into())),
                }
            }
        }
    };
}
use words;
