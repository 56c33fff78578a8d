//! Devices that serve others, as the server sees them: who is admitted, who is named to whom, and what is refused. The test is a proxy
//! that says where devices come from.

use super::*;
use crate::limits::MAX_SHARED;
use crate::neighbour::{Near, token};

const KEY: Hash = Hash([9; 32]);

/// Where a request comes from, and whether over an encrypted connection.
#[derive(Clone, Copy)]
struct From(&'static str, &'static str);

const HERE: From = From("10.0.0.1", "https");

impl Fleet {
    async fn ask(&self, method: Method, path: &str, auth: &str, from: From, body: String) -> Response {
        let request = self.http.request(method, self.url(path)).header("Authorization", auth).body(body);
        let request = request.header("X-Forwarded-For", from.0).header("X-Forwarded-Proto", from.1);
        request.send().await.expect("an answer")
    }

    async fn offers(&self, device: &str, auth: &str, from: From, body: Value) -> u16 {
        let path = format!("/mcp/v1/devices/{device}/neighbour");
        self.ask(Method::PUT, &path, auth, from, body.to_string()).await.status().as_u16()
    }

    /// The addresses that are named, or the status of the refusal.
    async fn near(&self, device: &str, auth: &str, from: From, object: Hash) -> Result<Vec<String>, u16> {
        let path = format!("/mcp/v1/devices/{device}/objects/{object}/neighbours");
        let answer = self.ask(Method::GET, &path, auth, from, String::new()).await;
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        let near: Near = answer.json_body().await;
        assert!(near.neighbours.iter().all(|named| named.token.0 == *token(&KEY, &object).as_bytes()));
        Ok(near.neighbours.iter().map(|named| named.address.to_string()).collect())
    }
}

fn offer(objects: &[Hash]) -> Value {
    json!({"port": 7444, "pin": Hash([1; 32]), "key": KEY, "objects": objects})
}

async fn neighbours() -> Fleet {
    fleet_with(|config| {
        (config.neighbours, config.trusted_proxies) = (true, vec![[127, 0, 0, 1].into()]);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_is_named_to_devices_of_its_segment_that_may_load_the_object() {
    let f = neighbours().await;
    let (a, b, c) = (f.accept("a").await, f.accept("b").await, f.accept("c").await);
    let object = Hash::of(b"content");
    let only = Audience::Devices(["a".to_owned(), "b".to_owned()].into());
    f.task("image", b"content", Terms::default(), |task| task.to = only).await;
    assert_eq!(f.near("b", &b, HERE, object).await, Ok(vec![]));
    assert_eq!(f.offers("a", &a, HERE, offer(&[object])).await, 204);
    let there = From("10.0.0.200", "https");
    assert_eq!(f.near("b", &b, there, object).await, Ok(vec!["10.0.0.1:7444".to_owned()]));
    assert_eq!(f.near("a", &a, HERE, object).await, Ok(vec![]), "itself");
    assert_eq!(f.near("b", &b, From("10.0.1.1", "https"), object).await, Ok(vec![]), "another segment");
    // No task of its own has it; nobody has it; the token would be read on the way; another device's token.
    assert_eq!(f.near("c", &c, there, object).await, Err(404));
    assert_eq!(f.near("b", &b, there, Hash::of(b"other")).await, Err(404));
    assert_eq!(f.near("b", &b, From("10.0.0.200", "http"), object).await, Err(404));
    assert_eq!(f.near("b", &c, there, object).await, Err(401));

    // Its own address, as its administrator says.
    let mut at = offer(&[object]);
    at["address"] = json!("192.0.2.7");
    assert_eq!(f.offers("a", &a, HERE, at).await, 204);
    assert_eq!(f.near("b", &b, there, object).await, Ok(vec!["192.0.2.7:7444".to_owned()]));
    // A device that was refused serves nobody, and one that withdraws neither.
    f.remote.order(Method::POST, "/devices/a/refuse", Vec::new()).await.expect("refused");
    assert_eq!(f.near("b", &b, there, object).await, Ok(vec![]));
    f.remote.order(Method::POST, "/devices/a/accept", b"{}".to_vec()).await.expect("accepted");
    assert_eq!(f.near("b", &b, there, object).await, Ok(vec!["192.0.2.7:7444".to_owned()]));
    assert_eq!(f.offers("a", &a, HERE, offer(&[])).await, 204);
    assert_eq!(f.near("b", &b, there, object).await, Ok(vec![]));
    f.running.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_are_checked_and_nothing_is_named_by_a_server_that_does_not_allow_it() {
    let f = neighbours().await;
    let a = f.accept("a").await;
    let with = |member: &str, value: Value| {
        let mut body = offer(&[]);
        body[member] = value;
        body
    };
    let many = vec![Hash([7; 32]); MAX_SHARED + 1];
    for (body, want) in [
        (offer(&[]), 204),
        (offer(&many[1..]), 204),
        (offer(&many), 400),
        (with("port", json!(0)), 400),
        (with("port", json!(70_000)), 400),
        (with("address", json!("0.0.0.0")), 400),
        (with("address", json!("::")), 400),
        (with("address", json!("239.1.2.3")), 400),
        (with("address", json!("host.example.org")), 400),
        (with("key", json!("x")), 400),
        (with("objects", json!(["../../identity.json"])), 400),
        (with("more", json!("x".repeat(MAX_DDI_BODY))), 413),
    ] {
        let text: String = body.to_string().chars().take(200).collect();
        assert_eq!(f.offers("a", &a, HERE, body).await, want, "{text}");
    }
    assert_eq!(f.offers("a", &a, From("10.0.0.1", "http"), offer(&[])).await, 404, "the key would be read");
    assert_eq!(f.offers("a", "TargetToken nonsense", HERE, offer(&[])).await, 401);
    f.running.shut_down().await;

    let f = fleet_with(|config| config.trusted_proxies = vec![[127, 0, 0, 1].into()]).await;
    let a = f.accept("a").await;
    f.task("image", b"content", Terms::default(), |_| {}).await;
    assert_eq!(f.offers("a", &a, HERE, offer(&[Hash::of(b"content")])).await, 404);
    assert_eq!(f.near("a", &a, HERE, Hash::of(b"content")).await, Err(404));
    f.running.shut_down().await;
}
