//! `openapi.json` has the requests of the routes, and answers are as it says.

use super::campaigns::by_multicast;
use super::documented::all_routes;
use super::*;
use std::collections::BTreeSet;

/// The document, with every object closed: what it does not name, no answer may have.
struct Document {
    text: Value,
    /// Requests whose answers were compared.
    seen: BTreeSet<(String, String)>,
}

fn close(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.contains_key("properties") && members.get("type") == Some(&json!("object")) {
                members.insert("unevaluatedProperties".into(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

impl Document {
    fn read() -> Self {
        let text = serde_json::from_str(super::super::ours::OPENAPI).expect("JSON");
        Self { text, seen: BTreeSet::new() }
    }

    /// Methods and paths.
    fn requests(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (path, item) in self.text["paths"].as_object().expect("paths") {
            let methods = item.as_object().expect("methods").keys().filter(|key| *key != "parameters");
            found.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
        }
        found
    }

    fn answer(&self, method: &str, path: &str) -> Option<&Value> {
        let operation = &self.text["paths"][path][method.to_lowercase()];
        operation.pointer("/responses/200/content/application~1json/schema")
    }

    /// Compares an answer with what is said of `method` and `path`, the path's values being filled in.
    fn compare(&mut self, method: &str, path: &str, answer: &Value) {
        let fits = |template: &str| {
            let same = |(a, b): (&str, &str)| a.starts_with('{') || a == b;
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(same)
        };
        let known = self.requests().into_iter().filter(|(known, template)| known == method && fits(template));
        let (_, template) = known.min_by_key(|(_, t)| t.matches('{').count()).expect("a request");
        let schema = self.answer(method, &template).unwrap_or_else(|| panic!("no answer of {method} {path}"));
        self.check(schema.clone(), answer, &template);
        self.seen.insert((method.to_owned(), template));
    }

    fn check(&self, schema: Value, value: &Value, what: &str) {
        let mut components = self.text["components"].clone();
        close(&mut components);
        let mut whole = json!({ "components": components, "allOf": [schema] });
        close(&mut whole["allOf"]);
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.set_default_draft(boon::Draft::V2020_12);
        compiler.add_resource("mem:///whole.json", whole).expect("a document");
        let schema = compiler.compile("mem:///whole.json", &mut schemas).expect("a schema");
        if let Err(wrong) = schemas.validate(value, schema) {
            panic!("{what}: {wrong:#} in {value:#}");
        }
    }
}

/// Checks a value against one of the document's schemas.
pub(super) fn check(schema: &str, value: &Value) {
    Document::read().check(json!({ "$ref": format!("#/components/schemas/{schema}") }), value, schema);
}

#[test]
fn the_document_has_the_requests_of_the_routes() {
    let shape = |path: &str| {
        let segment = |segment: &str| if segment.starts_with('{') { "{}".into() } else { segment.to_owned() };
        path.split('/').map(segment).collect::<Vec<_>>().join("/")
    };
    let document = Document::read();
    let told: BTreeSet<_> =
        document.requests().into_iter().map(|(method, path)| (method, shape(&path))).collect();
    assert_eq!(told, all_routes());
    // Nothing in it refers to what is not there.
    let text = document.text.to_string();
    for pointer in text.split("\"$ref\":\"#").skip(1) {
        let pointer = pointer.split('"').next().expect("a pointer");
        assert!(document.text.pointer(pointer).is_some(), "{pointer}");
    }
    let kinds: Vec<_> = crate::store::EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(document.text["components"]["schemas"]["EventKind"]["enum"], json!(kinds));
}

/// A fleet, and the document that its answers are compared with.
struct Compared {
    f: Fleet,
    document: Document,
}

impl Compared {
    async fn get(&mut self, path: &str) -> Value {
        let answer = self.f.remote.get(path).await.expect("an answer");
        self.document.compare("GET", &format!("/mcp/v1/manage{path}"), &answer);
        answer
    }

    async fn send(&mut self, path: &str, body: Value) -> Value {
        let answer = self.f.remote.send(Method::POST, path, &body).await.expect("an answer");
        self.document.compare("POST", &format!("/mcp/v1/manage{path}"), &answer);
        answer
    }

    /// A device's request.
    async fn device(&mut self, method: Method, path: &str, auth: &str, body: Option<Value>) -> Value {
        let request = self.f.http.request(method.clone(), self.f.url(path)).header("Authorization", auth);
        let request = request.header("X-Forwarded-Proto", "https").header("X-Forwarded-For", "10.0.0.1");
        let request = request.body(body.map_or_else(String::new, |body| body.to_string()));
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let bytes = answer.bytes().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        if status == 204 {
            return Value::Null;
        }
        let answer = serde_json::from_slice(&bytes).expect("JSON");
        self.document.compare(method.as_str(), path.split('?').next().expect("a path"), &answer);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_document_says() {
    let f = fleet_with(|config| {
        by_multicast(config);
        config.neighbours = true;
    })
    .await;
    let mut c = Compared { f, document: Document::read() };
    let given = c.f.http.get(c.f.url("/mcp/v1/openapi.json")).send().await.expect("an answer");
    assert_eq!(given.text().await.expect("a text"), super::super::ours::OPENAPI);

    // Devices: by a line, and by hand.
    let made = c.send("/enrolments", json!({ "kind": "line", "valid": 60, "accepts": true })).await;
    let line: Enrolment = made["line"].as_str().expect("a line").parse().expect("a line");
    c.get("/enrolments").await;
    let own = SecretKey::from_seed(&[7; 32]);
    let request = JoinRequest::new(line.fleet, "joined", own.public(), (&line.token, "secret"), clock::now());
    let mut envelope = Envelope::unsigned(serde_json::to_vec(&request).expect("JSON"));
    envelope.sign(Kind::Join, &own);
    let body = json!({ "token": *line.token, "envelope": envelope.to_metadata() });
    c.device(Method::POST, "/mcp/v1/enrol", "", Some(body)).await;
    let auth = format!(
        "TargetToken {}",
        c.send("/devices/a/accept", json!({ "token": true })).await["target_token"]
            .as_str()
            .expect("a token")
    );
    c.f.agent("b").await;
    let body = json!({"mode": "merge", "data": {"mcp.version": "1", "mcp.multicast": "1"}});
    let answer = c.f.send(Method::PUT, &c.f.ddi("a", "/configData"), &auth, body.to_string()).await;
    assert_eq!(answer.status(), 200);
    c.f.remote
        .order(Method::POST, "/devices/a/tag", b"{\"add\":[\"canary\"]}".to_vec())
        .await
        .expect("tagged");

    // A task in groups, with a way back.
    let content = bytes(super::campaigns::SIZE as usize);
    let (blake3, path) = (Hash::of(&content), c.f.dir.path().join("app"));
    std::fs::write(&path, &content).expect("written");
    let object: Value =
        c.f.remote.upload(blake3, std::fs::File::open(&path).expect("opened")).await.expect("there");
    c.document.compare("PUT", &format!("/mcp/v1/manage/objects/{blake3}"), &object);
    c.get(&format!("/objects/{blake3}")).await;
    c.get("/serials/app").await;
    let now = clock::now();
    let mut task = Task::new(c.f.remote.address.fleet, "app", 1, (now, now + 3600));
    (task.at, task.version) = (Some("/srv/".into()), "2".into());
    let sha256: Hash = serde_json::from_value(object["sha256"].clone()).expect("a hash");
    task.objects = vec![Object { filename: "app".into(), size: content.len() as u64, blake3, sha256 }];
    let mut back = task.clone();
    back.serial = 2;
    let mut wide = task.clone();
    wide.name = "wide".into();
    let signed =
        [&task, &back, &wide].map(|task| task.sign(&[&c.f.remote.key]).expect("signed").to_metadata());
    let terms = Terms { groups: vec!["tag:canary".parse().expect("a group")], ..Terms::default() };
    let body = json!({ "envelope": signed[0], "terms": terms, "rollback": signed[1] });
    let id = c.send("/tasks", body).await["id"].as_i64().expect("a number");
    let body = json!({ "envelope": signed[2] });
    let wide = c.send("/tasks", body).await["id"].as_i64().expect("a number");

    // What a device does.
    c.device(Method::GET, "/mcp/v1/roots/1", "", None).await;
    c.f.poll("a", &auth).await;
    let action = |view: &Value| view["actions"][0]["id"].as_i64().expect("an action");
    let view = c.get(&format!("/tasks/{wide}")).await;
    let deployment = c.f.ddi("a", &format!("/deploymentBase/{}", action(&view)));
    let request =
        c.f.http.get(deployment).header("Authorization", &auth).header("X-Forwarded-Proto", "https");
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    c.device(Method::GET, "/mcp/v1/devices/a/list?nonce=00ff", &auth, None).await;
    c.device(Method::GET, &format!("/mcp/v1/devices/a/tasks/{wide}"), &auth, None).await;
    let lacks = format!("/mcp/v1/devices/a/actions/{}/lacking", action(&view));
    let body = json!({ "object": blake3, "lacking": [[0, 1 << 20]] });
    let told = c.device(Method::POST, &lacks, &auth, Some(body)).await;
    assert!(told["session"].is_object(), "{told}");
    c.get(&format!("/tasks/{wide}/session")).await;
    assert_eq!(c.get(&format!("/tasks/{wide}")).await["sessions"][0]["over"], false);
    let body = json!({ "port": 7444, "pin": blake3, "key": blake3, "objects": [blake3] });
    c.device(Method::PUT, "/mcp/v1/devices/a/neighbour", &auth, Some(body)).await;
    let b = format!(
        "TargetToken {}",
        c.send("/devices/b/accept", json!({ "token": true })).await["target_token"]
            .as_str()
            .expect("a token")
    );
    let near =
        c.device(Method::GET, &format!("/mcp/v1/devices/b/objects/{blake3}/neighbours"), &b, None).await;
    assert_eq!(near["neighbours"].as_array().map(Vec::len), Some(1), "{near}");
    let view = c.get(&format!("/tasks/{id}")).await;
    let feedback = c.f.ddi("a", &format!("/deploymentBase/{}/feedback", action(&view)));
    assert_eq!(c.f.say(&feedback, &auth, "closed", "failure").await, 200);

    // What operators see and do.
    c.f.running.app.store.roll_out(now).await.expect("went on");
    let view = c.get(&format!("/tasks/{id}")).await;
    assert!(view["rollout"]["held"].is_string() && view["actions"][0]["code"].is_null(), "{view}");
    c.get("/tasks").await;
    c.get("/devices").await;
    c.get("/devices/a").await;
    c.send(&format!("/tasks/{id}/retry"), json!({})).await;
    c.send(&format!("/tasks/{id}/rollback"), json!({})).await;
    c.get("/operators").await;
    c.send("/hooks", json!({ "url": "http://127.0.0.1:1/" })).await;
    c.get("/hooks").await;
    c.send("/links", Value::Null).await;
    c.get("/roots").await;
    c.get("/audit").await;
    let refused = c.f.send(Method::POST, &c.f.url("/mcp/v1/enrol"), "", "nonsense").await;
    check("Error", &serde_json::from_slice(&refused.bytes().await.expect("a body")).expect("JSON"));

    let with_answer =
        c.document.requests().into_iter().filter(|(m, path)| c.document.answer(m, path).is_some());
    assert_eq!(with_answer.collect::<BTreeSet<_>>(), c.document.seen);
    c.f.running.shut_down().await;
}
