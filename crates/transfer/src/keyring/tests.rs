use super::*;
use crate::crypto::sign::SigningKey;
use crate::units::{DeviceId, DeviceKey, SenderKey};
use std::net::IpAddr;

fn keyring() -> (tempfile::TempDir, Keyring) {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::new(dir.path().join("a/state"));
    (dir, keyring)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn seconds(keys: &GroupKeys) -> Vec<[u8; 32]> {
    keys.secrets().map(|secret| *secret.expose()).collect()
}

#[test]
fn a_senders_key_is_made_once_and_is_private() {
    let (_tmp, keyring) = keyring();
    let mut warnings = Vec::new();
    let first = SigningKey::new(&keyring.sender(&mut warnings).unwrap()).public();
    let path = keyring.dir.join("sender.key");
    assert_eq!((mode(&path), mode(&keyring.dir)), (0o600, 0o700));
    assert_eq!(SigningKey::new(&keyring.sender(&mut warnings).unwrap()).public(), first);
    assert!(warnings.is_empty(), "{warnings:?}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# ") && text.contains("\nmcp-identity1-"), "{text}");
}

#[test]
fn a_damaged_senders_key_is_set_aside() {
    let good = {
        let (_tmp, keyring) = keyring();
        keyring.sender(&mut Vec::new()).unwrap();
        fs::read_to_string(keyring.dir.join("sender.key")).unwrap()
    };
    let (cut, twice) = (good[..good.len() - 9].to_owned(), good.repeat(2));
    let large = format!("{good}{}", "\n".repeat(5000));
    for text in ["", "x", cut.as_str(), twice.as_str(), large.as_str(), "\u{fffd}"] {
        let (_tmp, keyring) = keyring();
        fs::create_dir_all(&keyring.dir).unwrap();
        write_private(&keyring.dir.join("sender.key"), text.as_bytes()).unwrap();
        let mut warnings = Vec::new();
        let made = *keyring.sender(&mut warnings).unwrap().expose();
        assert_eq!(warnings.len(), 1, "{text:?}: {warnings:?}");
        assert!(warnings[0].contains("sender.key.bad"), "{warnings:?}");
        assert_eq!(fs::read_to_string(keyring.dir.join("sender.key.bad")).unwrap(), text);
        assert_eq!(keyring.sender(&mut warnings).unwrap().expose(), &made);
        assert_eq!(warnings.len(), 1);
    }
}

