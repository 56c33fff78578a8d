//! Web hooks: where it is told what happens to tasks, how far each of them knows it, and which server tells it.

use super::database::Row;
use super::events::{self, Event, EventKind};
use super::{Store, StoreError, column, json, sql, to_json, unsigned};
use crate::limits::MAX_HOOKS;
use mcp_transfer::crypto::derive::Secret;
use serde::{Deserialize, Serialize};

/// A web hook that is to be added.
#[derive(Clone, Debug)]
pub struct NewHook {
    /// Where events are sent to.
    pub url: String,
    /// Signs them.
    pub secret: Secret,
    /// Which ones; none: all.
    pub kinds: Vec<EventKind>,
    /// The operator.
    pub by: String,
}

/// A web hook, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its number.
    pub id: i64,
    /// Where events are sent to.
    pub url: String,
    /// Which ones; none: all.
    pub kinds: Vec<EventKind>,
    /// When it was added.
    pub created: u64,
    /// By whom.
    pub by: String,
    /// Events that it has not been told yet, of all kinds.
    pub waiting: u64,
    /// Events that were dropped before it took them.
    pub missed: u64,
    /// How often it has failed since it took one.
    pub failures: u64,
    /// When it is tried again; 0: at once.
    pub again: u64,
    /// Why it failed last; empty if it did not.
    pub error: String,
}

/// A web hook that has to be told something.
#[derive(Clone, Debug)]
pub struct DueHook {
    /// Its number.
    pub id: i64,
    /// Where events are sent to.
    pub url: String,
    /// Signs them.
    pub secret: Secret,
    /// The last event that it knows.
    pub told: i64,
    /// How often it has failed since it took one.
    pub failures: u64,
    kinds: Vec<EventKind>,
}

impl DueHook {
    /// Whether it is to be told this.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::HookAdded => event.data["hook"] == self.id,
            kind => self.kinds.is_empty() || self.kinds.contains(&kind),
        }
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let secret = column::<&[u8]>(row, "secret")?.try_into();
        Ok(Self {
            id: column(row, "id")?,
            url: column(row, "url")?,
            secret: Secret::new(secret.map_err(|_| StoreError::damaged("a hook's secret"))?),
            told: column(row, "told")?,
            failures: unsigned(row, "failures")?,
            kinds: json(column(row, "kinds")?, "a hook's kinds of events")?,
        })
    }
}

/// That a server may tell a hook: no other one does until `until`.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The server.
    pub server: &'a str,
    /// Until when.
    pub until: u64,
}

