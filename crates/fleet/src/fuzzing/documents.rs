//! Signed documents of a fleet. Anybody can sign in this target: a payload gets all signatures that it needs, so that what is said comes to
//! be looked at.

use super::quiet;
use crate::documents::{
    Enrolment, Entry, Envelope, FleetId, Hash, JoinRequest, Kind, List, Listing, Refusal, Role, Root,
    SecretKey, Task, Trusted,
};
use crate::limits::{MAX_ENVELOPE, MAX_LISTED, MAX_OBJECTS, MAX_REMEMBERED, MAX_SIGNATURES};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Lines of one input, at the most.
const MAX_LINES: usize = 64;
/// When the device begins, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// Keys of the root, an operator and the server; and one that a later root may name.
pub(super) fn keys() -> &'static [SecretKey; 4] {
    static KEYS: OnceLock<[SecretKey; 4]> = OnceLock::new();
    KEYS.get_or_init(|| [1, 2, 3, 4].map(|n| SecretKey::from_seed(&[n; 32])))
}

pub(super) fn fleet() -> FleetId {
    FleetId([1; 16])
}

/// The device `desk-07`, with a root that the keys 1 to 3 have the roles of.
fn device() -> Trusted {
    static DEVICE: OnceLock<Trusted> = OnceLock::new();
    let make = || {
        let [root, operator, server, _] = keys();
        let roles = [root, operator, server].map(|key| Role::of(key.public()));
        let root1 = Root::new((fleet(), 1), (NOW - 3600, NOW + 1_000_000), roles);
        let envelope = root1.sign(&[root]).expect("a sound root");
        Trusted::begin(fleet(), "desk-07", envelope.hash(), &envelope).expect("the pinned root")
    };
    DEVICE.get_or_init(make).clone()
}

/// The body of the fuzz target `documents`. The input is lines; the first byte says what the rest is:
///
/// - `t`, `l`, `r`: the payload of a task, list or root, for the device that the lines before it have made;
/// - `e`: an envelope; `m`: one as metadata carry it; `n`: an enrolment line; `s`: a file of what a device trusts;
/// - `j`: the payload of a request to join;
/// - `c`: how many seconds the device's clock goes on, or back.
///
/// # Panics
/// If a document is not what it was when it is written and read again, a bound is broken, or a device is taken back.
pub fn fuzz_documents(bytes: &[u8]) {
    let (mut trusted, mut clock) = (device(), NOW);
    for line in bytes.split(|byte| *byte == b'\n').take(MAX_LINES) {
        let Some((what, rest)) = line.split_first() else { continue };
        let taken = match what {
            b't' => Some(take_task(&trusted, rest, clock)),
            b'l' => Some(take_list(&trusted, rest, clock)),
            b'r' => Some(take_root(&trusted, rest, clock)),
            b'c' => {
                let by: i32 = String::from_utf8_lossy(rest).trim().parse().unwrap_or(0);
                clock = clock.saturating_add_signed(by.into());
                None
            }
            b'j' => {
                join(rest);
                None
            }
            _ => {
                text(*what, rest);
                None
            }
        };
        match taken {
            Some(Ok(next)) => {
                assert_eq!(Trusted::parse(&next.to_bytes()).as_ref(), Ok(&next));
                assert!(next.listed().len() <= MAX_LISTED);
                trusted = next;
            }
            Some(Err(refusal)) => {
                quiet(&refusal.to_string());
                assert!((4000..5000).contains(&refusal.code()));
            }
            None => {}
        }
    }
}

/// The payload with the signatures of all keys; `None` if it is too long for an envelope.
fn signed(kind: Kind, payload: &[u8]) -> Option<Envelope> {
    let mut envelope = Envelope::unsigned(payload.to_vec());
    keys().iter().for_each(|key| envelope.sign(kind, key));
    assert_eq!(envelope.signers(kind).len(), keys().len());
    let bytes = envelope.to_bytes();
    if bytes.len() > MAX_ENVELOPE {
        assert!(Envelope::parse(&bytes).is_err());
        return None;
    }
    assert_eq!(Envelope::parse(&bytes).as_ref(), Ok(&envelope));
    assert_eq!(Envelope::from_metadata(&envelope.to_metadata()).as_ref(), Ok(&envelope));
    Some(envelope)
}

fn take_task(trusted: &Trusted, payload: &[u8], clock: u64) -> Result<Trusted, Refusal> {
    let Some(envelope) = signed(Kind::Task, payload) else { return Ok(trusted.clone()) };
    if let Ok(task) = Task::parse(payload) {
        assert!(task.objects.len() <= MAX_OBJECTS);
        let bytes = serde_json::to_vec(&task).expect("string keys and finite numbers");
        assert_eq!(Task::parse(&bytes).as_ref(), Ok(&task));
        let _ = task.size();
    }
    let attributes = BTreeMap::from([("version".to_owned(), "2.0".to_owned())]);
    let (next, task) = trusted.take_task(&envelope, &attributes, Listing::Required, clock)?;
    assert_eq!(task.fleet, fleet());
    let here = Entry { name: task.name.clone(), serial: task.serial, hash: envelope.hash() };
    assert!(next.listed().contains(&here), "only what the list names is taken");
    next.may_begin(&task, envelope.hash(), Listing::Required, clock).expect("just taken");
    // Taken again it is the same, and never with another content.
    let again = next.take_task(&envelope, &attributes, Listing::Required, clock).expect("a second offer");
    assert_eq!(again, (next.clone(), task.clone()));
    let mut other = task.clone();
    other.version.push('x');
    if let Some(other) = other.sign(&[&keys()[1]]).ok().filter(|_| other.version != task.version) {
        assert!(next.take_task(&other, &attributes, Listing::Absent, clock).is_err());
    }
    if let Some(serial) = task.serial.checked_sub(1).filter(|serial| *serial > 0) {
        let mut older = task;
        older.serial = serial;
        let older = older.sign(&[&keys()[1]]).expect("as sound as the newer one");
        let refused = next.take_task(&older, &attributes, Listing::Absent, clock);
        assert_eq!(refused.map_err(|refusal| refusal.code()).err(), Some(4090));
    }
    Ok(next)
}

