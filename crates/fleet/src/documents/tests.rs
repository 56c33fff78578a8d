//! TUF's conformance cases, rewritten for these documents, and what holds for any sequence of them.

use super::*;
use crate::limits::{MAX_ENVELOPE, MAX_ROOT_STEPS, MAX_SIGNATURES};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds since 1970 when the tests begin.
const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A fleet with its keys: what the server's and the operators' side holds.
struct Fleet {
    id: FleetId,
    roots: Vec<Root>,
    /// Root, operator, server.
    keys: [SecretKey; 3],
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn role(keys: &[&SecretKey], threshold: usize) -> Role {
    Role { keys: keys.iter().map(|key| key.public()).collect(), threshold }
}

impl Fleet {
    fn new() -> Self {
        let id = FleetId([1; 16]);
        let keys = [key(1), key(2), key(3)];
        let roles = [role(&[&keys[0]], 1), role(&[&keys[1]], 1), role(&[&keys[2]], 1)];
        let root = Root::new((id, 1), (NOW - DAY, NOW + 300 * DAY), roles);
        Self { id, roots: vec![root], keys }
    }

    fn root1(&self) -> Envelope {
        self.roots[0].sign(&[&self.keys[0]]).unwrap()
    }

    fn device(&self) -> Trusted {
        Trusted::begin(self.id, "desk-07", self.root1().hash(), &self.root1()).unwrap()
    }

    fn task(&self, name: &str, serial: u64) -> Task {
        let mut task = Task::new(self.id, name, serial, (NOW - HOUR, NOW + 7 * DAY));
        task.version = format!("{serial}.0");
        task.at = Some("/srv/images/".to_owned());
        let content = format!("{name} {serial}");
        let object = Object {
            filename: format!("{name}.bin"),
            size: content.len() as u64,
            blake3: Hash::of(content.as_bytes()),
            sha256: Hash([4; 32]),
        };
        task.objects.push(object);
        task
    }

    fn signed_task(&self, name: &str, serial: u64) -> Envelope {
        self.task(name, serial).sign(&[&self.keys[1]]).unwrap()
    }

    fn list(&self, version: u64, tasks: &[&Envelope]) -> List {
        let mut list = List::new(self.id, "desk-07", version, (NOW, NOW + 4 * HOUR));
        list.tasks = tasks
            .iter()
            .map(|envelope| {
                let task = Task::parse(envelope.payload()).unwrap();
                Entry { name: task.name, serial: task.serial, hash: envelope.hash() }
            })
            .collect();
        list
    }

    fn signed_list(&self, version: u64, tasks: &[&Envelope]) -> Envelope {
        self.list(version, tasks).sign(&self.keys[2]).unwrap()
    }

    /// A root that follows the newest, changed by `change`, signed by `signers`.
    fn next_root(&mut self, change: impl FnOnce(&mut Root), signers: &[&SecretKey]) -> Envelope {
        let mut root = self.roots.last().unwrap().clone();
        root.version += 1;
        change(&mut root);
        self.roots.push(root.clone());
        root.sign(signers).unwrap()
    }
}

fn take(state: &Trusted, task: &Envelope) -> Result<Trusted, Refusal> {
    state.take_task(task, &BTreeMap::new(), Listing::Required, NOW).map(|(state, _)| state)
}

fn take_unlisted(state: &Trusted, task: &Envelope) -> Result<Trusted, Refusal> {
    state.take_task(task, &BTreeMap::new(), Listing::Absent, NOW).map(|(state, _)| state)
}

/// Signs any JSON as a document of this kind.
fn signed(kind: Kind, value: &Value, keys: &[&SecretKey]) -> Envelope {
    let mut envelope = Envelope::unsigned(serde_json::to_vec(value).unwrap());
    keys.iter().for_each(|key| envelope.sign(kind, key));
    envelope
}

fn json_of(envelope: &Envelope) -> Value {
    serde_json::from_slice(envelope.payload()).unwrap()
}

#[test]
fn a_listed_task_is_taken_and_stays_through_storage() {
    let fleet = Fleet::new();
    let task = fleet.signed_task("image", 3);
    let state = fleet.device().take_list(&fleet.signed_list(1, &[&task]), None, NOW).unwrap();
    let (state, read) = state.take_task(&task, &BTreeMap::new(), Listing::Required, NOW).unwrap();
    assert_eq!(read, fleet.task("image", 3));
    let again = Trusted::parse(&state.to_bytes()).unwrap();
    assert_eq!(again, state);
    again.may_begin(&read, task.hash(), Listing::Required, NOW).unwrap();
    // The same once more is an idempotent re-offer.
    assert_eq!(take(&again, &task), Ok(again.clone()));
    assert!(matches!(Trusted::parse(b"{}"), Err(DocumentError::Unreadable(_))));
}

#[test]
fn envelopes_go_through_text() {
    let fleet = Fleet::new();
    let task = fleet.signed_task("image", 3);
    assert_eq!(Envelope::parse(&task.to_bytes()).unwrap(), task);
    assert_eq!(Envelope::from_metadata(&task.to_metadata()).unwrap(), task);
    assert_eq!(task.signers(Kind::Task), BTreeSet::from([fleet.keys[1].public()]));
    assert_eq!(task.signers(Kind::List), BTreeSet::new(), "a signature is for one kind of document");
}

// Rollback

#[test]
fn rollback_of_a_task_is_refused_with_code_4090() {
    let fleet = Fleet::new();
    let (old, new) = (fleet.signed_task("image", 3), fleet.signed_task("image", 4));
    let state = take_unlisted(&take_unlisted(&fleet.device(), &old).unwrap(), &new).unwrap();
    let refused = take_unlisted(&state, &old).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().starts_with("rollback refused")),
        (4090, true),
        "{refused}"
    );
    // Another name has serials of its own.
    take_unlisted(&state, &fleet.signed_task("editor", 1)).unwrap();
    // A wanted rollback is a new serial with the old content.
    let mut wanted = fleet.task("image", 5);
    wanted.objects = fleet.task("image", 3).objects;
    take_unlisted(&state, &wanted.sign(&[&fleet.keys[1]]).unwrap()).unwrap();
    // What was taken before it was replaced may not begin any more.
    let task = fleet.task("image", 3);
    let begun = state.may_begin(&task, old.hash(), Listing::Absent, NOW).unwrap_err();
    assert_eq!(begun.code(), 4090);
}

