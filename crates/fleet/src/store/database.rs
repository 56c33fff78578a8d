//! Which database the store is in, and how it is opened: a file of SQLite, or PostgreSQL.
//!
//! The queries are those of both. What differs is here: how a connection is set up, how a transaction begins, and the types of
//! columns.

use super::{PATIENCE, READERS, StoreError};
use sqlx::Executor as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) type Connection = sqlx::AnyConnection;
pub(super) type Pool = sqlx::AnyPool;
pub(super) type Row = sqlx::any::AnyRow;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite.
    File(PathBuf),
    /// A database of PostgreSQL, by its URL, which may hold a password.
    Postgres(String),
}

impl FromStr for Database {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        let usable = known && AnyConnectOptions::from_str(text).is_ok();
        usable.then(|| Self::Postgres(text.to_owned())).ok_or("expected postgres://USER@HOST/DATABASE")
    }
}

/// Without what may be secret.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => {
                let place = url.split_once("://").map_or("", |(_, place)| place);
                let place = place.split(['?', '#']).next().unwrap_or_default();
                write!(f, "postgres://{}", place.rsplit_once('@').map_or(place, |(_, host)| host))
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Database {
    /// Connections that write, of which there is one, and connections that read.
    pub(super) async fn connect(&self) -> Result<(Pool, Pool), StoreError> {
        sqlx::any::install_default_drivers();
        let options = match self {
            Self::File(path) => sqlite(path, "rwc")?,
            Self::Postgres(url) => AnyConnectOptions::from_str(url)?,
        };
        let pool = |most| {
            let pool = AnyPoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
            let pool = pool.idle_timeout(None).max_lifetime(None);
            match self {
                Self::File(_) => pool.test_before_acquire(false).after_connect(|connection, _| {
                    Box::pin(async move {
                        connection.execute("PRAGMA journal_mode = WAL").await?;
                        connection.execute("PRAGMA synchronous = FULL").await?;
                        // Keys of sessions that are over are not left in free pages.
                        connection.execute("PRAGMA secure_delete = ON").await.map(drop)
                    })
                }),
                // Whoever has the right to write and falls silent loses it, so that other servers go on.
                Self::Postgres(_) => pool.after_connect(|connection, _| {
                    Box::pin(async move {
                        let patience = PATIENCE.as_millis();
                        connection.execute(&*format!("SET statement_timeout = {patience}")).await?;
                        let silence = format!("SET idle_in_transaction_session_timeout = {}", 2 * patience);
                        connection.execute(&*silence).await?;
                        Ok(())
                    })
                }),
            }
        };
        Ok((pool(1).connect_with(options.clone()).await?, pool(READERS).connect_with(options).await?))
    }
}

/// Options for a file of SQLite in this mode: `rwc` creates it.
pub(super) fn sqlite(path: &Path, mode: &str) -> Result<AnyConnectOptions, StoreError> {
    let name = path.to_str().ok_or_else(|| StoreError::conflict("the database's path is not UTF-8"))?;
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    Ok(AnyConnectOptions::from_str(&format!("sqlite:{name}?mode={mode}"))?)
}

fn is_postgres(connection: &Connection) -> bool {
    connection.backend_name() == "PostgreSQL"
}

/// How a transaction that writes begins: with the right to write, which one connection has at a time, and not with a
/// reader's that has to wait for it later. With PostgreSQL it is a lock, released with the transaction; its number is the
/// port of mcp, and means nothing.
pub(super) async fn begin(connection: &mut Connection) -> Result<(), sqlx::Error> {
    if is_postgres(connection) {
        connection.execute("BEGIN").await?;
        connection.execute("SELECT pg_advisory_xact_lock(7417)").await.map(drop)
    } else {
        connection.execute("BEGIN IMMEDIATE").await.map(drop)
    }
}

/// The text of a migration, which is written for SQLite, for this connection. Names are compared byte by byte, as SQLite does.
pub(super) fn migration(text: &'static str, connection: &Connection) -> Cow<'static, str> {
    if !is_postgres(connection) {
        return Cow::Borrowed(text);
    }
    let number = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT";
    let text = text.replace(number, "BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY");
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let typed =
        words.map(|word| match word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            "BLOB" => word.replace("BLOB", "BYTEA"),
            "TEXT" => word.replace("TEXT", "TEXT COLLATE \"C\""),
            _ => word.to_owned(),
        });
    Cow::Owned(typed.collect())
}
