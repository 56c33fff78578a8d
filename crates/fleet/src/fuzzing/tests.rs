use super::documents::{NOW, fleet, keys};
use super::*;
use crate::documents::{
    Argument, Audience, Enrolment, Entry, Hash, JoinRequest, List, Object, Role, Root, Task, TaskKind,
};
use mcp_transfer::fuzzing::corpus::{replay, write};

#[test]
fn the_corpora_of_the_standing_half_replay() {
    replay("ddi", fuzz_ddi);
    replay("documents", fuzz_documents);
    replay("handler_manifest", fuzz_handler_manifest);
}

/// A task that is allowed, with something in each member.
fn task(serial: u64) -> Task {
    let mut task = Task::new(fleet(), "fw", serial, (NOW - 60, NOW + 3600));
    (task.kind, task.handler, task.version) = (TaskKind::Update, Some("fw".into()), format!("{serial}.0"));
    task.arguments.insert("slot".into(), Argument::Text("a".into()));
    task.arguments.insert("count".into(), Argument::Integer(3));
    task.arguments.insert("force".into(), Argument::Boolean(true));
    let (blake3, sha256) = (Hash::of(b"fw"), Hash([3; 32]));
    task.objects.push(Object { filename: "fw.bin".into(), size: 2, blake3, sha256 });
    task.to = Audience::Devices(["desk-*".into()].into());
    task.when.push("version < 2.1".parse().unwrap());
    task.senders.push("mcp-sender1-x".into());
    (task.start, task.window) = (Some(NOW), Some("22:00-05:00".parse().unwrap()));
    task.after.push("base".into());
    task
}

fn line<T: serde::Serialize>(what: char, document: &T) -> String {
    format!("{what}{}", serde_json::to_string(document).unwrap())
}

fn list(version: u64, tasks: &[&Task]) -> String {
    let mut list = List::new(fleet(), "desk-07", version, (NOW, NOW + 3600));
    let entry = |task: &&Task| {
        let hash = Hash::of(&serde_json::to_vec(task).unwrap());
        Entry { name: task.name.clone(), serial: task.serial, hash }
    };
    list.tasks = tasks.iter().map(entry).collect();
    line('l', &list)
}

/// Requests to join, a line each.
fn joins(changes: &[fn(&mut JoinRequest)]) -> String {
    let sound = JoinRequest::new(fleet(), "desk-07", keys()[2].public(), ("one-time", "target"), NOW);
    let changed = changes.iter().map(|change| {
        let mut request = sound.clone();
        change(&mut request);
        line('j', &request)
    });
    changed.collect::<Vec<_>>().join("\n")
}