#[test]
fn the_same_serial_with_other_content_is_refused() {
    let fleet = Fleet::new();
    let state = take_unlisted(&fleet.device(), &fleet.signed_task("image", 3)).unwrap();
    let mut other = fleet.task("image", 3);
    other.at = Some("/etc/".to_owned());
    let refused = take_unlisted(&state, &other.sign(&[&fleet.keys[1]]).unwrap()).unwrap_err();
    assert_eq!(refused.code(), 4091);
}

#[test]
fn rollback_of_a_list_is_refused() {
    let fleet = Fleet::new();
    let task = fleet.signed_task("image", 3);
    let state = fleet.device().take_list(&fleet.signed_list(7, &[&task]), None, NOW).unwrap();
    assert_eq!(state.take_list(&fleet.signed_list(6, &[&task]), None, NOW).unwrap_err().code(), 4090);
    assert_eq!(state.take_list(&fleet.signed_list(7, &[]), None, NOW).unwrap_err().code(), 4091);
    // The same version with the same tasks, made anew: the usual answer when nothing changed.
    let mut renewed = fleet.list(7, &[&task]);
    (renewed.issued, renewed.expires) = (NOW + HOUR, NOW + 5 * HOUR);
    let state = state.take_list(&renewed.sign(&fleet.keys[2]).unwrap(), None, NOW + HOUR).unwrap();
    assert_eq!(state.list_expires(), Some(NOW + 5 * HOUR));
}

#[test]
fn a_new_list_cannot_name_an_older_task() {
    let fleet = Fleet::new();
    let (old, new) = (fleet.signed_task("image", 3), fleet.signed_task("image", 4));
    let state = fleet.device().take_list(&fleet.signed_list(1, &[&new]), None, NOW).unwrap();
    let state = take(&state, &new).unwrap();
    let refused = state.take_list(&fleet.signed_list(2, &[&old]), None, NOW).unwrap_err();
    assert!(
        matches!(&refused, Refusal::Rollback { kind: Kind::Task, name, .. } if name == "image"),
        "{refused}"
    );
    // A list that drops the task is fine, and then the task is not live.
    let state = state.take_list(&fleet.signed_list(2, &[]), None, NOW).unwrap();
    assert_eq!(take(&state, &new).unwrap_err().code(), 4092);
}

#[test]
fn rollback_of_a_root_is_refused() {
    let mut fleet = Fleet::new();
    let root1 = fleet.root1();
    let root2 = fleet.next_root(|_| {}, &[&key(1)]);
    let state = fleet.device().take_roots(std::slice::from_ref(&root2), NOW).unwrap();
    assert_eq!(state.root().version, 2);
    for old in [root1, root2] {
        assert_eq!(state.take_roots(&[old], NOW).unwrap_err().code(), 4090);
    }
}

