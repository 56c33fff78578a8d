//! Names that the server of this machine knows, for completions in a shell.

use super::remote::Remote;
use super::serve::dir;
use super::{CommandError, device};
use crate::server::TaskView;
use crate::store::{EnrolmentLine, Hook, Operator};
use std::path::Path;
use std::time::Duration;

/// How long a shell waits for them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Tasks, by their numbers.
    Tasks,
    /// Devices.
    Devices,
    /// Operators.
    Operators,
    /// Enrolment lines, by their numbers.
    Lines,
    /// Web hooks, by their numbers.
    Hooks,
}

/// The names, each with words for people, as the server says them that the state directory `state` knows. None, if it does not
/// answer soon, or this user is no operator of it: somebody who types a command is not to be held up or told.
#[must_use]
pub fn names(of: Named, state: &Path) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(of, state)).await });
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

async fn ask(of: Named, state: &Path) -> Result<Vec<(String, String)>, CommandError> {
    let dir = dir(state);
    let remote = Remote::new(&dir.join("address.json"), None, &dir.join("operator.key"))?;
    Ok(match of {
        Named::Tasks => {
            let tasks: Vec<TaskView> = remote.get("/tasks").await?;
            let words = |t: &TaskView| format!("{}, {}", t.task.name, t.state.as_str());
            tasks.iter().map(|task| (task.id.to_string(), words(task))).collect()
        }
        Named::Devices => {
            let devices = device::all(&remote).await?;
            devices.into_iter().map(|device| (device.id, device.state.as_str().to_owned())).collect()
        }
        Named::Operators => {
            let operators: Vec<Operator> = remote.get("/operators").await?;
            operators.into_iter().map(|operator| (operator.name, operator.role.as_str().to_owned())).collect()
        }
        Named::Lines => {
            let lines: Vec<EnrolmentLine> = remote.get("/enrolments").await?;
            let live = lines.into_iter().filter(|line| !line.revoked);
            live.map(|line| (line.id.to_string(), line.label)).collect()
        }
        Named::Hooks => {
            let hooks: Vec<Hook> = remote.get("/hooks").await?;
            hooks.into_iter().map(|hook| (hook.id.to_string(), hook.url)).collect()
        }
    })
}
