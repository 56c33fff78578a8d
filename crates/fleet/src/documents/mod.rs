//! Signed documents of a fleet, and what a device trusts. Pure: no I/O and no clock; the time is an argument.
//!
//! | document | signed by | says | lives |
//! |---|---|---|---|
//! | [`Task`] | operators, perhaps off line | what is to be done, with which objects, by which devices | days |
//! | [`List`] | the server | which tasks are live for one device | hours |
//! | [`Root`] | itself, and the root before it | whose signatures count | months |
//! | [`JoinRequest`] | the device | that it has its key, and which token it will use | minutes |
//!
//! Each travels in an [`Envelope`]. A device keeps [`Trusted`], and asks it before it acts: it returns the next
//! state, which the device stores first, or a [`Refusal`]. The server and the operator's commands sign with the
//! same types. The rules are TUF's (<https://theupdateframework.io>) in two documents instead of four files; the
//! decision is 34 of `docs/decisions`.

mod enrolment;
mod envelope;
mod join;
mod keys;
mod list;
mod refusal;
mod root;
mod rules;
mod task;
mod terms;
mod trusted;

#[cfg(test)]
mod tests;

pub use enrolment::{Enrolment, EnrolmentError};
pub use envelope::{Envelope, Kind};
pub use join::JoinRequest;
pub use keys::{FleetId, Hash, PublicKey, SecretKey};
pub use list::{Entry, List};
pub use refusal::{DocumentError, Expired, Refusal};
pub use root::{Role, RoleKind, Root};
pub(crate) use rules::{is_filename, is_name};
pub use task::{Argument, Audience, Object, Task, TaskKind, Window};
pub use terms::{Comparison, Term};
pub use trusted::{Listing, Trusted};

/// Puts a document into an envelope and signs it.
fn seal<T: serde::Serialize>(document: &T, kind: Kind, keys: &[&SecretKey]) -> Envelope {
    // Documents have string keys and finite numbers only, so they always have a JSON.
    let mut envelope = Envelope::unsigned(serde_json::to_vec(document).unwrap_or_default());
    keys.iter().for_each(|key| envelope.sign(kind, key));
    envelope
}
