//! Messages to people about the keys of senders and devices.

use crate::ui::text::device_name;
use mcp_transfer::protocol::need::Need;
use mcp_transfer::protocol::trust::TrustDecision;
use mcp_transfer::text::escape;
use mcp_transfer::units::{DeviceId, DeviceKey, SenderKey};
use std::net::IpAddr;

/// Describes a trusted sender and the reason for the trust.
#[must_use]
pub fn trusted(key: &SenderKey, address: IpAddr, decision: TrustDecision, relayed: bool) -> String {
    let fingerprint = key.fingerprint();
    match decision {
        TrustDecision::Pinned if relayed => {
            format!("signed by {fingerprint}, given with --sender, and relayed by {address}")
        }
        _ if relayed => format!("signed by {fingerprint}, known, and relayed by {address}"),
        TrustDecision::Pinned => format!("sender {fingerprint} at {address}, given with --sender"),
        TrustDecision::Known => format!("sender {fingerprint} at {address}, known"),
        TrustDecision::FirstUse => format!(
            "sender {fingerprint} at {address}, seen for the first time and remembered; if the sender's own \
             screen shows another fingerprint, interrupt and run 'mcp key forget {address}'"
        ),
        _ => {
            format!("sender unverified: {fingerprint} at {address}; name the sender with --sender to be sure")
        }
    }
}

/// Explains why the receiver refuses a sender, and what the user can do.
#[must_use]
pub fn refused(key: &SenderKey, address: IpAddr, decision: TrustDecision) -> String {
    let fingerprint = key.fingerprint();
    match decision {
        TrustDecision::Changed { expected } => format!(
            "refused the sender at {address}, whose key changed from {} to {fingerprint}: the machine was \
             reinstalled, its address was reassigned, or someone is impersonating it; if you expected this, run \
             'mcp key forget {address}'",
            expected.fingerprint()
        ),
        TrustDecision::Unknown => format!(
            "refused the sender at {address}: its key {fingerprint} is not known here, and --then and --loop are for \
             known senders; add --sender {} or a group key, or take files from anyone with --any-sender",
            key.line()
        ),
        _ => format!(
            "refused the sender at {address}: its key {fingerprint} is not trusted here; to trust it, add \
             --sender {}",
            key.line()
        ),
    }
}

/// Says that a device shows another key than before, and what that may mean.
#[must_use]
pub fn device_key_changed(
    device: DeviceId,
    label: &str,
    key: Option<&DeviceKey>,
    before: &DeviceKey,
) -> String {
    let name = device_name(label, device);
    let (before, now) = (before.fingerprint(), key.map_or("none".to_owned(), DeviceKey::fingerprint));
    format!(
        "the key of {name} changed from {before} to {now}: it was set up anew, or another machine has its \
         identifier; to be sure of a device, list it with its key (--devices)"
    )
}

/// Says that a device was turned away since it is not on the list.
#[must_use]
pub fn not_listed(label: &str, address: IpAddr, key: Option<&DeviceKey>, named: bool) -> String {
    let (name, shown) =
        (escape(label), key.map_or("no key".to_owned(), |key| format!("the key {}", key.line())));
    if named {
        format!("turned {name} at {address} away: the list has another key for it, and it showed {shown}")
    } else {
        format!("turned {name} at {address} away: it is not on the list; it showed {shown}")
    }
}

/// Why nothing is taken from a sender that this program does not understand.
#[must_use]
pub fn needs(need: &Need, address: IpAddr) -> String {
    if *need == Need::Answers {
        return format!(
            "the sender at {address} waits for answers, and --one-way sends none; leave it out to receive from there; \
             still looking for others"
        );
    }
    format!(
        "the sender at {address} needs {need}: install the release of mcp that it runs; still looking for others"
    )
}

/// Says that an announced session may be a recording.
#[must_use]
pub fn old_session(key: &SenderKey, address: IpAddr) -> String {
    format!(
        "ignored a transfer signed by {} from {address}: what was last received from this sender is as new or newer, so \
         it may be a recording; to receive it all the same, add --again",
        key.fingerprint()
    )
}

/// Who this machine is as a sender, and what its sessions are sealed with.
#[must_use]
pub fn introduction(key: &SenderKey, sealed_with: Option<&str>) -> String {
    let sealed = match sealed_with {
        Some(name) => format!("sealed with key {name}"),
        None => "not sealed: anyone on the network can read it".to_owned(),
    };
    format!("this sender is {}, {sealed}", key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_judgement_has_its_words() {
        let (key, expected, at) = (SenderKey([1; 32]), SenderKey([2; 32]), IpAddr::from([10, 0, 0, 5]));
        let all =
            [TrustDecision::Pinned, TrustDecision::Known, TrustDecision::FirstUse, TrustDecision::Unverified];
        for (decision, words) in all.into_iter().zip(["--sender", "known", "first time", "sender unverified"])
        {
            let line = trusted(&key, at, decision, false);
            assert!(line.contains(words) && line.contains(&key.fingerprint()), "{line}");
        }
        for (decision, words) in [(TrustDecision::Pinned, "--sender"), (TrustDecision::Known, "known")] {
            let line = trusted(&key, at, decision, true);
            assert!(line.contains(words) && line.contains("relayed by 10.0.0.5"), "{line}");
        }
        let changed = refused(&key, at, TrustDecision::Changed { expected });
        for part in [&key.fingerprint(), &expected.fingerprint(), "mcp key forget 10.0.0.5"] {
            assert!(changed.contains(part), "{changed}");
        }
        assert!(refused(&key, at, TrustDecision::Stranger).contains(&format!("--sender {}", key.line())));
        let unknown = refused(&key, at, TrustDecision::Unknown);
        for part in [&format!("--sender {}", key.line()), "--any-sender", "group key"] {
            assert!(unknown.contains(part), "{unknown}");
        }
        let (own, former) = (DeviceKey([1; 32]), DeviceKey([2; 32]));
        let changed = device_key_changed(DeviceId([3; 16]), "lab\u{7}", Some(&own), &former);
        for part in ["lab\\u{7}", &own.fingerprint(), &former.fingerprint(), "--devices"] {
            assert!(changed.contains(part), "{changed}");
        }
        assert!(device_key_changed(DeviceId([3; 16]), "lab", None, &former).contains("to none"));
        let unlisted = not_listed("lab\u{7}", at, None, false);
        assert!(unlisted.contains("not on the list") && unlisted.contains("lab\\u{7}"), "{unlisted}");
        assert!(not_listed("lab", at, Some(&own), true).contains(&own.line()));
        assert!(introduction(&key, None).ends_with("not sealed: anyone on the network can read it"));
        assert!(introduction(&key, Some("lab")).ends_with(", sealed with key lab"));
    }
}