#[test]
fn two_that_start_at_once_agree_on_a_senders_key() {
    let (_tmp, keyring) = keyring();
    let keys: Vec<_> = std::thread::scope(|scope| {
        let made: Vec<_> =
            (0..8).map(|_| scope.spawn(|| *keyring.sender(&mut Vec::new()).unwrap().expose())).collect();
        made.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[test]
fn a_secret_that_others_could_read_is_mended_with_a_warning() {
    let (_tmp, keyring) = keyring();
    keyring.sender(&mut Vec::new()).unwrap();
    keyring.create("lab").unwrap();
    let (sender, lab) = (keyring.dir.join("sender.key"), keyring.dir.join("keys/lab.key"));
    for path in [&sender, &lab] {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    let mut warnings = Vec::new();
    keyring.sender(&mut warnings).unwrap();
    keyring.keys("lab", &mut warnings).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].contains("no longer can; renew it with 'mcp key rotate lab'"), "{warnings:?}");
    assert_eq!((mode(&sender), mode(&lab)), (0o600, 0o600));
    keyring.keys("lab", &mut warnings).unwrap();
    assert_eq!(warnings.len(), 2);
}

#[test]
fn group_keys_come_and_go() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    assert_eq!(keyring.names().unwrap(), [""; 0]);
    assert!(matches!(keyring.keys("lab", w), Err(KeyringError::Absent(_))));
    let first = keyring.create("lab").unwrap();
    keyring.create("attic").unwrap();
    assert!(matches!(keyring.create("lab"), Err(KeyringError::Exists(_))));
    assert_eq!(keyring.names().unwrap(), ["attic", "lab"]);
    assert_eq!(mode(&keyring.dir.join("keys/lab.key")), 0o600);
    assert_eq!(mode(&keyring.dir.join("keys")), 0o700);

    let second = keyring.rotate("lab", w).unwrap();
    let both = [*second.secret().expose(), *first.secret().expose()];
    assert_eq!(seconds(&keyring.keys("lab", w).unwrap()), both);
    assert_eq!(mode(&keyring.dir.join("keys/lab.key")), 0o600);
    assert_eq!(keyring.remove_older("lab", w).unwrap(), 1);
    assert_eq!(seconds(&keyring.keys("lab", w).unwrap()), both[..1]);

    keyring.remove("lab").unwrap();
    assert!(matches!(keyring.remove("lab"), Err(KeyringError::Absent(_))));
    assert!(matches!(keyring.rotate("lab", w), Err(KeyringError::Absent(_))));
    assert_eq!(keyring.names().unwrap(), ["attic"]);
    for name in ["../lab", "", "none", ".lab", "a/b"] {
        assert!(matches!(keyring.create(name), Err(KeyringError::Name(..))), "{name}");
        assert!(matches!(keyring.remove(name), Err(KeyringError::Name(..))), "{name}");
    }
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn keys_from_elsewhere() {
    let ((_a, here), (_b, there)) = (keyring(), keyring());
    let w = &mut Vec::new();
    let carried = |keyring: &Keyring| keyring.keys("lab", &mut Vec::new()).unwrap();
    here.create("lab").unwrap();
    let old = carried(&here);
    assert_eq!(there.add(old.clone(), w).unwrap(), Added::New);
    assert_eq!(there.add(old.clone(), w).unwrap(), Added::Current);
    here.rotate("lab", w).unwrap();
    let new = GroupKeys::new(carried(&here).current().clone());
    assert_eq!(there.add(new, w).unwrap(), Added::Renewed);
    assert_eq!(seconds(&carried(&there)), seconds(&carried(&here)));
    // The old line does not undo the rotation.
    assert_eq!(there.add(old, w).unwrap(), Added::Older);
    assert_eq!(seconds(&carried(&there)), seconds(&carried(&here)));
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn a_damaged_group_key_is_no_reason_to_go_on_without() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    let key = keyring.create("lab").unwrap();
    let path = keyring.dir.join("keys/lab.key");
    let other = GroupKey::new("other", key.secret().clone()).unwrap().line().to_string();
    for text in ["", "x\n", &key.line()[..40], &other] {
        write_private(&path, text.as_bytes()).unwrap();
        assert!(matches!(keyring.keys("lab", w), Err(KeyringError::Damaged { .. })), "{text:?}");
        assert_eq!(keyring.names().unwrap(), ["lab"]);
        assert!(matches!(keyring.create("lab"), Err(KeyringError::Exists(_))));
    }
    assert!(w.is_empty(), "{w:?}");
    assert_eq!(keyring.add(GroupKeys::new(key.clone()), w).unwrap(), Added::New);
    assert!(w[0].contains("lab.key.bad"), "{w:?}");
    assert_eq!(seconds(&keyring.keys("lab", w).unwrap()), [*key.secret().expose()]);
    write_private(&path, b"").unwrap();
    keyring.remove("lab").unwrap();
}

#[test]
fn there_is_a_most() {
    let (_tmp, keyring) = keyring();
    for n in 0..MAX_GROUP_KEYS {
        keyring.create(&format!("k{n}")).unwrap();
    }
    assert!(matches!(keyring.create("one-more"), Err(KeyringError::TooMany)));
    keyring.rotate("k0", &mut Vec::new()).unwrap();
}

fn known(n: u8) -> KnownSender {
    KnownSender { address: IpAddr::from([10, 0, 0, n]), key: SenderKey([n; 32]), label: format!("seen {n}") }
}

#[test]
fn senders_are_remembered_and_forgotten() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    assert_eq!(keyring.known_senders(w).unwrap(), []);
    for n in [1, 2, 3, 4] {
        keyring.remember(known(n), w).unwrap();
    }
    keyring.remember(KnownSender { address: "fe80::1".parse().unwrap(), ..known(1) }, w).unwrap();
    keyring.remember(KnownSender { key: SenderKey([9; 32]), ..known(1) }, w).unwrap();
    assert_eq!(keyring.known_senders(w).unwrap(), [known(1), known(2), known(3), known(4)]);
    assert_eq!(mode(&keyring.dir.join("known-senders")), 0o600);
    assert_eq!(keyring.forget("10.0.0.1", w).unwrap(), [known(1)]);
    assert_eq!(keyring.forget(&known(3).key.line(), w).unwrap(), [known(3)]);
    assert_eq!(keyring.forget(&known(4).key.fingerprint(), w).unwrap(), [known(4)]);
    assert!(matches!(keyring.forget("10.0.0.1", w), Err(senders::SendersError::Unknown(_))));
    assert_eq!(keyring.known_senders(w).unwrap(), [known(2)]);
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn what_is_remembered_is_cleaned_and_bounded() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    let label = format!("a\nb\x1b{}", "ä".repeat(60));
    keyring.remember(KnownSender { label, ..known(1) }, w).unwrap();
    assert_eq!(keyring.known_senders(w).unwrap()[0].label, format!("ab{}", "ä".repeat(31)));
    for n in 1..crate::limits::MAX_KNOWN_SENDERS as u32 {
        let mut key = SenderKey([0xff; 32]);
        key.0[..4].copy_from_slice(&n.to_be_bytes());
        let address =
            IpAddr::from((0x2001_0db8_1111_2222_3333_4444_0000_0000_u128 | u128::from(n)).to_be_bytes());
        let sender = KnownSender { address, key, label: "x".repeat(64) };
        if n % 200 == 1 || n + 3 > crate::limits::MAX_KNOWN_SENDERS as u32 {
            keyring.remember(sender, w).unwrap();
        } else {
            // Written at once: as many synced writes would take long.
            let mut all = keyring.known_senders(w).unwrap();
            all.push(sender);
            fs::write(keyring.dir.join("known-senders"), seen::text(&all)).unwrap();
        }
    }
    assert!(matches!(keyring.remember(known(2), w), Err(senders::SendersError::Full)));
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn a_damaged_list_of_senders_is_set_aside() {
    let (_tmp, keyring) = keyring();
    keyring.remember(known(1), &mut Vec::new()).unwrap();
    let path = keyring.dir.join("known-senders");
    let good = fs::read_to_string(&path).unwrap();
    assert_eq!(parse_known_senders(good.as_bytes()).unwrap(), [known(1)]);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone().into_bytes();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The line break at the end may be missing.
        let same = parse_known_senders(&bad).is_none_or(|senders| senders == [known(1)]);
        assert!(same && (bit / 8 == good.len() - 1 || parse_known_senders(&bad).is_none()), "bit {bit}");
    }
    for bad in ["", "mcp-known-senders 1\n", &good[..good.len() - 5], &good.replace("ers 1", "ers 2")] {
        fs::write(&path, bad).unwrap();
        let mut warnings = Vec::new();
        assert_eq!(keyring.known_senders(&mut warnings).unwrap(), []);
        assert!(warnings.len() == 1 && warnings[0].contains("known-senders.bad"), "{warnings:?}");
        assert_eq!(fs::read_to_string(keyring.dir.join("known-senders.bad")).unwrap(), bad);
        keyring.remember(known(2), &mut warnings).unwrap();
        assert_eq!(keyring.known_senders(&mut warnings).unwrap(), [known(2)]);
        assert_eq!(warnings.len(), 1);
    }
}

fn device(n: u32, key: u8) -> KnownDevice {
    let mut id = [0xd0; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    KnownDevice { device: DeviceId(id), key: DeviceKey([key; 32]), label: format!("lab-{n}") }
}

#[test]
fn a_device_has_a_key_of_its_own_and_a_second_receiver_another() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    let public = |secret: Secret| SigningKey::new(&secret).public();
    let keys = [keyring.device(1, w), keyring.device(2, w), keyring.sender(w)];
    let [first, second, sender] = keys.map(|key| public(key.unwrap()));
    assert!(first != second && first != sender && second != sender);
    assert_eq!(public(keyring.device(1, w).unwrap()), first);
    assert_eq!([mode(&keyring.dir.join("device.key")), mode(&keyring.dir.join("device.key.2"))], [0o600; 2]);
    assert!(w.is_empty(), "{w:?}");
    fs::write(keyring.dir.join("device.key"), "damaged").unwrap();
    assert_ne!(public(keyring.device(1, w).unwrap()), first);
    let parts = ["device.key.bad", "'mcp key device'", "'mcp device forget NAME'"];
    assert!(w.len() == 1 && parts.iter().all(|part| w[0].contains(part)), "{w:?}");
}

#[test]
fn the_keys_of_devices_are_remembered_and_replaced() {
    let (_tmp, keyring) = keyring();
    let w = &mut Vec::new();
    assert_eq!(keyring.known_devices(w).unwrap(), []);
    keyring.remember_devices(vec![], w).unwrap();
    assert!(!keyring.dir.exists());
    keyring.remember_devices(vec![device(1, 1), device(2, 2)], w).unwrap();
    keyring.remember_devices(vec![device(1, 9)], w).unwrap();
    assert_eq!(keyring.known_devices(w).unwrap(), [device(2, 2), device(1, 9)]);
    assert_eq!(mode(&keyring.dir.join("known-devices")), 0o600);
    // There is a most: those that were seen longest ago go.
    let most = crate::limits::MAX_KNOWN_DEVICES as u32;
    keyring.remember_devices((10..most + 9).map(|n| device(n, 3)).collect(), w).unwrap();
    let known = keyring.known_devices(w).unwrap();
    assert_eq!((known.len(), &known[0]), (most as usize, &device(1, 9)));
    keyring.remember_devices(vec![device(3, 3)], w).unwrap();
    assert_eq!(keyring.known_devices(w).unwrap()[0], device(10, 3));
    assert!(w.is_empty(), "{w:?}");
    fs::write(keyring.dir.join("known-devices"), "mcp-known-devices 1\n").unwrap();
    assert_eq!(keyring.known_devices(w).unwrap(), []);
    assert!(w.len() == 1 && w[0].contains("known-devices.bad"), "{w:?}");
}

#[test]
fn a_directory_that_is_not_for_this_user_alone_is_refused() {
    let (_tmp, keyring) = keyring();
    assert!(matches!(keyring.check(), Ok(None)), "it does not exist yet");
    keyring.sender(&mut Vec::new()).unwrap();
    assert!(matches!(keyring.check(), Ok(None)));
    let set = |mode| fs::set_permissions(&keyring.dir, Permissions::from_mode(mode)).unwrap();
    set(0o755);
    assert!(matches!(keyring.check(), Ok(None)), "its files are private all the same");
    for mode in [0o770, 0o702, 0o1777] {
        set(mode);
        let error = keyring.check().unwrap_err().to_string();
        assert!(
            error.contains(&keyring.dir.display().to_string()) && error.contains("chmod go-w"),
            "{error}"
        );
    }
    set(0o700);
    // A directory of another user: root gives one away, and other users do not own /usr.
    let other = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&keyring.dir, Some(65_534), None).unwrap();
        keyring.clone()
    } else {
        Keyring::new("/usr".into())
    };
    let error = other.check().unwrap_err().to_string();
    assert!(error.contains(&other.dir.display().to_string()) && error.contains("belongs to user"), "{error}");
    // No directory at all has no keys, which is said.
    let file = Keyring::new("/dev/null".into());
    assert!(file.check().unwrap().unwrap().contains("/dev/null is none"));
    let below = Keyring::new("/dev/null/state".into());
    assert!(below.check().unwrap().unwrap().contains("cannot be read"));
}
