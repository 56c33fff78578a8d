//! Servers and mirrors that lie, and what they may say of files. Each is refused, in feedback or in the status, and the agent goes on.

use super::*;
use crate::documents::Kind;

/// Waits until the status says this.
async fn shows(bed: &Bed, member: &str, text: &str) {
    let mut shown = Value::Null;
    for _ in 0..1000 {
        if let Ok(status) = status(&bed.state()) {
            shown = serde_json::to_value(status).unwrap();
            if shown[member].to_string().contains(text) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the status never said '{text}': {shown}");
}

#[tokio::test]
async fn lists_that_are_recorded_rolled_back_mixed_or_of_others() {
    let bed = Bed::new().await;
    let task = bed.task(2);
    bed.offer("1", Some(&task));
    let agent = bed.start(None, bed.settings());
    assert!(success(&bed.closed().await));
    let newer = bed.task(3).sign(&[&key(2)]).unwrap();
    let hash = newer.hash();
    let entry = |serial, hash| Entry { name: "image".to_owned(), serial, hash };
    let cases: [(&str, u8, Forge); 7] = [
        ("it may be a recording (code 4032)", 3, Box::new(|list| list.nonce = Some("00".repeat(16)))),
        ("rollback refused: the list has number 1,", 3, Box::new(|list| list.version = 1)),
        (
            "rollback refused: the task image has number 1, and 2 was seen (code 4090)",
            3,
            Box::new(move |list| list.tasks = vec![entry(1, hash)]),
        ),
        ("and other content (code 4091)", 3, Box::new(move |list| list.tasks = vec![entry(2, hash)])),
        ("not meant for this device (code 4031)", 3, Box::new(|list| list.device = "desk-08".to_owned())),
        ("for another fleet (code 4030)", 3, Box::new(|list| list.fleet = FleetId([2; 16]))),
        ("0 valid signatures of 1 that the root asks for (code 4010)", 2, Box::new(|_| ())),
    ];
    for (text, signer, forge) in cases {
        bed.world().forge = Some((forge, signer));
        shows(&bed, "refused", text).await;
    }
    // The list from before is valid still. It does not name the newer task, so that has to wait.
    bed.world().feedback.clear();
    bed.world().offer = Some(("2".to_owned(), Some(newer)));
    let held = bed.hears("deploymentBase", |status| status["execution"] == "rejected").await;
    assert_eq!(held["code"], 4092, "{held}");
    // One that names the serial with another hash is a mix, and starts nothing either.
    bed.world().forge = Some((Box::new(move |list| list.tasks = vec![entry(3, Hash([7; 32]))]), 3));
    bed.world().feedback.clear();
    let held = bed.hears("deploymentBase", |status| status["execution"] == "rejected").await;
    assert_eq!(held["code"], 4092, "{held}");
    bed.world().forge = None;
    assert!(success(&bed.closed().await));
    agent.stop().await;
}

#[tokio::test]
async fn answers_without_end_are_read_no_further_than_a_bound() {
    let bed = Bed::new().await;
    bed.world().endless = Some("/list");
    let agent = bed.start(None, bed.settings());
    shows(&bed, "refused", "it is longer than 65536 bytes").await;
    bed.offer("8", Some(&bed.task(1)));
    assert_eq!(bed.hears("deploymentBase", |status| status["execution"] == "rejected").await["code"], 4081);
    bed.world().endless = Some("/deploymentBase/");
    shows(&bed, "refused", "it is longer than 1048576 bytes").await;
    bed.world().endless = None;
    assert!(success(&bed.closed().await));
    agent.stop().await;
}

#[tokio::test]
async fn a_server_with_another_key_than_the_pinned_one_hears_nothing() {
    let bed = Bed::new().await;
    let (port, pin, _) = tls_server().await;
    let identity = Identity {
        server: format!("https://127.0.0.1:{port}"),
        tenant: "DEFAULT".to_owned(),
        device: "desk-07".to_owned(),
        authorization: Some("TargetToken secret".to_owned()),
        pin: Some(Hash([9; 32])),
        fleet: Some(fleet()),
    };
    assert_ne!(identity.pin, Some(pin));
    StateDir::open(&bed.state()).unwrap().put("identity.json", &identity).unwrap();
    let agent = bed.start(None, bed.settings());
    shows(&bed, "error", "TLS failed").await;
    agent.stop().await;
}

/// A task whose payload is changed by `change`, signed all the same.
fn signed(task: &Task, change: impl FnOnce(&mut Value)) -> Envelope {
    let mut value = serde_json::to_value(task).unwrap();
    change(&mut value);
    let mut envelope = Envelope::unsigned(serde_json::to_vec(&value).unwrap());
    envelope.sign(Kind::Task, &key(2));
    envelope
}

#[tokio::test]
async fn what_no_signature_makes_right() {
    let bed = Bed::new().await;
    let agent = bed.start(None, bed.settings());
    let task = bed.task(1);
    let name = |name: &str| signed(&task, |task| task["objects"][0]["filename"] = name.into());
    let at = |at: &str| signed(&task, |task| task["at"] = at.into());
    let outside = format!("{}/../outside/", bed.dir.path().join("srv").display());
    let expired = signed(&task, |task| {
        (task["issued"], task["expires"]) = ((clock() - 9).into(), (clock() - 1).into());
    });
    let cases = [
        (name("../evil"), 4001, "filename is one path component"),
        (name("a\nb"), 4001, "filename"),
        (name("a\0b"), 4001, "filename"),
        (at(&outside), 4001, "without '.', '..'"),
        (at("srv/"), 4001, "an absolute path"),
        (signed(&task, |task| task["format"] = 2.into()), 4002, "update mcp"),
        (signed(&task, |task| task["fleet"] = "02".repeat(16).into()), 4030, "another fleet"),
        (expired, 4080, "the task expired"),
    ];
    bed.world().listed = Some(Vec::new());
    for (n, (task, code, why)) in cases.into_iter().enumerate() {
        bed.world().feedback.clear();
        bed.world().offer = Some((n.to_string(), Some(task)));
        let refused = bed.closed().await;
        assert_eq!((&refused["code"], &refused["result"]["finished"]), (&json!(code), &json!("failure")));
        assert!(refused["details"][0].as_str().is_some_and(|said| said.contains(why)), "{refused}");
    }
    agent.stop().await;
    assert_eq!(walk(&bed.dir.path().join("srv")).len(), 1, "nothing was put anywhere");
}

#[tokio::test]
async fn files_that_nobody_signed_stay_in_their_directory() {
    let bed = Bed::new().await;
    let unsigned = bed.dir.path().join("unsigned");
    let settings = Settings { unsigned_copies: Some(unsigned.clone()), plain: true, ..bed.settings() };
    std::os::unix::fs::symlink("/etc/passwd", unsigned.join("link")).unwrap();
    let agent = bed.start(Some(bed.stock()), settings);
    for (n, names) in [&["../evil"][..], &["/etc/evil"], &[".."], &[""], &["a/b"], &["a\u{0}b"], &["a", "a"]]
        .iter()
        .enumerate()
    {
        bed.world().feedback.clear();
        bed.world().filenames = names.iter().map(|name| (*name).to_owned()).collect();
        bed.offer(&n.to_string(), None);
        let refused = bed.closed().await;
        assert_eq!(refused["result"]["finished"], "failure", "{names:?}: {refused}");
        let said = refused["details"][0].as_str().unwrap();
        assert!(said.contains("name"), "{names:?}: {said}");
    }
    assert_eq!(walk(&unsigned).len(), 2, "the directory and the link");
    // A link is replaced, not written through.
    bed.world().feedback.clear();
    bed.world().filenames = vec!["link".to_owned()];
    bed.offer("9", None);
    assert!(success(&bed.closed().await));
    assert!(!std::fs::symlink_metadata(unsigned.join("link")).unwrap().is_symlink());
    assert_eq!(std::fs::read(unsigned.join("link")).unwrap(), *bed.world().content);
    agent.stop().await;
    assert!(!bed.dir.path().join("evil").exists() && !Path::new("/etc/evil").exists());
}

#[tokio::test]
async fn the_report_says_which_mirror_lied() {
    let bed = Bed::new().await;
    let wrong = Arc::new(content(8, (3 << 20) + 77));
    let liar = Server::start(move |request, stream| good(request, stream, Arc::clone(&wrong))).await;
    let circle = Server::start(|_, stream| async move {
        send(stream, "302 Found\r\nLocation: /again\r\nContent-Length: 0", b"").await;
    })
    .await;
    bed.world().mirrors = Some(format!("{}/ {}/ file:///etc/", liar.url, circle.url));
    bed.offer("8", Some(&bed.task(1)));
    let agent = bed.start(None, bed.settings());
    let status = bed.closed().await;
    assert!(success(&status), "{status}");
    let details = status["details"].to_string();
    assert!(
        details.contains(&format!("{}/objects/", liar.url)) && details.contains("lied: it gives wrong"),
        "{details}"
    );
    assert!(details.contains("redirects lead nowhere"), "{details}");
    assert_eq!(std::fs::read(bed.destination()).unwrap(), *bed.world().content);
    let asked = liar.requests();
    assert!(asked.iter().all(|request| !request.headers.contains_key("authorization")), "{asked:?}");

    // And when everybody lies, nothing is kept.
    bed.world().feedback.clear();
    let at = format!("{}/other/", bed.dir.path().join("srv").display());
    let mut other = bed.task(1);
    (other.name, other.at) = ("other".to_owned(), Some(at));
    bed.world().content = Arc::new(content(9, (3 << 20) + 77));
    bed.world().mirrors = Some(format!("{}/", liar.url));
    bed.offer("9", Some(&other));
    let refused = bed.closed().await;
    assert_eq!(
        (&refused["code"], &refused["result"]["finished"]),
        (&json!(4060), &json!("failure")),
        "{refused}"
    );
    assert!(refused["details"].to_string().contains("lied"), "{refused}");
    assert_eq!(std::fs::read_dir(bed.dir.path().join("srv/other")).unwrap().count(), 0);
    agent.stop().await;
}
