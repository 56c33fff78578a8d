use super::*;
use crate::limits::{MAX_METADATA, MAX_METADATA_VALUE};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// Reads `text`, writes it again, and compares the JSON.
#[track_caller]
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: Value) -> T {
    let value: T = parse(text.to_string().as_bytes()).expect("readable");
    assert_eq!(serde_json::to_value(&value).expect("writable"), text);
    value
}

#[test]
fn polls_go_both_ways() {
    let poll: ControllerBase = both_ways(json!({
        "config": {"polling": {"sleep": "00:05:00"}},
        "_links": {
            "deploymentBase": {"href": "https://h/DEFAULT/controller/v1/d/deploymentBase/8?c=-2129030598"},
            "configData": {"href": "https://h/DEFAULT/controller/v1/d/configData"},
        },
    }));
    assert_eq!(poll.config.polling.sleep.map(Sleep::get), Some(Duration::from_secs(300)));
    assert_eq!(poll.links.get("configData"), Some("https://h/DEFAULT/controller/v1/d/configData"));
    assert_eq!(poll.links.get("cancelAction"), None);
    // No member `_links` at all when there are none.
    both_ways::<ControllerBase>(json!({"config": {"polling": {"sleep": "23:59:59"}}}));
}

#[test]
fn polls_are_read_as_other_servers_write_them() {
    let read = |text: &str| parse::<ControllerBase>(text.as_bytes()).expect("readable");
    assert_eq!(read("{}"), ControllerBase::default());
    assert_eq!(read(r#"{"config":null,"_links":null}"#), ControllerBase::default());
    assert!(read(r#"{"config":{"polling":{"sleep":"soon"}},"_links":{}}"#).config.polling.sleep.is_none());
    let links =
        read(r#"{"_links":{"a":{"href":7},"b":[{"href":"x"},{"href":"y"}],"c":"z","d":{"href":"mcp:1"}}}"#)
            .links;
    assert_eq!(links.iter().collect::<Vec<_>>(), [("b", "x"), ("d", "mcp:1")]);
    // One more member than the API has.
    assert!(
        read(r#"{"config":{"polling":{"sleep":"PT26H"}},"mcp":{"x":[1]}}"#).config.polling.sleep.is_some()
    );
}

#[test]
fn sleeps_are_clamped_and_read_in_either_form() {
    for (text, seconds) in [
        ("00:00:00", 1),
        ("00:00:01", 1),
        ("00:05:00", 300),
        ("23:59:59", 86_399),
        ("26:00:00", 86_399),
        ("PT5M", 300),
        ("PT26H", 86_399),
        ("P1DT1S", 86_399),
        ("PT1H30.5S", 3630),
    ] {
        assert_eq!(Sleep::read(text).map(|s| s.get().as_secs()), Some(seconds), "{text}");
    }
    for text in [
        "",
        "P",
        "PT",
        "5M",
        "00:60:00",
        "00:00",
        "1:2:3:4",
        "-1:00:00",
        "PT-5M",
        "P5H",
        "PT1ä",
        "99999999999:00:00",
    ] {
        assert_eq!(Sleep::read(text), None, "{text}");
    }
    assert_eq!(Sleep::new(Duration::from_secs(3_661)).to_string(), "01:01:01");
    assert_eq!(Sleep::new(Duration::ZERO).to_string(), "00:00:01");
    assert_eq!(Sleep::new(Duration::from_millis(299_999)).to_string(), "00:04:59");
}

fn deployment() -> Value {
    json!({
        "id": "8",
        "deployment": {
            "download": "forced",
            "update": "attempt",
            "maintenanceWindow": "available",
            "chunks": [{
                "part": "bApp", "version": "1.2.0", "name": "app",
                "artifacts": [{
                    "filename": "a.swu",
                    "hashes": {
                        "sha1": "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3",
                        "md5": "098f6bcd4621d373cade4e832627b4f6",
                        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    },
                    "size": 123,
                    "_links": {
                        "download": {"href": "https://h/DEFAULT/controller/v1/d/softwaremodules/1/artifacts/a.swu"},
                        "md5sum": {"href": "https://h/DEFAULT/controller/v1/d/softwaremodules/1/artifacts/a.swu.MD5SUM"},
                    },
                }],
                "metadata": [{"key": "mcp.group", "value": "239.1.2.3:7417"}],
            }],
        },
        "actionHistory": {"status": "RUNNING", "messages": ["Update Server: Target retrieved update action"]},
    })
}

#[test]
fn deployments_go_both_ways() {
    let base: DeploymentBase = both_ways(deployment());
    let deployment = base.deployment.expect("a deployment");
    assert_eq!((deployment.download, deployment.update), (Handling::Forced, Handling::Attempt));
    assert_eq!(deployment.maintenance_window, Some(MaintenanceWindow::Available));
    assert_eq!(deployment.chunks[0].artifacts[0].size, 123);
    both_ways::<DeploymentBase>(
        json!({"id": "9", "confirmation": {"download": "skip", "update": "skip", "chunks": []}}),
    );
}

#[test]
fn deployments_are_read_as_other_servers_write_them() {
    // goosebit: a number as identifier, sha1 only, empty links.
    let text = r#"{"id":-1,"deployment":{"download":"forced","update":"Whatever","maintenanceWindow":"open","chunks":[
        {"part":"os","version":"1","name":"n","artifacts":[{"filename":"x","hashes":{"sha1":"aa"},"size":9223372036854775807,
        "_links":{}}],"metadata":[{"key":"k","value":7},{"key":"l","value":["x"]}]}]}}"#;
    let base: DeploymentBase = parse(text.as_bytes()).expect("readable");
    assert_eq!(base.id, "-1");
    let deployment = base.deployment.expect("a deployment");
    assert_eq!(deployment.update, Handling::Skip, "whoever does not understand does less");
    assert_eq!(deployment.maintenance_window, Some(MaintenanceWindow::Unavailable));
    let chunk = &deployment.chunks[0];
    assert_eq!(chunk.artifacts[0].hashes, Hashes { sha1: Some("aa".into()), ..Hashes::default() });
    assert_eq!(chunk.metadata[0].value, "7");
    assert_eq!(chunk.metadata[1].value, r#"["x"]"#);
    for bad in [r#"{"deployment":{}}"#, r#"{"id":"","deployment":null}"#, r#"{"id":[1]}"#, "[]", "{", ""] {
        assert!(parse::<DeploymentBase>(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn feedback_goes_both_ways() {
    let feedback: Feedback = both_ways(json!({
        "id": "8",
        "status": {
            "execution": "proceeding",
            "result": {"finished": "none", "progress": {"cnt": 2, "of": 5}},
            "code": 200,
            "details": ["loading"],
        },
    }));
    assert_eq!(feedback.status.result.progress, Some(Progress { cnt: 2, of: 5 }));
    for execution in
        ["closed", "proceeding", "canceled", "scheduled", "rejected", "resumed", "downloaded", "download"]
    {
        both_ways::<Feedback>(
            json!({"status": {"execution": execution, "result": {"finished": "success"}, "details": []}}),
        );
    }
}

#[test]
fn feedback_is_read_as_clients_write_it() {
    let read = |text: &str| parse::<Feedback>(text.as_bytes()).expect("readable");
    // swupdate: its own members, progress 0 of 0, a message with a bare newline.
    let swupdate = "{ \"id\": 8, \"time\":\"20261122T110000\", \"status\":{ \"result\":{ \"progress\":{ \"cnt\":0, \
                    \"of\":0}, \"finished\":\"success\" }, \"execution\":\"closed\", \"details\":[ \"done\n\" ] } }";
    let status = read(swupdate).status;
    assert_eq!((status.execution, status.result.finished), (Execution::Closed, Finished::Success));
    assert_eq!(status.details, ["done "]);
    assert_eq!(status.result.progress, Some(Progress { cnt: 0, of: 0 }));
    // rauc-hawkbit: any object as progress.
    for progress in ["{}", r#"{"percentage":20}"#, "null", "[]", r#"{"cnt":-1,"of":2}"#] {
        let text = format!(
            r#"{{"id":"1","status":{{"execution":"proceeding","result":{{"finished":"none","progress":{progress}}}}}}}"#
        );
        assert_eq!(read(&text).status.result.progress, None, "{progress}");
    }
    let odd =
        br#"{"timestamp":99999999999999999999,"status":{"execution":"CLOSED","result":{"finished":"None"},
        "code":"7","details":"C:\path \u00zz \xff"}}"#;
    let status = parse::<Feedback>(odd).expect("readable").status;
    assert_eq!((status.code, status.details.len()), (Some(7), 1));
    assert!(status.details[0].starts_with(r"C:\path"), "{:?}", status.details);
    let mixed = read(
        r#"{"status":{"execution":"closed","result":{"finished":"none"},"details":["a",7,null,{"b":1}]}}"#,
    );
    assert_eq!(mixed.status.details, ["a", "7", "null", r#"{"b":1}"#]);
    let bytes =
        b"{\"status\":{\"execution\":\"closed\",\"result\":{\"finished\":\"none\"},\"details\":[\"\xff\"]}}";
    assert_eq!(parse::<Feedback>(bytes).expect("readable").status.details, ["\u{fffd}"]);
}

#[test]
fn feedback_without_its_mandatory_members_is_refused() {
    for bad in [
        r#"{}"#,
        r#"{"status":{"execution":"closed"}}"#,
        r#"{"status":{"result":{"finished":"none"}}}"#,
        r#"{"status":{"execution":"closed","result":{}}}"#,
        r#"{"status":{"execution":"finished","result":{"finished":"none"}}}"#,
        r#"{"status":{"execution":"closed","result":{"finished":"maybe"}}}"#,
        "{\"status\":\n\"closed\x01\"}",
    ] {
        assert!(parse::<Feedback>(bad.as_bytes()).is_err(), "{bad}");
    }
    let deep = format!("{{\"status\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(parse::<Feedback>(deep.as_bytes()).is_err());
}

#[test]
fn attributes_go_both_ways_and_change_what_is_known() {
    let change: ConfigData = both_ways(json!({"mode": "replace", "data": {"a": "1", "gone": null}}));
    let mut known = BTreeMap::from([("old".to_owned(), "x".to_owned())]);
    change.apply(&mut known);
    assert_eq!(known, BTreeMap::from([("a".into(), "1".into())]));

    // The crate hawkbit writes `"mode": null`.
    let merge: ConfigData = parse(br#"{"mode":null,"data":{"b":2,"a":null},"id":""}"#).expect("readable");
    assert_eq!(merge.mode, Mode::Merge);
    merge.apply(&mut known);
    assert_eq!(known, BTreeMap::from([("b".into(), "2".into())]));

    let remove: ConfigData = parse(br#"{"mode":"remove","data":{"b":"whatever"}}"#).expect("readable");
    remove.apply(&mut known);
    assert_eq!(known, BTreeMap::new());

    assert_eq!(parse::<ConfigData>(b"{}").expect("readable"), ConfigData::default());
    for bad in [r#"{"mode":"x","data":{}}"#, r#"{"data":{"a":[]}}"#, r#"{"data":[]}"#] {
        assert!(parse::<ConfigData>(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_smaller_documents_go_both_ways() {
    assert_eq!(both_ways::<Cancel>(json!({"id": "11", "cancelAction": {"stopId": "11"}})), Cancel::new("11"));
    both_ways::<ConfirmationBase>(json!({
        "autoConfirm": {"active": true, "initiator": "me", "remark": "always", "activatedAt": 1_763_800_000_000_i64},
        "_links": {"deactivateAutoConfirm": {"href": "https://h/x"}},
    }));
    both_ways::<ConfirmationFeedback>(json!({"confirmation": "denied", "code": 1, "details": ["no"]}));
    both_ways::<Installed>(json!({"name": "app", "version": "1.2"}));
    both_ways::<AutoConfirmRequest>(json!({}));
    both_ways::<ErrorBody>(json!({
        "exceptionClass": "EntityNotFoundException",
        "errorCode": "hawkbit.server.error.repo.entityNotFound",
        "message": "no such action",
    }));
    let null: ConfirmationFeedback =
        parse(br#"{"confirmation":"Confirmed","details":null}"#).expect("readable");
    assert_eq!(null.confirmation, Confirmation::Confirmed);
}

#[test]
fn a_signed_task_is_carried_whole_or_not_at_all() {
    for length in [1, MAX_METADATA_VALUE, MAX_METADATA_VALUE + 1, 87_384] {
        let text: String = (0..length).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        let carried = task_to_metadata(&text);
        assert!(carried.len() <= MAX_METADATA && carried.iter().all(|m| m.value.len() <= MAX_METADATA_VALUE));
        assert_eq!(task_from_metadata(&carried).as_deref(), Some(&*text), "{length}");
        if carried.len() > 2 {
            for missing in 0..carried.len() {
                let mut rest = carried.clone();
                rest.remove(missing);
                // Without its last piece it is shorter, which its signature shows.
                let read = task_from_metadata(&rest);
                assert!(read.is_none_or(|read| missing == carried.len() - 1 && text.starts_with(&read)));
            }
        }
    }
    assert_eq!(task_from_metadata(&[]), None);
    assert_eq!(task_from_metadata(&task_to_metadata(&"x".repeat(100_000))), None);
}
