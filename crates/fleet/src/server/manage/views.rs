//! What the operators' interface says and is told; the commands use the same types.

use super::super::campaign::SessionView;
use crate::documents::{FleetId, Hash, Task};
use crate::store::{
    Action, Counts, DeviceState, EventKind, LineKind, OperatorRole, Rollout, TaskState, Terms,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What an operator signs for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestPayload {
    /// The fleet.
    pub fleet: FleetId,
    /// `GET`, `POST`...
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// BLAKE3 of the body; of no bytes, if there is none.
    pub body: Hash,
    /// In seconds since 1970.
    pub time: u64,
    /// Random, so that no two requests are the same.
    pub nonce: String,
}

/// The body of `POST /tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The signed task, in base64url.
    pub envelope: String,
    /// What the server alone decides.
    #[serde(default)]
    pub terms: Terms,
    /// A signed task of the same name with a higher serial, which undoes this one; in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResponse {
    /// The task's number.
    pub id: i64,
}

/// A task in answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskView {
    /// Its number.
    pub id: i64,
    /// Whether it is offered.
    pub state: TaskState,
    /// When it was added.
    pub created: u64,
    /// By whom.
    pub by: String,
    /// What was signed.
    pub task: Task,
    /// What the server alone decides.
    pub terms: Terms,
    /// Devices by state; those whose group does not have the task yet are `later`.
    pub counts: Counts,
    /// How far it is, if it is given out in groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Whether it can be rolled back.
    #[serde(default)]
    pub rollback: bool,
    /// Its newest multicast sessions, the oldest of them first; only if one task is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionView>,
    /// Each device's action; only if one task is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<Action>>,
}

/// The answer to `POST /tasks/{id}/retry` and `/rollback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeResponse {
    /// The task that undoes this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<i64>,
    /// How many devices have something to do now.
    pub devices: u64,
}

/// The highest serial of a name.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SerialView {
    /// 0 if there is no task of the name.
    pub serial: u64,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectView {
    /// In bytes.
    pub size: u64,
    /// As `b3sum` prints it.
    pub blake3: Hash,
    /// As `sha256sum` prints it.
    pub sha256: Hash,
}

/// A device in answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its name.
    pub id: String,
    /// Whether it is one of the fleet.
    pub state: DeviceState,
    /// Its own key.
    pub key: Option<String>,
    /// What it said of itself.
    pub attributes: BTreeMap<String, String>,
    /// What the operator said of it.
    pub tags: BTreeSet<String>,
    /// When it was first heard of.
    pub created: u64,
    /// When it was last heard of.
    pub last_seen: Option<u64>,
    /// From where.
    pub last_address: Option<String>,
    /// Its newest actions; only if one device is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<Action>>,
}

/// The body of `POST /devices/{id}/accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptRequest {
    /// Whether the device gets a new target token.
    #[serde(default)]
    pub token: bool,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The new target token. It is shown once.
    pub target_token: Option<String>,
}

/// The body of `POST /devices/{id}/tag`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    /// Tags that it gets.
    #[serde(default)]
    pub add: Vec<String>,
    /// Tags that it loses.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The body of `POST /enrolments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentRequest {
    /// What the token does.
    pub kind: LineKind,
    /// For people.
    #[serde(default)]
    pub label: String,
    /// Devices that it may enrol; absent: any number.
    pub uses: Option<u64>,
    /// Seconds until it ends.
    pub valid: u64,
    /// Tags of the devices that it enrols.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether they are accepted at once.
    pub accepts: bool,
}

/// The answer to it. It is shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentResponse {
    /// Its number.
    pub id: i64,
    /// The enrolment line, or the gateway token.
    pub line: String,
}

/// The body of `PUT /operators/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRequest {
    /// The Ed25519 key, in hexadecimal.
    pub key: String,
    /// What the operator may do.
    pub role: OperatorRole,
}

/// The answer to `POST /links`. It is shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkResponse {
    /// The path of the page that logs the operator in.
    pub path: String,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

/// The body of `POST /hooks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRequest {
    /// Where events are sent to.
    pub url: String,
    /// Which ones; none: all.
    #[serde(default)]
    pub kinds: Vec<EventKind>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookResponse {
    /// The hook's number.
    pub id: i64,
    /// Signs what is sent: `whsec_` and base64. It is not told again.
    pub secret: String,
}