/// The first files of the corpora: what is sound, and what is nearly so.
fn seeds() -> Vec<(&'static str, Vec<String>)> {
    let [root, _, server, later] = keys().each_ref().map(|key| Role::of(key.public()));
    let mut copy = Task::new(fleet(), "image", 1, (NOW - 60, NOW + 3600));
    copy.at = Some("/srv/images/".into());
    copy.objects = task(1).objects;
    let (one, two) = (task(1), task(2));
    let second = Root::new((fleet(), 2), (NOW, NOW + 2_000_000), [root, later, server]);
    let enrolment = Enrolment {
        fleet: fleet(),
        pin: Hash([8; 32]),
        root: Hash([9; 32]),
        token: "one-time-secret".to_owned().into(),
        url: "https://server.example:7443".into(),
    };
    let enrolment = enrolment.line().unwrap();
    let envelope = copy.sign(&[&keys()[1]]).unwrap();
    let (json, metadata) = (String::from_utf8(envelope.to_bytes()).unwrap(), envelope.to_metadata());
    let (copy, one, two) = (
        (list(1, &[&copy]), line('t', &copy)),
        (list(2, &[&one]), line('t', &one)),
        (list(3, &[&two]), line('t', &two)),
    );
    let documents = vec![
        [&*copy.0, &*copy.1].join("\n"),
        [&*one.0, &*one.1, &*two.0, &*two.1, &*one.1, &*one.0].join("\n"),
        [&*copy.0, &*copy.1, "c4000", &*copy.1, "c-5000", &*copy.1].join("\n"),
        [&*line('r', &second), &*one.0, &*one.1, "c3000000", &*one.0].join("\n"),
        [&*one.1, &copy.0.replace("desk-07", "desk-08"), &copy.1.replace("/srv/images/", "/srv/../etc/")]
            .join("\n"),
        format!("e{json}"),
        format!("e{}", json.replace("keyid", "keyie")),
        format!("m{metadata}"),
        format!("n{}", *enrolment),
        format!("n{}", &enrolment[..enrolment.len() - 3]),
        format!("n {}", enrolment.replace("enrol1", "enrol2")),
        "s{\"format\":1,\"device\":\"desk-07\"}".into(),
        "t{\"format\":2}\nt{}\nl[]\nr7".into(),
        joins(&[|_| ()]),
        joins(&[
            |request| request.device = "desk 07".into(),
            |request| request.device = "x".repeat(200),
            |request| request.device = "../desk-07\n".into(),
            |request| request.key = keys()[3].public(),
            |request| request.time = u64::MAX,
        ]),
        joins(&[|_| ()]).replace("\"format\":1", "\"format\":2"),
        joins(&[|_| ()]).replace("\"time\":", "\"time\":-").replace("\"key\":\"", "\"key\":\"00"),
    ];
    let ddi = [
        r#"{"config":{"polling":{"sleep":"00:05:00"}},"_links":{"deploymentBase":{"href":"https://h/DEFAULT/controller/v1/d/deploymentBase/8?c=-2"},"configData":{"href":"https://h/x"}}}"#,
        r#"{"config":{"polling":{"sleep":"PT26H"}},"_links":{"a":[{"href":"x"}],"b":7,"c":{"href":null}}}"#,
        "PT1H30.5S",
        "23:59:59",
        r#"{"id":"8","deployment":{"download":"forced","update":"attempt","maintenanceWindow":"available","chunks":[{"part":"bApp","version":"1","name":"a","artifacts":[{"filename":"a.swu","hashes":{"sha1":"a94a8fe5ccb19ba61c4c0873d391e987982fbbd3","sha256":"9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},"size":123,"_links":{"download":{"href":"https://h/a"}}}],"metadata":[{"key":"mcp.task","value":"eyJ4"},{"key":"mcp.mirrors","value":"http://m/ http://n/"}]}]},"actionHistory":{"status":"RUNNING","messages":["x"]}}"#,
        r#"{"id":-1,"deployment":{"download":"forced","update":"Whatever","maintenanceWindow":"open","chunks":[{"artifacts":[{"filename":"../x","hashes":{"sha1":"aa"},"size":9223372036854775807,"_links":{}}],"metadata":[{"key":"mcp.task.0","value":"a"},{"key":"mcp.task.1","value":7},{"key":"l","value":["x",1e300]}]},{}]}}"#,
        r#"{"id":"9","confirmation":{"download":"skip","update":"skip","chunks":null}}"#,
        r#"{"id":"11","cancelAction":{"stopId":11}}"#,
        "{\"id\":8,\"time\":\"20261122T110000\",\"status\":{\"result\":{\"progress\":{\"cnt\":0,\"of\":0},\"finished\":\"success\"},\"execution\":\"closed\",\"details\":[\"done\n\\x\"]}}",
        r#"{"status":{"execution":"CLOSED","result":{"finished":"None","progress":{"percentage":20}},"code":"7","details":["a",7,null,{"b":1}]}}"#,
        r#"{"mode":null,"data":{"b":2,"a":null,"c":true}}"#,
        r#"{"mode":"replace","data":{"a":"1"}}"#,
        r#"{"confirmation":"Denied","code":1,"details":"no"}"#,
        r#"{"autoConfirm":{"active":true,"initiator":"me","activatedAt":1763800000000},"_links":{"x":{"href":"https://h/x"}}}"#,
        r#"{"name":"app","version":"1.2"}"#,
        r#"{"exceptionClass":"E","errorCode":"hawkbit.server.error.x","message":"no"}"#,
        r#"{"initiator":7,"remark":[]}"#,
    ];
    let mut ddi = ddi.map(str::to_owned).to_vec();
    // An error quotes what it does not understand.
    let long = "x\\n".repeat(2000);
    ddi.push(format!(r#"{{"id":"8","deployment":{{"download":"forced","update":"forced","maintenanceWindow":"{long}","chunks":"{long}"}}}}"#));
    let offers = r#"{"mcp.offers":[{"deploymentBase":{"href":"https://h/deploymentBase/8?c=1"}},{"cancelAction":{"href":"https://h/x"}},7,{}]}"#;
    ddi.push(offers.into());

    let manifest = r#"description = "Says hello"
user = "root"
interrupted = "resume"
cancel = "any-time"
kill-after = "5s"
[run]
exec = "/bin/sh"
args = ["-c", "echo", "{object}", "--name={arg.name}", "{{}}", "{arg.purge}", "{arg.count}"]
timeout = "90s"
[check]
exec = "/bin/true"
[exit]
reboot-needed = [100]
[environment]
PATH = "/usr/bin"
TO = "{arg.to}"
[arguments]
name = { type = "string", pattern = "[a-z-]+" }
option = { type = "string", pattern = ".*", may-begin-with-dash = true, optional = true }
count = { type = "integer", min = 1, max = 9, default = 3 }
purge = { type = "boolean", when-true = "--purge" }
mode = { type = "choice", choices = ["fast", "safe"], optional = true }
to = { type = "path", below = "/srv/data", pattern = "[a-z/.]+", optional = true }
[sandbox]
read = ["/usr", "/bin", "/lib", "/lib64"]
write = ["/srv/data"]
network = true
capabilities = ["CHOWN"]
[limits]
memory = 64
"#;
    let with = |values: &str| format!("{manifest}\n%%\n{values}");
    let manifests = vec![
        manifest.to_owned(),
        with(
            r#"{"name":"editor","option":"--yes $(id) `id` ;|&","count":9,"purge":true,"mode":"safe","to":"/srv/data/a/b"}"#,
        ),
        with(r#"{"name":"-x"}"#),
        with(r#"{"name":"a\nb"}"#),
        with(r#"{"name":"a","to":"/srv/data/../../etc/passwd"}"#),
        with(r#"{"name":"a","other":"\u0000"}"#),
        with(r#"{"name":7,"count":2.5}"#),
        manifest.replace("\"--purge\"", "\"a\\u0000b\"") + "\n%%\n{\"name\":\"a\",\"purge\":true}",
        manifest.replace("[a-z-]+", "("),
        manifest.replace("\"string\"", "\"st\\ring\""),
        manifest.replace("[a-z-]+", &"[a-z-]?".repeat(200)) + "\n%%\n{\"name\":\"?\"}",
        manifest.replace("{object}", "{objekt}"),
        manifest.replace("90s", "3d"),
        manifest.replace("\"/srv/data\"", "\"srv\""),
        manifest.replace("memory = 64", "memory = 1"),
        manifest.replace("resume", "rollback"),
        "description = \"x\"\ninterrupted = \"report\"\nobject = \"none\"\n[run]\nexec = \"/bin/true\""
            .into(),
    ];
    vec![("ddi", ddi), ("documents", documents), ("handler_manifest", manifests)]
}

#[test]
fn all_seeds_keep_their_promises() {
    for (target, seeds) in seeds() {
        for seed in seeds {
            println!("{target}: {seed}");
            match target {
                "ddi" => fuzz_ddi(seed.as_bytes()),
                "documents" => fuzz_documents(seed.as_bytes()),
                _ => fuzz_handler_manifest(seed.as_bytes()),
            }
        }
    }
}

#[test]
#[ignore = "writes the first files of the corpora"]
fn write_seeds() {
    for (target, seeds) in seeds() {
        for (n, seed) in seeds.iter().enumerate() {
            write(target, &format!("seed_{n:02}"), seed.as_ref());
        }
    }
}