fn take_list(trusted: &Trusted, payload: &[u8], clock: u64) -> Result<Trusted, Refusal> {
    let Some(envelope) = signed(Kind::List, payload) else { return Ok(trusted.clone()) };
    if let Ok(list) = List::parse(payload) {
        let bytes = serde_json::to_vec(&list).expect("string keys and finite numbers");
        assert_eq!(List::parse(&bytes).as_ref(), Ok(&list));
    }
    let next = trusted.take_list(&envelope, None, clock)?;
    let list = List::parse(payload).expect("it was taken");
    assert_eq!((list.device.as_str(), list.fleet, next.listed()), ("desk-07", fleet(), &list.tasks[..]));
    next.not_frozen(clock).expect("it was valid");
    if let Some(version) = list.version.checked_sub(1).filter(|version| *version > 0) {
        let mut older = list;
        older.version = version;
        let older = older.sign(&keys()[2]).expect("as sound as the newer one");
        assert!(next.take_list(&older, None, clock).is_err());
    }
    Ok(next)
}

fn take_root(trusted: &Trusted, payload: &[u8], clock: u64) -> Result<Trusted, Refusal> {
    let Some(envelope) = signed(Kind::Root, payload) else { return Ok(trusted.clone()) };
    if let Ok(root) = Root::parse(payload) {
        let bytes = serde_json::to_vec(&root).expect("string keys and finite numbers");
        assert_eq!(Root::parse(&bytes).as_ref(), Ok(&root));
    }
    let next = trusted.take_roots(&[envelope], clock)?;
    assert_eq!((next.root().version, next.fleet()), (trusted.root().version + 1, fleet()));
    Ok(next)
}

/// Opens the payload as a request to join, signed by nobody, by each key alone, and by two.
fn join(payload: &[u8]) {
    let unsigned = Envelope::unsigned(payload.to_vec());
    assert!(JoinRequest::open(&unsigned).is_err(), "nobody signed it");
    for key in keys() {
        let mut envelope = unsigned.clone();
        envelope.sign(Kind::Join, key);
        match JoinRequest::open(&envelope) {
            Ok(request) => {
                assert_eq!(request.key, key.public(), "it belongs to the key that it names");
                let written = request.sign(key).expect("what was read can be written");
                assert_eq!(JoinRequest::open(&written), Ok(request));
                envelope.sign(Kind::Join, &keys()[0]);
                envelope.sign(Kind::Join, &keys()[1]);
                assert!(JoinRequest::open(&envelope).is_err(), "somebody else signed it too");
                // A signature of another kind of document is none.
                let mut other = unsigned.clone();
                other.sign(Kind::Task, key);
                assert!(JoinRequest::open(&other).is_err());
            }
            Err(refusal) => {
                quiet(&refusal.to_string());
                assert!((4000..5000).contains(&refusal.code()));
            }
        }
    }
}

/// What is read from text alone.
fn text(what: u8, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match what {
        b'e' | b'm' => {
            let envelope = if what == b'e' { Envelope::parse(bytes) } else { Envelope::from_metadata(&text) };
            match envelope {
                Ok(envelope) => {
                    for kind in [Kind::Task, Kind::List, Kind::Root, Kind::Request] {
                        assert!(envelope.signers(kind).len() <= MAX_SIGNATURES);
                    }
                    // It may have become longer by a missing padding or an empty signature, never by much.
                    assert!(envelope.payload().len() <= MAX_ENVELOPE);
                    assert_eq!(envelope.hash(), Hash::of(envelope.payload()));
                    let written = envelope.to_bytes();
                    if written.len() <= MAX_ENVELOPE {
                        assert_eq!(Envelope::parse(&written), Ok(envelope));
                    }
                }
                Err(error) => quiet(&error.to_string()),
            }
        }
        b'n' => match text.parse::<Enrolment>() {
            Ok(enrolment) => {
                let line = enrolment.line().expect("what was read can be written");
                assert_eq!(line.as_str(), text.trim());
                assert!(
                    !format!("{enrolment:?}").contains(enrolment.token.as_str()) || enrolment.token.len() < 8
                );
            }
            Err(error) => quiet(&error.to_string()),
        },
        b's' => match Trusted::parse(bytes) {
            Ok(trusted) => {
                assert_eq!(Trusted::parse(&trusted.to_bytes()).as_ref(), Ok(&trusted));
                // A damaged file may say anything, but nothing that makes the agent fall over.
                let _ = (trusted.time(0), trusted.list_expires(), trusted.not_frozen(NOW), trusted.listed());
            }
            Err(error) => quiet(&error.to_string()),
        },
        _ => {}
    }
    const { assert!(MAX_LINES < MAX_REMEMBERED) };
}