// Freeze

#[test]
fn a_list_that_expires_unrenewed_freezes() {
    let fleet = Fleet::new();
    let task = fleet.signed_task("image", 3);
    assert_eq!(take(&fleet.device(), &task).unwrap_err(), Refusal::NoList);
    let list = fleet.signed_list(1, &[&task]);
    let state = take(&fleet.device().take_list(&list, None, NOW).unwrap(), &task).unwrap();
    let later = NOW + 4 * HOUR;
    state.not_frozen(later - 1).unwrap();
    let frozen = state.not_frozen(later).unwrap_err();
    assert_eq!(frozen.code(), 4081);
    assert_eq!(state.may_begin(&fleet.task("image", 3), task.hash(), Listing::Required, later), Err(frozen));
    // The recording of the list does not help.
    let replayed = state.take_list(&list, None, later).unwrap_err();
    assert!(matches!(replayed, Refusal::Expired { kind: Kind::List, .. }), "{replayed}");
    // Without lists, the task's own expiry is the bound.
    state.may_begin(&fleet.task("image", 3), task.hash(), Listing::Absent, later).unwrap();
    let expired = state.may_begin(&fleet.task("image", 3), task.hash(), Listing::Absent, NOW + 7 * DAY);
    assert!(matches!(expired, Err(Refusal::Expired { kind: Kind::Task, .. })));
}

#[test]
fn a_clock_that_goes_back_revives_nothing() {
    let fleet = Fleet::new();
    let mut late = fleet.task("editor", 1);
    (late.issued, late.expires) = (NOW + 8 * DAY, NOW + 9 * DAY);
    let state = take_unlisted(&fleet.device(), &late.sign(&[&fleet.keys[1]]).unwrap()).unwrap();
    // The device reboots without a battery: its clock says 1970. What it has seen says otherwise.
    let (attributes, clock) = (BTreeMap::new(), 0);
    let old = fleet.signed_task("image", 3);
    let refused = state.take_task(&old, &attributes, Listing::Absent, clock).unwrap_err();
    assert!(
        matches!(refused, Refusal::Expired { kind: Kind::Task, at } if at.clock == 0 && at.time == NOW + 8 * DAY)
    );
    // And a device that never had a clock works.
    fleet.device().take_task(&old, &attributes, Listing::Absent, clock).unwrap();
}

#[test]
fn a_nonce_must_be_echoed() {
    let fleet = Fleet::new();
    let mut list = fleet.list(1, &[]);
    let recorded = list.sign(&fleet.keys[2]).unwrap();
    list.nonce = Some("00ff".to_owned());
    let fresh = list.sign(&fleet.keys[2]).unwrap();
    let state = fleet.device();
    state.take_list(&fresh, Some("00ff"), NOW).unwrap();
    for (list, nonce) in [(&recorded, "00ff"), (&fresh, "00fe"), (&fresh, "")] {
        assert_eq!(state.take_list(list, Some(nonce), NOW), Err(Refusal::Nonce));
    }
}

// Mix and match

#[test]
fn a_task_that_the_list_does_not_name_is_refused() {
    let fleet = Fleet::new();
    let (a, b, c) = (fleet.signed_task("a", 1), fleet.signed_task("b", 1), fleet.signed_task("a", 2));
    let state = fleet.device().take_list(&fleet.signed_list(1, &[&a]), None, NOW).unwrap();
    take(&state, &a).unwrap();
    for other in [b, c] {
        assert_eq!(take(&state, &other).unwrap_err().code(), 4092);
    }
    let mut changed = fleet.task("a", 1);
    changed.version = "other".to_owned();
    let changed = changed.sign(&[&fleet.keys[1]]).unwrap();
    assert_eq!(take(&state, &changed).unwrap_err().code(), 4092);
}

// Keys

#[test]
fn wrong_keys_and_wrong_roles_are_refused() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let [root, operator, server] = &fleet.keys;
    let task = fleet.task("image", 3);
    for wrong in [&key(9), root, server] {
        let refused = take_unlisted(&state, &task.sign(&[wrong]).unwrap()).unwrap_err();
        assert_eq!(refused, Refusal::Signatures { kind: Kind::Task, valid: 0, threshold: 1 });
    }
    for wrong in [&key(9), root, operator] {
        let list = fleet.list(1, &[]).sign(wrong).unwrap();
        assert_eq!(state.take_list(&list, None, NOW).unwrap_err().code(), 4010);
    }
    // A list's signature, for a task's payload.
    let mut envelope = Envelope::unsigned(task.sign(&[]).unwrap().payload().to_vec());
    envelope.sign(Kind::List, operator);
    assert_eq!(take_unlisted(&state, &envelope).unwrap_err().code(), 4010);
    // Not signed at all.
    assert_eq!(take_unlisted(&state, &task.sign(&[]).unwrap()).unwrap_err().code(), 4010);
}

