//! Operators and their roles; the chain of roots.

use super::database::{Connection, Row};
use super::{Store, StoreError, column, sql, unsigned, words};
use crate::documents::Hash;
use serde::{Deserialize, Serialize};

words! {
    /// What an operator may do. Each may do what those before may.
    OperatorRole {
        /// Look.
        Read = "read",
        /// Add and change tasks and devices.
        Operate = "operate",
        /// Make enrolment lines, name operators, publish roots.
        Admin = "admin",
    }
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// For people, and in the audit trail.
    pub name: String,
    /// The Ed25519 key that signs the requests, in hexadecimal.
    pub public_key: String,
    /// What the operator may do.
    pub role: OperatorRole,
    /// Since when.
    pub created: u64,
}

const SELECT: &str = "SELECT name, public_key, role, created FROM operators WHERE public_key = $1";

impl Operator {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            name: column(row, "name")?,
            public_key: column(row, "public_key")?,
            role: column::<String>(row, "role")?.parse()?,
            created: unsigned(row, "created")?,
        })
    }

    /// The operator with this key, inside a change.
    pub(super) async fn with_key(
        connection: &mut Connection,
        public_key: &str,
    ) -> Result<Option<Self>, StoreError> {
        let row = sqlx::query(SELECT).bind(public_key).fetch_optional(connection).await?;
        row.as_ref().map(Self::read).transpose()
    }
}

impl Store {
    /// The operator with this key.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn operator(&self, public_key: &str) -> Result<Option<Operator>, StoreError> {
        let row = sqlx::query(SELECT).bind(public_key).fetch_optional(&self.readers).await?;
        row.as_ref().map(Operator::read).transpose()
    }

    /// All operators by name.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn operators(&self) -> Result<Vec<Operator>, StoreError> {
        let rows = sqlx::query("SELECT name, public_key, role, created FROM operators ORDER BY name")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(Operator::read).collect()
    }

    /// Notes a request of an operator until it may be forgotten. Returns whether it is the first time.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn take_request(&self, request: Hash, until: u64) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let taken = sqlx::query(
                    "INSERT INTO requests (hash, until) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING",
                )
                .bind(request.0.to_vec())
                .bind(sql(until))
                .execute(connection)
                .await?;
                Ok(taken.rows_affected() == 1)
            })
        })
        .await
    }

    /// Adds an operator, or changes key and role of one.
    ///
    /// # Errors
    ///
    /// If another operator has the key, the last admin would be gone, or the database fails.
    pub async fn put_operator(&self, operator: Operator) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO operators (name, public_key, role, created) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (name) DO UPDATE SET public_key = excluded.public_key, role = excluded.role",
                )
                .bind(operator.name)
                .bind(operator.public_key)
                .bind(operator.role.as_str())
                .bind(sql(operator.created))
                .execute(&mut *connection)
                .await?;
                an_admin_is_left(connection).await
            })
        })
        .await
    }

    /// Removes an operator.
    ///
    /// # Errors
    ///
    /// If there is none of this name, it is the last admin, or the database fails.
    pub async fn remove_operator(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let gone = sqlx::query("DELETE FROM operators WHERE name = $1")
                    .bind(&name)
                    .execute(&mut *connection)
                    .await?;
                if gone.rows_affected() == 0 {
                    return Err(StoreError::missing(format!("operator {name}")));
                }
                an_admin_is_left(connection).await
            })
        })
        .await
    }

    /// The envelope of a root.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn root(&self, version: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT envelope FROM roots WHERE version = $1")
            .bind(sql(version))
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|(envelope,)| envelope))
    }

    /// The number of the newest root; 0 before the first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn newest_root(&self) -> Result<u64, StoreError> {
        let (version,): (Option<i64>,) =
            sqlx::query_as("SELECT MAX(version) FROM roots").fetch_one(&self.readers).await?;
        Ok(version.unwrap_or(0).unsigned_abs())
    }

    /// Adds the next root, which the caller has checked.
    ///
    /// # Errors
    ///
    /// If it is not the next one, or the database fails.
    pub async fn add_root(&self, version: u64, envelope: Vec<u8>) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let (newest,): (Option<i64>,) =
                    sqlx::query_as("SELECT MAX(version) FROM roots").fetch_one(&mut *connection).await?;
                if newest.unwrap_or(0) + 1 != sql(version) {
                    return Err(StoreError::conflict(format!(
                        "root {version} is not the next one; fetch the newest"
                    )));
                }
                sqlx::query("INSERT INTO roots (version, envelope) VALUES ($1, $2)")
                    .bind(sql(version))
                    .bind(envelope)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

async fn an_admin_is_left(connection: &mut Connection) -> Result<(), StoreError> {
    let (admins,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM operators WHERE role = 'admin'").fetch_one(connection).await?;
    if admins == 0 {
        return Err(StoreError::conflict("this is the last admin; name another one first"));
    }
    Ok(())
}
