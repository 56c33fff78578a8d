//! How operators reach the page: links that log in once, and sessions of browsers. Only hashes of their tokens are kept.

use super::database::Connection;
use super::operators::Operator;
use super::{Store, StoreError, sql, words};
use crate::limits::MAX_LOGINS;

words! {
    /// What a token is for.
    LoginKind {
        /// It logs in once.
        Link = "link",
        /// It is a browser's.
        Session = "session",
    }
}

async fn add(
    connection: &mut Connection,
    token: blake3::Hash,
    kind: LoginKind,
    public_key: &str,
    expires: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO logins (hash, kind, public_key, expires) VALUES ($1, $2, $3, $4)")
        .bind(token.as_bytes().to_vec())
        .bind(kind.as_str())
        .bind(public_key)
        .bind(sql(expires))
        .execute(&mut *connection)
        .await?;
    // The oldest make room.
    sqlx::query(
        "DELETE FROM logins WHERE public_key = $1 AND kind = $2 AND hash NOT IN \
         (SELECT hash FROM logins WHERE public_key = $1 AND kind = $2 ORDER BY expires DESC LIMIT $3)",
    )
    .bind(public_key)
    .bind(kind.as_str())
    .bind(i64::from(MAX_LOGINS))
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Adds a link that logs the operator with this key in once, until `expires`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn add_link(
        &self,
        link: blake3::Hash,
        public_key: &str,
        expires: u64,
    ) -> Result<(), StoreError> {
        let public_key = public_key.to_owned();
        self.write(move |connection| {
            Box::pin(async move { add(connection, link, LoginKind::Link, &public_key, expires).await })
        })
        .await
    }

    /// Uses a link up: its operator has a session until `expires`. Returns the operator; `None` if there is no such link.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn log_in(
        &self,
        link: blake3::Hash,
        session: blake3::Hash,
        (now, expires): (u64, u64),
    ) -> Result<Option<Operator>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM logins WHERE expires <= $1")
                    .bind(sql(now))
                    .execute(&mut *connection)
                    .await?;
                let found: Option<(String,)> = sqlx::query_as(
                    "DELETE FROM logins WHERE hash = $1 AND kind = 'link' RETURNING public_key",
                )
                .bind(link.as_bytes().to_vec())
                .fetch_optional(&mut *connection)
                .await?;
                let Some((public_key,)) = found else { return Ok(None) };
                let operator = Operator::with_key(&mut *connection, &public_key).await?;
                if operator.is_some() {
                    add(connection, session, LoginKind::Session, &public_key, expires).await?;
                }
                Ok(operator)
            })
        })
        .await
    }

    /// The operator of a session, with the rights of now.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn logged_in(&self, session: blake3::Hash, now: u64) -> Result<Option<Operator>, StoreError> {
        let found: Option<(String,)> = sqlx::query_as(
            "SELECT public_key FROM logins WHERE hash = $1 AND kind = 'session' AND expires > $2",
        )
        .bind(session.as_bytes().to_vec())
        .bind(sql(now))
        .fetch_optional(&self.readers)
        .await?;
        match found {
            Some((public_key,)) => self.operator(&public_key).await,
            None => Ok(None),
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn log_out(&self, session: blake3::Hash) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM logins WHERE hash = $1")
                    .bind(session.as_bytes().to_vec())
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