#[test]
fn one_key_twice_does_not_meet_a_threshold_of_two() {
    let mut fleet = Fleet::new();
    let (a, b) = (key(21), key(22));
    let two = fleet.next_root(|root| root.tasks = role(&[&a, &b], 2), &[&key(1)]);
    let state = fleet.device().take_roots(&[two], NOW).unwrap();
    let task = fleet.task("image", 3);
    let once = task.sign(&[&a]).unwrap();
    let mut text: Value = serde_json::from_slice(&once.to_bytes()).unwrap();
    let signature = text["signatures"][0].clone();
    for again in [signature.clone(), json!({"keyid": b.public().to_string(), "sig": signature["sig"]})] {
        text["signatures"] = json!([signature, again]);
        let envelope = Envelope::parse(&serde_json::to_vec(&text).unwrap()).unwrap();
        let refused = take_unlisted(&state, &envelope).unwrap_err();
        assert_eq!(refused, Refusal::Signatures { kind: Kind::Task, valid: 1, threshold: 2 });
    }
    // Two keys meet it, whoever else signed.
    take_unlisted(&state, &task.sign(&[&key(9), &b, &a]).unwrap()).unwrap();
    // Two operators on two machines, one after the other.
    let mut second = once;
    second.sign(Kind::Task, &b);
    take_unlisted(&state, &second).unwrap();
}

// Endless data

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let fleet = Fleet::new();
    let endless = vec![b' '; MAX_ENVELOPE + 1];
    let too_large = |error| matches!(error, Err(DocumentError::TooLarge { .. }));
    assert!(too_large(Envelope::parse(&endless)));
    assert!(too_large(Envelope::from_metadata(&"A".repeat(2 * MAX_ENVELOPE))));
    let mut task = fleet.signed_task("image", 3);
    for n in 0..=MAX_SIGNATURES as u8 {
        task.sign(Kind::Task, &key(100 + n));
    }
    assert!(too_large(Envelope::parse(&task.to_bytes())));
    // Deep nesting ends in an error, not in a stack that overflows.
    let deep = "[".repeat(MAX_ENVELOPE / 2);
    assert!(matches!(Envelope::parse(deep.as_bytes()), Err(DocumentError::Unreadable(_))));
    // A task that would not fit is not signed.
    let mut large = fleet.task("image", 3);
    large.objects =
        (0..1024).map(|n| Object { filename: format!("{n}"), ..large.objects[0].clone() }).collect();
    assert!(too_large(large.sign(&[&fleet.keys[1]])));
}

// Root: expiry, order, fast forward

#[test]
fn an_expired_root_stops_everything_but_newer_roots() {
    let mut fleet = Fleet::new();
    let later = NOW + 300 * DAY;
    let state = fleet.device();
    let task = fleet.signed_task("image", 3);
    let expired = |refusal: Refusal| matches!(refusal, Refusal::Expired { kind: Kind::Root, .. });
    assert!(expired(state.take_list(&fleet.signed_list(1, &[]), None, later).unwrap_err()));
    assert!(expired(state.take_task(&task, &BTreeMap::new(), Listing::Absent, later).unwrap_err()));
    // Root 2 has expired as well. Root 3 has not, and the way to it leads over root 2.
    let root2 = fleet.next_root(|root| root.expires = later - DAY, &[&key(1)]);
    let root3 = fleet.next_root(|root| root.expires = later + DAY, &[&key(1)]);
    assert!(expired(state.take_roots(std::slice::from_ref(&root2), later).unwrap_err()));
    let state = state.take_roots(&[root2, root3], later).unwrap();
    assert_eq!(state.root().version, 3);
}

#[test]
fn a_root_is_signed_by_the_old_keys_and_by_the_new() {
    let mut fleet = Fleet::new();
    let (old, new) = (key(1), key(11));
    let rotate = |root: &mut Root| root.root = role(&[&key(11)], 1);
    let state = fleet.device();
    for signers in [vec![&old], vec![&new], vec![&key(9)], vec![]] {
        let root = fleet.next_root(rotate, &signers);
        fleet.roots.pop();
        assert_eq!(state.take_roots(&[root], NOW).unwrap_err().code(), 4010, "{signers:?}");
    }
    let root = fleet.next_root(rotate, &[&old, &new]);
    let state = state.take_roots(&[root], NOW).unwrap();
    // From here on the old key means nothing.
    let root3 = fleet.next_root(|_| {}, &[&old]);
    fleet.roots.pop();
    assert_eq!(state.take_roots(&[root3], NOW).unwrap_err().code(), 4010);
    let root3 = fleet.next_root(|_| {}, &[&new]);
    state.take_roots(&[root3], NOW).unwrap();
}

