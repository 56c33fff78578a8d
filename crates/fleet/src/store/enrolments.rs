//! Enrolment lines and gateway tokens. Only hashes of their tokens are kept.

use super::database::Row;
use super::devices::{device_of, put_device, room_for_one};
use super::{DeviceState, Store, StoreError, column, json, optional_unsigned, sql, to_json, unsigned, words};
use crate::limits::MAX_PENDING_DEVICES;
use serde::{Deserialize, Serialize};

words! {
    /// What a token does.
    LineKind {
        /// It enrols devices of ours, each of which gets a target token.
        Line = "line",
        /// A gateway acts with it for any device.
        Gateway = "gateway",
    }
}

/// A line to be made.
#[derive(Clone, Debug)]
pub struct NewLine {
    /// What its token does.
    pub kind: LineKind,
    /// For people.
    pub label: String,
    /// BLAKE3 of its token.
    pub token: blake3::Hash,
    /// Devices that it may enrol; `None`: any number.
    pub uses: Option<u64>,
    /// When it ends.
    pub expires: u64,
    /// Tags of the devices that it enrols.
    pub tags: Vec<String>,
    /// Whether they are accepted at once.
    pub accepts: bool,
    /// The operator.
    pub by: String,
}

/// A line in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentLine {
    /// Its number.
    pub id: i64,
    /// What its token does.
    pub kind: LineKind,
    /// For people.
    pub label: String,
    /// Devices that it may still enrol; `None`: any number.
    pub uses_left: Option<u64>,
    /// When it ends.
    pub expires: u64,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Tags of the devices that it enrols.
    pub tags: Vec<String>,
    /// Whether they are accepted at once.
    pub accepts: bool,
    /// When it was made.
    pub created: u64,
    /// By whom.
    pub by: String,
}

/// A device that presents a line's token.
#[derive(Clone, Debug)]
pub struct EnrolmentUse {
    /// BLAKE3 of the line's token.
    pub token: blake3::Hash,
    /// The device's name.
    pub device: String,
    /// The device's own key.
    pub public_key: String,
    /// BLAKE3 of the target token that it will use.
    pub target: blake3::Hash,
    /// When it asked, in seconds since 1970.
    pub time: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The device is enrolled, and is in this state.
    As(DeviceState),
    /// There is no such token, or it expired, was revoked or used up.
    NoLine,
    /// Another device has the name already.
    Taken,
    /// The device has asked again since.
    Older,
    /// The operator refused this device.
    Refused,
}

impl EnrolmentLine {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: column(row, "id")?,
            kind: column::<String>(row, "kind")?.parse()?,
            label: column(row, "label")?,
            uses_left: optional_unsigned(row, "uses_left")?,
            expires: unsigned(row, "expires")?,
            revoked: column::<i64>(row, "revoked")? != 0,
            tags: json(column(row, "tags")?, "a line's tags")?,
            accepts: column::<i64>(row, "accepts")? != 0,
            created: unsigned(row, "created")?,
            by: column(row, "created_by")?,
        })
    }
}

const COLUMNS: &str = "id, kind, label, uses_left, expires, revoked, tags, accepts, created, created_by";

