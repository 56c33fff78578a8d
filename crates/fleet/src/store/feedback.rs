//! What devices say of their actions: taken into the table in one change, with its history.

use super::actions::{action_of, note};
use super::database::Connection;
use super::events;
use super::{ActionState, Answer, Report, Store, StoreError, sql};
use crate::ddi::{Confirmation, ConfirmationFeedback, Feedback, UNNEEDED};
use crate::limits::{MAX_DETAIL_TEXT, MAX_DETAILS, MAX_HISTORY};

/// Messages that are kept of one action. Later ones are dropped, and the feedback is taken all the same.
const MAX_MESSAGES: i64 = 1000;
const _: () = assert!(MAX_HISTORY < MAX_MESSAGES as usize);

impl Store {
    /// Takes feedback of a device. `None` if there is no such action of this device.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn feedback(
        &self,
        device: &str,
        action: i64,
        on: Report,
        feedback: Feedback,
        now: u64,
    ) -> Result<Option<Answer>, StoreError> {
        let device = device.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let Some(known) = action_of(connection, &device, action).await? else { return Ok(None) };
                let status = &feedback.status;
                let answer = on.answer(known.state, status.execution, status.result.finished);
                let Answer::Taken(mut state) = answer else { return Ok(Some(answer)) };
                if state == ActionState::Finished && status.code == Some(UNNEEDED.into()) {
                    state = ActionState::Unneeded;
                }
                let details: Vec<String> = status.details.iter().take(MAX_DETAILS).map(|text| printable(text)).collect();
                let message = details.last().filter(|text| !text.is_empty());
                let downloaded = status.execution == crate::ddi::Execution::Downloaded;
                sqlx::query(
                    "UPDATE actions SET state = $2, updated = $3, message = COALESCE($4, message), code = $5, \
                     done = COALESCE($6, done), of = COALESCE($7, of), begun = COALESCE(begun, $3), \
                     downloaded = CASE WHEN $8 = 1 THEN COALESCE(downloaded, $3) ELSE downloaded END WHERE id = $1",
                )
                .bind(action)
                .bind(state.as_str())
                .bind(sql(now))
                .bind(message)
                .bind(status.code)
                .bind(status.result.progress.map(|p| sql(p.cnt)))
                .bind(status.result.progress.map(|p| sql(p.of)))
                .bind(i64::from(downloaded))
                .execute(&mut *connection)
                .await?;
                if state == ActionState::Finished {
                    // Its attributes may have changed with it.
                    sqlx::query("UPDATE devices SET installed = $2, wants_attributes = 1 WHERE id = $1")
                        .bind(&device)
                        .bind(action)
                        .execute(&mut *connection)
                        .await?;
                }
                let head = format!("{}, {}", status.execution.as_str(), status.result.finished.as_str());
                remember(connection, action, std::iter::once(head).chain(details), now).await?;
                if !state.is_open() {
                    events::of_action(connection, action, now).await?;
                }
                Ok(Some(answer))
            })
        })
        .await
    }

    /// Takes a device's answer to an action that waits for confirmation. `None` if there is no such action of this device.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn confirm(
        &self,
        device: &str,
        action: i64,
        feedback: ConfirmationFeedback,
        now: u64,
    ) -> Result<Option<Answer>, StoreError> {
        let device = device.to_owned();
        self.write(move |connection| {
            Box::pin(async move {
                let Some(known) = action_of(connection, &device, action).await? else { return Ok(None) };
                match known.state {
                    ActionState::Confirming => {}
                    state if state.is_open() => return Ok(Some(Answer::Hidden)),
                    _ => return Ok(Some(Answer::Gone)),
                }
                let (state, text) = match feedback.confirmation {
                    Confirmation::Confirmed => (ActionState::Waiting, "confirmed by the device"),
                    Confirmation::Denied => (ActionState::Confirming, "denied by the device"),
                };
                sqlx::query(
                    "UPDATE actions SET state = $2, updated = $3, message = $4, code = $5 WHERE id = $1",
                )
                .bind(action)
                .bind(state.as_str())
                .bind(sql(now))
                .bind(text)
                .bind(feedback.code)
                .execute(&mut *connection)
                .await?;
                let details = feedback.details.iter().take(MAX_DETAILS).map(|text| printable(text));
                remember(connection, action, std::iter::once(text.to_owned()).chain(details), now).await?;
                Ok(Some(Answer::Taken(state)))
            })
        })
        .await
    }

    /// The newest messages of an action, newest first; at most `most`, and never more than 100.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn history(&self, action: i64, most: usize) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT text FROM messages WHERE action = $1 ORDER BY id DESC LIMIT $2")
                .bind(action)
                .bind(most.min(MAX_HISTORY) as i64)
                .fetch_all(&self.readers)
                .await?;
        Ok(rows.into_iter().map(|(text,)| text).collect())
    }
}

async fn remember(
    connection: &mut Connection,
    action: i64,
    texts: impl Iterator<Item = String>,
    now: u64,
) -> Result<(), StoreError> {
    let (kept,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM messages WHERE action = $1")
        .bind(action)
        .fetch_one(&mut *connection)
        .await?;
    let room = usize::try_from(MAX_MESSAGES - kept).unwrap_or(0);
    for text in texts.filter(|text| !text.is_empty()).take(room) {
        note(connection, action, &text, now).await?;
    }
    Ok(())
}

/// A device's message, cut to what is kept and without control characters.
fn printable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_DETAIL_TEXT).collect::<String>().trim().to_owned()
}