#[test]
fn roots_come_one_by_one_and_at_most_64_at_once() {
    let mut fleet = Fleet::new();
    let chain: Vec<_> = (0..=MAX_ROOT_STEPS).map(|_| fleet.next_root(|_| {}, &[&key(1)])).collect();
    let state = fleet.device();
    assert_eq!(state.take_roots(&chain, NOW), Err(Refusal::RootSteps));
    assert_eq!(
        state.take_roots(&chain[1..3], NOW),
        Err(Refusal::RootOrder { expected: 2, number: 3 }),
        "a step left out"
    );
    let (first, rest) = chain.split_at(64);
    let state = state.take_roots(first, NOW).unwrap().take_roots(rest, NOW).unwrap();
    assert_eq!(state.root().version, 66);
}

#[test]
fn root_1_is_the_pinned_one() {
    let fleet = Fleet::new();
    let root = fleet.root1();
    let begin =
        |fleet: FleetId, pin, root: &Envelope| Trusted::begin(fleet, "desk-07", pin, root).unwrap_err();
    assert_eq!(begin(fleet.id, Hash([0; 32]), &root), Refusal::Pin);
    assert_eq!(begin(FleetId([2; 16]), root.hash(), &root), Refusal::Fleet { kind: Kind::Root });
    let unsigned = Envelope::unsigned(root.payload().to_vec());
    assert_eq!(begin(fleet.id, root.hash(), &unsigned).code(), 4010);
}

/// An attacker with the keys of server and operator uses up all numbers, far into the future. The fleet's owner makes a root
/// without these keys, and the devices recover.
#[test]
fn fast_forward_is_recovered_from_by_a_new_root() {
    let mut fleet = Fleet::new();
    let other = key(22);
    let both = fleet.next_root(|root| root.tasks = role(&[&key(2), &key(22)], 1), &[&key(1)]);
    let kept = fleet.task("editor", 8).sign(&[&other]).unwrap();
    let evil = fleet.signed_task("image", u64::MAX);
    let mut list = fleet.list(u64::MAX, &[&evil, &kept]);
    (list.issued, list.expires) = (NOW + 100 * DAY, NOW + 200 * DAY);
    let state = fleet.device().take_roots(&[both], NOW).unwrap();
    let state = take_unlisted(&take_unlisted(&state, &kept).unwrap(), &evil).unwrap();
    let state = state.take_list(&list.sign(&fleet.keys[2]).unwrap(), None, NOW).unwrap();
    assert_eq!(state.time(NOW), NOW + 100 * DAY);
    assert_eq!(state.take_list(&fleet.signed_list(5, &[]), None, NOW).unwrap_err().code(), 4080);

    fleet.keys[2] = key(33);
    let change = |root: &mut Root| (root.tasks, root.lists) = (role(&[&key(22)], 1), role(&[&key(33)], 1));
    let recovered = fleet.next_root(change, &[&key(1)]);
    let state = state.take_roots(&[recovered], NOW).unwrap();
    assert_eq!(state.time(NOW), NOW, "the attacker's time is forgotten too");
    let task = fleet.task("image", 4).sign(&[&other]).unwrap();
    let state = state.take_list(&fleet.signed_list(1, &[&task]), None, NOW).unwrap();
    let state = take(&state, &task).unwrap();
    // What the remaining key signed is still known: no rollback of it.
    let old = fleet.task("editor", 7).sign(&[&other]).unwrap();
    assert_eq!(take_unlisted(&state, &old).unwrap_err().code(), 4090);
    assert_eq!(take_unlisted(&state, &evil).unwrap_err().code(), 4010);
}

// Meant for others

