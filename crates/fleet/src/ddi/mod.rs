//! The documents of hawkBit's Direct Device Integration API v1, as values: what `mcp serve` answers and `mcp agent`
//! asks, and the other way round. Pure: no I/O, no clock. Who may ask for what, and the states of an action, are in
//! `server` and `store`.
//!
//! Both directions are here for each document. What is written follows the letter of the API; what is read may deviate
//! as the clients and servers in use do ([`parse`]). Unknown members are ignored everywhere.
//!
//! | document | file |
//! |---|---|
//! | the poll's answer, the time until the next poll | `poll`, `sleep` |
//! | a deployment, or what waits for confirmation; what a chunk carries for `mcp` | `deployment`, `carried`, `session` |
//! | an action to cancel, a confirmation, an installed version | `action` |
//! | a device's feedback | `feedback` |
//! | a device's attributes | `config_data` |
//! | an error | `error` |

mod action;
mod carried;
mod config_data;
mod deployment;
mod error;
mod feedback;
mod lenient;
mod links;
mod poll;
mod session;
mod sleep;
#[cfg(test)]
mod tests;

pub use action::{AutoConfirm, AutoConfirmRequest, Cancel, CancelAction, ConfirmationBase, Installed};
pub use carried::{task_from_metadata, task_to_metadata};
pub use config_data::{ConfigData, Mode};
pub(crate) use config_data::{is_attribute, is_plain};
pub use deployment::{
    ActionHistory, Artifact, Chunk, Deployment, DeploymentBase, Handling, Hashes, MaintenanceWindow, Metadata,
};
pub use error::ErrorBody;
pub use feedback::{
    Confirmation, ConfirmationFeedback, Execution, Feedback, Finished, Outcome, Progress, Status, UNNEEDED,
};
pub use lenient::{ParseError, parse};
pub use links::{Link, Links};
pub use poll::{Config, ControllerBase, Polling};
pub use session::{Perform, Session, SessionKeys, SessionOffer};
pub use sleep::Sleep;
