//! Devices: who they are, what they said of themselves, and what the operator says of them.

use super::database::{Connection, Row};
use super::{Store, StoreError, column, json, optional_unsigned, sql, to_json, unsigned, words};
use crate::ddi::AutoConfirm;
use std::collections::{BTreeMap, BTreeSet};

words! {
    /// Whether a device is one of the fleet.
    DeviceState {
        /// Nobody has decided yet.
        Pending = "pending",
        /// It is.
        Accepted = "accepted",
        /// It is kept out.
        Refused = "refused",
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name: the controllerId.
    pub id: String,
    /// Whether it is one of the fleet.
    pub state: DeviceState,
    /// BLAKE3 of its target token.
    pub token: Option<blake3::Hash>,
    /// Its own key, as it was enrolled.
    pub public_key: Option<String>,
    /// What it said of itself.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is to send its attributes.
    pub wants_attributes: bool,
    /// Set while it confirms every action by itself.
    pub auto_confirm: Option<AutoConfirm>,
    /// The action that succeeded last.
    pub installed: Option<i64>,
    /// When it was first heard of.
    pub created: u64,
    /// When it was last heard of.
    pub last_seen: Option<u64>,
    /// From where.
    pub last_address: Option<String>,
}

impl Device {
    /// Whether it is an `mcp agent`, by its own words.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.attributes.contains_key("mcp.version")
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let token: Option<Vec<u8>> = column(row, "token")?;
        let token = token.map(|bytes| <[u8; 32]>::try_from(bytes).map(blake3::Hash::from_bytes));
        let auto_confirm: Option<String> = column(row, "auto_confirm")?;
        Ok(Self {
            id: column(row, "id")?,
            state: column::<String>(row, "state")?.parse()?,
            token: token.transpose().map_err(|_| StoreError::damaged("a token's hash"))?,
            public_key: column(row, "public_key")?,
            attributes: json(column(row, "attributes")?, "a device's attributes")?,
            wants_attributes: column::<i64>(row, "wants_attributes")? != 0,
            auto_confirm: auto_confirm.map(|text| json(&text, "a device's confirmation")).transpose()?,
            installed: column(row, "installed")?,
            created: unsigned(row, "created")?,
            last_seen: optional_unsigned(row, "last_seen")?,
            last_address: column(row, "last_address")?,
        })
    }
}

const COLUMNS: &str = "id, state, token, public_key, attributes, wants_attributes, auto_confirm, installed, created, \
                       last_seen, last_address";

/// The device of this name, inside a change.
pub(super) async fn device_of(connection: &mut Connection, id: &str) -> Result<Option<Device>, StoreError> {
    let row = sqlx::query(&format!("SELECT {COLUMNS} FROM devices WHERE id = $1"))
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(Device::read).transpose()
}