impl Store {
    /// Adds a web hook. It is told what happens from now on, and that it was added. Returns its number.
    ///
    /// # Errors
    ///
    /// If there are too many, or the database fails.
    pub async fn add_hook(&self, new: NewHook, now: u64) -> Result<i64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let (count,): (i64,) =
                    sqlx::query_as("SELECT COUNT(*) FROM hooks").fetch_one(&mut *connection).await?;
                if count >= i64::from(MAX_HOOKS) {
                    let why = format!("there are {MAX_HOOKS} web hooks; remove one with 'mcp hook remove'");
                    return Err(StoreError::conflict(why));
                }
                let (id,): (i64,) = sqlx::query_as(
                    "INSERT INTO hooks (url, secret, kinds, created, created_by, told) \
                     VALUES ($1, $2, $3, $4, $5, (SELECT COALESCE(MAX(id), 0) FROM events)) RETURNING id",
                )
                .bind(new.url)
                .bind(new.secret.expose().to_vec())
                .bind(to_json(&new.kinds))
                .bind(sql(now))
                .bind(&new.by)
                .fetch_one(&mut *connection)
                .await?;
                let data = serde_json::json!({ "hook": id, "by": new.by });
                events::insert(connection, EventKind::HookAdded, &data, now).await?;
                Ok(id)
            })
        })
        .await
    }

    /// All web hooks, oldest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn hooks(&self) -> Result<Vec<Hook>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, url, kinds, created, created_by, missed, failures, again, error, \
             (SELECT COUNT(*) FROM events e WHERE e.id > hooks.told) AS waiting FROM hooks ORDER BY id",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Hook {
                    id: column(row, "id")?,
                    url: column(row, "url")?,
                    kinds: json(column(row, "kinds")?, "a hook's kinds of events")?,
                    created: unsigned(row, "created")?,
                    by: column(row, "created_by")?,
                    waiting: unsigned(row, "waiting")?,
                    missed: unsigned(row, "missed")?,
                    failures: unsigned(row, "failures")?,
                    again: unsigned(row, "again")?,
                    error: column(row, "error")?,
                })
            })
            .collect()
    }

    /// Removes a web hook.
    ///
    /// # Errors
    ///
    /// If there is no such hook, or the database fails.
    pub async fn remove_hook(&self, id: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let gone =
                    sqlx::query("DELETE FROM hooks WHERE id = $1").bind(id).execute(connection).await?;
                if gone.rows_affected() == 0 {
                    return Err(StoreError::missing(format!("web hook {id}; 'mcp hook list' shows them")));
                }
                Ok(())
            })
        })
        .await
    }

    /// The web hooks that have to be told something now, and that no other server tells. From here on, this one does.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn claim_hooks(&self, claim: Claim<'_>, now: u64) -> Result<Vec<DueHook>, StoreError> {
        const DUE: &str = "told < (SELECT COALESCE(MAX(id), 0) FROM events) AND again <= $1 \
                           AND (server IS NULL OR until <= $1)";
        // Most of the time there is nothing to say, and nothing to write.
        let due: Option<(i64,)> = sqlx::query_as(&format!("SELECT id FROM hooks WHERE {DUE} LIMIT 1"))
            .bind(sql(now))
            .fetch_optional(&self.readers)
            .await?;
        if due.is_none() {
            return Ok(Vec::new());
        }
        let (server, until) = (claim.server.to_owned(), claim.until);
        self.write(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query(&format!(
                    "UPDATE hooks SET server = $2, until = $3 WHERE {DUE} RETURNING id, url, secret, kinds, told, failures"
                ))
                .bind(sql(now))
                .bind(server)
                .bind(sql(until))
                .fetch_all(connection)
                .await?;
                rows.iter().map(DueHook::read).collect()
            })
        })
        .await
    }

    /// A web hook took all events up to `hook.told`. Returns whether this server goes on telling it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn hook_told(&self, hook: &DueHook, claim: Claim<'_>) -> Result<bool, StoreError> {
        let (id, told) = (hook.id, hook.told);
        let (server, until) = (claim.server.to_owned(), claim.until);
        self.write(move |connection| {
            Box::pin(async move {
                let changed = sqlx::query(
                    "UPDATE hooks SET told = CASE WHEN told < $2 THEN $2 ELSE told END, failures = 0, again = 0, \
                     error = '', until = $4 WHERE id = $1 AND server = $3",
                )
                .bind(id)
                .bind(told)
                .bind(server)
                .bind(sql(until))
                .execute(connection)
                .await?;
                Ok(changed.rows_affected() > 0)
            })
        })
        .await
    }

    /// A web hook took all events up to `hook.told`, and failed at the next one, `hook.failures` times by now. It is tried
    /// again at `again`, by any server.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn hook_failed(
        &self,
        hook: &DueHook,
        (error, again): (&str, u64),
        server: &str,
    ) -> Result<(), StoreError> {
        let DueHook { id, told, failures, .. } = *hook;
        let (error, server) = (error.to_owned(), server.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE hooks SET told = CASE WHEN told < $2 THEN $2 ELSE told END, failures = $3, again = $4, \
                     error = $5, server = NULL WHERE id = $1 AND server = $6",
                )
                .bind(id)
                .bind(told)
                .bind(sql(failures))
                .bind(sql(again))
                .bind(error)
                .bind(server)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// The server tells no hook any more.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn release_hooks(&self, server: &str) -> Result<(), StoreError> {
        let server = server.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE hooks SET server = NULL WHERE server = $1")
                    .bind(server)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