impl Store {
    /// Adds a line; returns its number.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn add_line(&self, line: NewLine, now: u64) -> Result<i64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let (id,): (i64,) = sqlx::query_as(
                    "INSERT INTO enrolments (kind, label, token, uses_left, expires, tags, accepts, created, created_by) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
                )
                .bind(line.kind.as_str())
                .bind(line.label)
                .bind(line.token.as_bytes().to_vec())
                .bind(line.uses.map(sql))
                .bind(sql(line.expires))
                .bind(to_json(&line.tags))
                .bind(i64::from(line.accepts))
                .bind(sql(now))
                .bind(line.by)
                .fetch_one(connection)
                .await?;
                Ok(id)
            })
        })
        .await
    }

    /// All lines, newest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn lines(&self) -> Result<Vec<EnrolmentLine>, StoreError> {
        let rows = sqlx::query(&format!("SELECT {COLUMNS} FROM enrolments ORDER BY id DESC LIMIT 1000"))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(EnrolmentLine::read).collect()
    }

    /// Revokes a line. Devices that it enrolled stay enrolled.
    ///
    /// # Errors
    ///
    /// If there is no such line, or the database fails.
    pub async fn revoke_line(&self, id: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let changed = sqlx::query("UPDATE enrolments SET revoked = 1 WHERE id = $1")
                    .bind(id)
                    .execute(connection)
                    .await?;
                if changed.rows_affected() == 0 {
                    return Err(StoreError::missing(format!(
                        "enrolment line {id}; 'mcp enrol list' shows them"
                    )));
                }
                Ok(())
            })
        })
        .await
    }

    /// Whether a gateway token is valid; if so, whether the devices that come with it are accepted at once.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn gateway(&self, token: &blake3::Hash, now: u64) -> Result<Option<bool>, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT accepts FROM enrolments WHERE token = $1 AND kind = 'gateway' AND revoked = 0 AND expires > $2",
        )
        .bind(token.as_bytes().to_vec())
        .bind(sql(now))
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map(|(accepts,)| accepts != 0))
    }

    /// Whether a device may present this token of a line now.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn line_is_valid(&self, token: &blake3::Hash, now: u64) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT id FROM enrolments WHERE token = $1 AND kind = 'line' AND revoked = 0 AND expires > $2",
        )
        .bind(token.as_bytes().to_vec())
        .bind(sql(now))
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.is_some())
    }

    /// Enrols a device with a line's token. The caller has checked that the device has the key that it names.
    ///
    /// A device that used the line before, under the same name and with the same key, sets its new target token without using the line
    /// up: it may not have seen the first answer. What it asked earlier than that counts no more.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn enrol(&self, used: EnrolmentUse, now: u64) -> Result<Enrolled, StoreError> {
        let store = self.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let EnrolmentUse { token, device, public_key, target, time } = used;
                let row = sqlx::query(&format!(
                    "SELECT {COLUMNS} FROM enrolments WHERE token = $1 AND kind = 'line' AND revoked = 0 AND expires > $2"
                ))
                .bind(token.as_bytes().to_vec())
                .bind(sql(now))
                .fetch_optional(&mut *connection)
                .await?;
                let Some(line) = row.as_ref().map(EnrolmentLine::read).transpose()? else {
                    return Ok(Enrolled::NoLine);
                };
                let before: Option<(String,)> =
                    sqlx::query_as("SELECT public_key FROM enrolled WHERE enrolment = $1 AND device = $2")
                        .bind(line.id)
                        .bind(&device)
                        .fetch_optional(&mut *connection)
                        .await?;
                let again = before.is_some_and(|(key,)| key == public_key);
                let known = device_of(connection, &device).await?;
                if known.as_ref().is_some_and(|known| known.state == DeviceState::Refused) {
                    return Ok(Enrolled::Refused);
                }
                // A name belongs to whoever has its key, until the operator forgets the device.
                let taken = known.as_ref().is_some_and(|known| match &known.public_key {
                    Some(key) => *key != public_key,
                    None => known.token.is_some(),
                });
                if taken {
                    return Ok(Enrolled::Taken);
                }
                let (last,): (Option<i64>,) =
                    sqlx::query_as("SELECT MAX(at) FROM enrolled WHERE device = $1 AND public_key = $2")
                        .bind(&device)
                        .bind(&public_key)
                        .fetch_one(&mut *connection)
                        .await?;
                if last.is_some_and(|last| last > sql(time)) {
                    return Ok(Enrolled::Older);
                }
                if !again {
                    if line.uses_left == Some(0) {
                        return Ok(Enrolled::NoLine);
                    }
                    sqlx::query("UPDATE enrolments SET uses_left = uses_left - 1 WHERE id = $1")
                        .bind(line.id)
                        .execute(&mut *connection)
                        .await?;
                }
                sqlx::query(
                    "INSERT INTO enrolled (enrolment, device, public_key, at) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (enrolment, device) DO UPDATE SET public_key = excluded.public_key, at = excluded.at",
                )
                .bind(line.id)
                .bind(&device)
                .bind(&public_key)
                .bind(sql(time))
                .execute(&mut *connection)
                .await?;
                let state = match known.as_ref().map(|known| known.state) {
                    Some(DeviceState::Accepted) => DeviceState::Accepted,
                    _ if line.accepts => DeviceState::Accepted,
                    _ => DeviceState::Pending,
                };
                if known.is_none() && state == DeviceState::Pending {
                    room_for_one(connection, MAX_PENDING_DEVICES).await?;
                }
                put_device(connection, &device, state, Some(target), Some(&public_key), now).await?;
                for tag in line.tags {
                    sqlx::query("INSERT INTO tags (device, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(&device)
                        .bind(tag)
                        .execute(&mut *connection)
                        .await?;
                }
                store.assign_to_device(connection, &device, now).await?;
                Ok(Enrolled::As(state))
            })
        })
        .await
    }
}
