//! The schema and its versions.

use super::StoreError;
use super::database::{self, Connection, Database, Pool};
use sqlx::migrate::{Migrate, Migration, MigrationType};
use std::borrow::Cow;

/// The migrations, oldest first. One that was released never changes.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "first", include_str!("../../migrations/sqlite/0001_first.sql")),
    (2, "sessions", include_str!("../../migrations/sqlite/0002_sessions.sql")),
    (3, "logins", include_str!("../../migrations/sqlite/0003_logins.sql")),
    (4, "rollouts", include_str!("../../migrations/sqlite/0004_rollouts.sql")),
    (5, "servers", include_str!("../../migrations/sqlite/0005_servers.sql")),
    (6, "hooks", include_str!("../../migrations/sqlite/0006_hooks.sql")),
];

/// Applies the migrations that are missing, each in a transaction of its own.
pub(super) async fn migrate(pool: &Pool, database: &Database) -> Result<(), StoreError> {
    let away = |error: sqlx::migrate::MigrateError| StoreError::Away(error.to_string().into());
    let mut connection = pool.acquire().await?;
    // Of several servers that start, one does it.
    connection.lock().await.map_err(away)?;
    let outcome = bring_up(&mut connection, database).await;
    connection.unlock().await.map_err(away)?;
    outcome
}

async fn bring_up(connection: &mut Connection, database: &Database) -> Result<(), StoreError> {
    let away = |error: sqlx::migrate::MigrateError| StoreError::Away(error.to_string().into());
    connection.ensure_migrations_table().await.map_err(away)?;
    if let Some(version) = connection.dirty_version().await.map_err(away)? {
        return Err(StoreError::damaged(format!("migration {version} was not completed")));
    }
    let applied = connection.list_applied_migrations().await.map_err(away)?;
    let known = MIGRATIONS[MIGRATIONS.len() - 1].0;
    if let Some(newest) = applied.iter().map(|m| m.version).max().filter(|newest| *newest > known) {
        return Err(StoreError::Newer { database: database.clone(), found: newest, known });
    }
    for (version, name, text) in MIGRATIONS {
        let text = database::migration(text, connection);
        let migration = Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, text, false);
        match applied.iter().find(|m| m.version == version) {
            None => drop(connection.apply(&migration).await.map_err(away)?),
            Some(m) if m.checksum != migration.checksum => {
                return Err(StoreError::damaged(format!(
                    "its schema {version} is not the one of this program"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