#[test]
fn documents_for_another_device_or_fleet_are_refused() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let sign = |task: Task| task.sign(&[&fleet.keys[1]]).unwrap();
    let mut other_fleet = fleet.task("image", 3);
    other_fleet.fleet = FleetId([2; 16]);
    assert_eq!(take_unlisted(&state, &sign(other_fleet)), Err(Refusal::Fleet { kind: Kind::Task }));
    let mut list = fleet.list(1, &[]);
    list.device = "desk-08".to_owned();
    let refused = state.take_list(&list.sign(&fleet.keys[2]).unwrap(), None, NOW);
    assert_eq!(refused, Err(Refusal::Device { kind: Kind::List }));
    let mut list = fleet.list(1, &[]);
    list.fleet = FleetId([2; 16]);
    let refused = state.take_list(&list.sign(&fleet.keys[2]).unwrap(), None, NOW);
    assert_eq!(refused, Err(Refusal::Fleet { kind: Kind::List }));

    let attributes = BTreeMap::from([("hw_revision".to_owned(), "2.0".to_owned())]);
    let takes = |to| {
        let mut task = fleet.task("image", 3);
        task.to = to;
        state.take_task(&sign(task), &attributes, Listing::Absent, NOW).map(|_| ())
    };
    let names = |names: &[&str]| Audience::Devices(names.iter().map(|&name| name.to_owned()).collect());
    let terms = |text: &str| Audience::Terms(text.split(',').map(|term| term.parse().unwrap()).collect());
    for meant in [names(&["x", "desk-07"]), names(&["desk-*"]), terms("hw_revision>=2"), Audience::All] {
        takes(meant).unwrap();
    }
    for other in [names(&["desk-08"]), names(&["desk"]), terms("hw_revision>=2,hw_boardname=x")] {
        assert_eq!(takes(other), Err(Refusal::Device { kind: Kind::Task }));
    }
}

// Formats and members

#[test]
fn unknown_formats_are_refused_and_unknown_members_ignored() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let mut value = json_of(&fleet.signed_task("image", 3));
    value["future"] = json!({"anything": [1, 2]});
    take_unlisted(&state, &signed(Kind::Task, &value, &[&fleet.keys[1]])).unwrap();
    value["format"] = json!(2);
    value["objects"] = json!("of another shape");
    let refused = take_unlisted(&state, &signed(Kind::Task, &value, &[&fleet.keys[1]])).unwrap_err();
    assert_eq!(refused, DocumentError::Format { kind: Kind::Task, format: 2 }.into());
}

/// Every place in `value`, as a path of members and indices.
fn places(value: &Value) -> Vec<String> {
    fn inner<'a>(pairs: impl Iterator<Item = (String, &'a Value)>) -> Vec<String> {
        let below = |(name, value)| {
            places(value).into_iter().map(move |rest| format!("/{name}{rest}")).collect::<Vec<_>>()
        };
        pairs.flat_map(below).collect()
    }
    match value {
        Value::Object(map) => inner(map.iter().map(|(name, value)| (name.clone(), value))),
        Value::Array(list) => inner(list.iter().enumerate().map(|(n, value)| (n.to_string(), value))),
        _ => vec![String::new()],
    }
}

/// Another value of the same type.
fn changed(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(format!("{text}0")),
        Value::Number(n) => json!(n.as_i64().unwrap() + 1),
        Value::Bool(b) => json!(!b),
        other => json!([other]),
    }
}

/// A task in which every member has a value.
fn full_task(fleet: &Fleet) -> Task {
    let mut task = fleet.task("firmware", 3);
    (task.kind, task.handler, task.at) = (TaskKind::Update, Some("fw".to_owned()), None);
    task.arguments = BTreeMap::from([
        ("slot".to_owned(), Argument::Text("b".to_owned())),
        ("force".to_owned(), Argument::Boolean(true)),
        ("count".to_owned(), Argument::Integer(-3)),
    ]);
    task.to = Audience::Devices(BTreeSet::from(["desk-*".to_owned()]));
    task.when = vec!["version < 2.1".parse().unwrap()];
    task.senders = vec!["mcp-sender1-x".to_owned()];
    task.start = Some(NOW);
    task.window = Some("22:00-05:00".parse().unwrap());
    task.after = vec!["image".to_owned()];
    task
}