/// Adds a device, or changes state, token and key of one that is known. `None` leaves a value as it is.
pub(super) async fn put_device(
    connection: &mut Connection,
    id: &str,
    state: DeviceState,
    token: Option<blake3::Hash>,
    public_key: Option<&str>,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO devices (id, state, token, public_key, created) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, token = COALESCE(excluded.token, devices.token), \
         public_key = COALESCE(excluded.public_key, devices.public_key)",
    )
    .bind(id)
    .bind(state.as_str())
    .bind(token.map(|t| t.as_bytes().to_vec()))
    .bind(public_key)
    .bind(sql(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Fails if `most` devices are pending.
pub(super) async fn room_for_one(connection: &mut Connection, most: u64) -> Result<(), StoreError> {
    let (pending,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM devices WHERE state = 'pending'").fetch_one(connection).await?;
    if pending >= sql(most) {
        return Err(StoreError::conflict("too many devices wait for a decision"));
    }
    Ok(())
}

impl Store {
    /// The device of this name.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn device(&self, id: &str) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(&format!("SELECT {COLUMNS} FROM devices WHERE id = $1"))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(Device::read).transpose()
    }

    /// The device with this target token.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn device_of_token(&self, token: &blake3::Hash) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(&format!("SELECT {COLUMNS} FROM devices WHERE token = $1"))
            .bind(token.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(Device::read).transpose()
    }

    /// All devices by name, at most `most` of those after `after`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn devices(&self, after: &str, most: u32) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(&format!("SELECT {COLUMNS} FROM devices WHERE id > $1 ORDER BY id LIMIT $2"))
            .bind(after)
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(Device::read).collect()
    }

    /// Tags by device; of one device, if it is named.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn tags(&self, device: Option<&str>) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT device, tag FROM tags WHERE $1 IS NULL OR device = $1")
                .bind(device)
                .fetch_all(&self.readers)
                .await?;
        let mut tags = BTreeMap::<String, BTreeSet<String>>::new();
        for (device, tag) in rows {
            tags.entry(device).or_default().insert(tag);
        }
        Ok(tags)
    }

    /// Makes a device one of the fleet, or refuses it, whether it was heard of or not. With `token`, that is its target
    /// token from now on. An accepted device gets the tasks that are meant for it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn decide_device(
        &self,
        id: &str,
        state: DeviceState,
        token: Option<blake3::Hash>,
        now: u64,
    ) -> Result<(), StoreError> {
        let (store, id) = (self.clone(), id.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                put_device(connection, &id, state, token, None, now).await?;
                store.assign_to_device(connection, &id, now).await
            })
        })
        .await
    }

    /// Notes a device that nobody knows, as pending. One that is known stays as it is.
    ///
    /// # Errors
    ///
    /// If the database fails, or `most` devices are pending already.
    pub async fn register(&self, id: &str, most: u64, now: u64) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                room_for_one(connection, most).await?;
                sqlx::query(
                    "INSERT INTO devices (id, state, created) VALUES ($1, 'pending', $2) ON CONFLICT (id) DO NOTHING",
                )
                .bind(id)
                .bind(sql(now))
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Removes a device, its actions and their history. Returns whether it was known.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn forget_device(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let gone =
                    sqlx::query("DELETE FROM devices WHERE id = $1").bind(id).execute(connection).await?;
                Ok(gone.rows_affected() > 0)
            })
        })
        .await
    }

    /// Adds and removes tags.
    ///
    /// # Errors
    ///
    /// If the device is unknown, or the database fails.
    pub async fn tag_device(
        &self,
        id: &str,
        add: Vec<String>,
        remove: Vec<String>,
    ) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                if device_of(connection, &id).await?.is_none() {
                    return Err(StoreError::missing(format!("device {id}; 'mcp device list' shows them")));
                }
                for tag in add {
                    sqlx::query("INSERT INTO tags (device, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(&id)
                        .bind(tag)
                        .execute(&mut *connection)
                        .await?;
                }
                for tag in remove {
                    sqlx::query("DELETE FROM tags WHERE device = $1 AND tag = $2")
                        .bind(&id)
                        .bind(tag)
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Sets the attributes of a device. It gets the tasks that are meant for it now.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn set_attributes(
        &self,
        id: &str,
        attributes: &BTreeMap<String, String>,
        now: u64,
    ) -> Result<(), StoreError> {
        let (store, id, attributes) = (self.clone(), id.to_owned(), to_json(attributes));
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE devices SET attributes = $2, wants_attributes = 0 WHERE id = $1")
                    .bind(&id)
                    .bind(attributes)
                    .execute(&mut *connection)
                    .await?;
                store.assign_to_device(connection, &id, now).await
            })
        })
        .await
    }

    /// Sets whether a device confirms every action by itself.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn set_auto_confirm(
        &self,
        id: &str,
        to: Option<&AutoConfirm>,
        now: u64,
    ) -> Result<(), StoreError> {
        let (id, active, text) = (id.to_owned(), to.is_some(), to.map(to_json));
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE devices SET auto_confirm = $2 WHERE id = $1")
                    .bind(&id)
                    .bind(text)
                    .execute(&mut *connection)
                    .await?;
                if active {
                    sqlx::query(
                        "UPDATE actions SET state = 'waiting', updated = $2, message = 'confirmed by the device''s rule' \
                         WHERE device = $1 AND state = 'confirming'",
                    )
                    .bind(&id)
                    .bind(sql(now))
                    .execute(connection)
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Notes when and from where devices were heard, many at once.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn seen(&self, devices: Vec<(String, u64, String)>) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                for (id, at, address) in devices {
                    sqlx::query("UPDATE devices SET last_seen = $2, last_address = $3 WHERE id = $1")
                        .bind(id)
                        .bind(sql(at))
                        .bind(address)
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The version for a list of these tasks, by their hash. It grows whenever they change, and also beyond what a
    /// restored backup knows, because it is at least the time.
    ///
    /// # Errors
    ///
    /// If the device is unknown, or the database fails.
    pub async fn list_version(&self, id: &str, tasks: blake3::Hash, now: u64) -> Result<u64, StoreError> {
        let id = id.to_owned();
        let known: Option<(i64, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT list_version, list_tasks FROM devices WHERE id = $1")
                .bind(&id)
                .fetch_optional(&self.readers)
                .await?;
        let (version, listed) = known.ok_or_else(|| StoreError::missing(format!("device {id}")))?;
        if listed.as_deref() == Some(&tasks.as_bytes()[..]) {
            return Ok(u64::try_from(version).unwrap_or(0));
        }
        self.write(move |connection| {
            Box::pin(async move {
                let (version,): (i64,) = sqlx::query_as(
                    "UPDATE devices SET list_version = CASE WHEN list_version >= $2 THEN list_version + 1 ELSE $2 END, \
                     list_tasks = $3 WHERE id = $1 RETURNING list_version",
                )
                .bind(&id)
                .bind(sql(now))
                .bind(tasks.as_bytes().to_vec())
                .fetch_one(connection)
                .await?;
                Ok(u64::try_from(version).unwrap_or(0))
            })
        })
        .await
    }
}
