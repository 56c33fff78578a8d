//! Who did what.

use super::database::Connection;
use super::{Store, StoreError, column, sql, unsigned};
use serde::{Deserialize, Serialize};

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: u64,
    /// An operator's name, `device NAME`, or `server`.
    pub who: String,
    /// From where.
    pub address: String,
    /// What: `add task`, `accept device`...
    pub what: String,
    /// To what.
    pub subject: String,
}

/// Adds an entry.
pub(super) async fn note(connection: &mut Connection, entry: AuditEntry) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit (at, who, address, what, subject) VALUES ($1, $2, $3, $4, $5)")
        .bind(sql(entry.at))
        .bind(entry.who)
        .bind(entry.address)
        .bind(entry.what)
        .bind(entry.subject)
        .execute(connection)
        .await?;
    Ok(())
}

impl Store {
    /// The same store. Each change that succeeds is in the audit trail, by the same commit.
    #[must_use]
    pub fn audited(&self, entry: AuditEntry) -> Self {
        Self { audit: Some(entry), ..self.clone() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.audited(entry).noted().await
    }

    /// Adds the entry of this store, for what changes nothing in the database.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn noted(&self) -> Result<(), StoreError> {
        self.write(|_| Box::pin(async { Ok(()) })).await
    }

    /// The newest entries, newest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn audit_trail(&self, most: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query("SELECT at, who, address, what, subject FROM audit ORDER BY id DESC LIMIT $1")
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditEntry {
                    at: unsigned(row, "at")?,
                    who: column(row, "who")?,
                    address: column(row, "address")?,
                    what: column(row, "what")?,
                    subject: column(row, "subject")?,
                })
            })
            .collect()
    }
}