#[test]
fn a_changed_field_of_any_document_breaks_its_signature() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let task = full_task(&fleet).sign(&[&fleet.keys[1]]).unwrap();
    let state = state.take_list(&fleet.signed_list(1, &[&task]), None, NOW).unwrap();
    take(&state, &task).unwrap();
    let mut list = fleet.list(2, &[&task]);
    list.nonce = Some("00ff".to_owned());
    let list = list.sign(&fleet.keys[2]).unwrap();
    state.take_list(&list, Some("00ff"), NOW).unwrap();
    let mut after = Fleet::new();
    let root = after.next_root(|_| {}, &[&key(1)]);
    state.take_roots(std::slice::from_ref(&root), NOW).unwrap();

    let mut fields = 0;
    for (kind, envelope) in [(Kind::Task, &task), (Kind::List, &list), (Kind::Root, &root)] {
        let value = json_of(envelope);
        for place in places(&value) {
            let mut other = value.clone();
            let field = other.pointer_mut(&place).unwrap();
            *field = changed(field);
            let mut text: Value = serde_json::from_slice(&envelope.to_bytes()).unwrap();
            text["payload"] = serde_json::from_slice::<Value>(
                &Envelope::unsigned(serde_json::to_vec(&other).unwrap()).to_bytes(),
            )
            .unwrap()["payload"]
                .take();
            let forged = Envelope::parse(&serde_json::to_vec(&text).unwrap()).unwrap();
            let refused = match kind {
                Kind::Task => take(&state, &forged),
                Kind::List => state.take_list(&forged, Some("00ff"), NOW),
                Kind::Root => state.take_roots(&[forged], NOW),
                Kind::Request | Kind::Join => unreachable!("not a document"),
            };
            assert_eq!(refused.unwrap_err().code(), 4010, "{place} of the {}", kind.name());
            fields += 1;
        }
    }
    assert!(fields >= 45, "{fields} fields");
}

#[test]
fn every_byte_of_payload_and_signature_counts() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let bytes = fleet.signed_task("image", 3).to_bytes();
    let mut random = fastrand::Rng::with_seed(340_001);
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << random.u8(..7);
        let taken = Envelope::parse(&bytes).map_err(Refusal::from).and_then(|e| take_unlisted(&state, &e));
        assert!(taken.is_err(), "byte {at}");
    }
}

/// Values that even the right key cannot make a device take.
#[test]
fn members_out_of_their_rules_are_refused_though_signed() {
    let fleet = Fleet::new();
    let state = fleet.device();
    let [root_key, operator, server] = &fleet.keys;
    let copy = json_of(&fleet.signed_task("image", 3));
    let install = json_of(&full_task(&fleet).sign(&[]).unwrap());
    let object = copy["objects"][0].clone();
    let named = |name: &str| {
        let mut object = object.clone();
        object["filename"] = json!(name);
        object
    };
    let many = |n: usize| (0..n).map(|n| named(&format!("f{n}"))).collect::<Vec<_>>();
    let cases = [
        (&copy, "name", json!("")),
        (&copy, "name", json!("../x")),
        (&copy, "name", json!("-rf")),
        (&copy, "name", json!("n".repeat(129))),
        (&copy, "serial", json!(0)),
        (&copy, "serial", json!(-1)),
        (&copy, "serial", json!("3")),
        (&copy, "version", json!("1\n2")),
        (&copy, "issued", json!(NOW + 30 * DAY)),
        (&copy, "kind", json!("exec")),
        (&copy, "handler", json!("sh")),
        (&copy, "at", json!("srv")),
        (&copy, "at", json!("/srv/../etc/")),
        (&copy, "at", json!("/srv/a\nb/")),
        (&copy, "at", Value::Null),
        (&copy, "objects", json!([])),
        (&copy, "objects", json!([named("a/b")])),
        (&copy, "objects", json!([named("..")])),
        (&copy, "objects", json!([named("a\0b")])),
        (&copy, "objects", json!([named("a"), named("a")])),
        (&copy, "objects", json!(many(1025))),
        (&copy, "to", json!({"devices": []})),
        (&copy, "to", json!("some")),
        (&copy, "window", json!("22:00-24:00")),
        (&copy, "window", json!("22:00-22:00")),
        (&copy, "after", json!(["image"])),
        (&copy, "start", json!(NOW + 30 * DAY)),
        (&copy, "fleet", json!("00")),
        (&install, "handler", Value::Null),
        (&install, "handler", json!("../sh")),
        (&install, "at", json!("/srv/")),
        (&install, "arguments", json!({"a b": 1})),
        (&install, "arguments", json!({"a": "x\0y"})),
        (&install, "arguments", json!({"a": 1.5})),
        (&install, "arguments", json!({"a": ["x"]})),
    ];
    for (base, member, value) in cases {
        let mut task = base.clone();
        task[member] = value;
        let taken = take_unlisted(&state, &signed(Kind::Task, &task, &[operator]));
        let refused = taken.expect_err(&format!("{member}: {:.80}", task[member].to_string()));
        assert!(matches!(refused, Refusal::Document(_)), "{member}: {refused}");
    }
    let list = json_of(&fleet.signed_list(1, &[]));
    let entry = json!({"name": "a", "serial": 1, "hash": Hash([0; 32])});
    for (member, value) in [
        ("version", json!(0)),
        ("device", json!("a b")),
        ("nonce", json!("xyz")),
        ("nonce", json!("00".repeat(33))),
        ("tasks", json!([entry, entry])),
        ("tasks", json!([{"name": "a/b", "serial": 1, "hash": Hash([0; 32])}])),
        ("expires", json!(0)),
    ] {
        let mut list = list.clone();
        list[member] = value;
        let refused = state.take_list(&signed(Kind::List, &list, &[server]), None, NOW).unwrap_err();
        assert!(matches!(refused, Refusal::Document(_)), "{member}: {refused}");
    }
    let root = json_of(&Fleet::new().next_root(|_| {}, &[]));
    for (member, value) in [
        ("tasks", json!({"keys": [], "threshold": 0})),
        ("tasks", json!({"keys": [operator.public()], "threshold": 2})),
        ("lists", json!({"keys": [operator.public()], "threshold": 0})),
        ("expires", json!(0)),
    ] {
        let mut root = root.clone();
        root[member] = value;
        let refused = state.take_roots(&[signed(Kind::Root, &root, &[root_key])], NOW).unwrap_err();
        assert!(matches!(refused, Refusal::Document(_)), "{member}: {refused}");
    }
}

#[test]
fn windows() {
    let window = |text: &str| text.parse::<Window>();
    let night = window("22:00-05:00").unwrap();
    for (minute, inside) in
        [(22 * 60, true), (0, true), (299, true), (300, false), (720, false), (1319, false)]
    {
        assert_eq!(night.contains(minute), inside, "{minute}");
    }
    let day = window("08:30-17:00").unwrap();
    assert!(day.contains(510) && !day.contains(509) && !day.contains(1020));
    assert_eq!(night.to_string(), "22:00-05:00");
    for wrong in ["", "22-5", "8:30-17:00", "24:00-01:00", "08:60-09:00", "+8:30-09:00", "08:00-08:00"] {
        assert!(window(wrong).is_err(), "{wrong}");
    }
}

/// Offers documents, good and bad, in a random order, with a clock that jumps. Whatever comes, numbers only grow while the
/// signatures that they are known by count, and nothing forged is taken.
#[test]
fn no_sequence_of_documents_takes_a_device_back() {
    for seed in 340_100..340_150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fleet = Fleet::new();
        let mut state = fleet.device();
        let (mut versions, mut serials) = (0, BTreeMap::<String, (u64, Hash)>::new());
        let mut taken = 0;
        for _ in 0..60 {
            let clock = if random.u8(..4) == 0 { random.u64(..2 * NOW) } else { NOW + random.u64(..DAY) };
            let name = ["a", "b", "c"][random.usize(..3)];
            let serial = random.u64(1..8);
            let mut task = fleet.task(name, serial);
            task.expires = NOW + random.u64(1..20) * HOUR;
            // Now and then a serial gets two contents.
            task.version = random.u8(..2).to_string();
            let forged = random.u8(..5) == 0;
            let operator = if forged { key(99) } else { fleet.keys[1].clone() };
            let signed = task.sign(&[&operator]).unwrap();
            match random.u8(..10) {
                0 => {
                    let expires = NOW + random.u64(1..400) * DAY;
                    let root = fleet.next_root(|root| root.expires = expires, &[&key(1)]);
                    match state.take_roots(&[root], clock) {
                        Ok(next) => state = next,
                        Err(_) => drop(fleet.roots.pop()),
                    }
                }
                1..4 => {
                    let version = random.u64(1..20);
                    let mut list = fleet.list(version, &[&signed]);
                    list.expires = NOW + random.u64(1..20) * HOUR;
                    let server = if forged { key(98) } else { fleet.keys[2].clone() };
                    if let Ok(next) = state.take_list(&list.sign(&server).unwrap(), None, clock) {
                        assert!(!forged && version >= versions && clock < list.expires, "seed {seed}");
                        (state, versions) = (next, version);
                    }
                }
                _ => {
                    let listing = if random.bool() { Listing::Required } else { Listing::Absent };
                    if let Ok((next, read)) = state.take_task(&signed, &BTreeMap::new(), listing, clock) {
                        let (seen, hash) = serials
                            .insert(name.to_owned(), (serial, signed.hash()))
                            .unwrap_or((0, signed.hash()));
                        assert!(!forged && serial >= seen && clock < task.expires, "seed {seed}");
                        assert!(
                            serial > seen || hash == signed.hash(),
                            "seed {seed}: one serial, two contents"
                        );
                        next.may_begin(&read, signed.hash(), listing, clock).unwrap();
                        state = next;
                        taken += 1;
                    }
                }
            }
            assert_eq!(Trusted::parse(&state.to_bytes()).as_ref(), Ok(&state));
        }
        assert!(taken > 0, "seed {seed}");
    }
}
