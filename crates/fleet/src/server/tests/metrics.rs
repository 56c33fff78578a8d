//! What the server counts, and what others make of it.

use super::*;

impl Fleet {
    pub(super) async fn counts(&self) -> String {
        let url = format!("http://{}/metrics", self.running.metrics.expect("it listens"));
        let answer = self.http.get(url).send().await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/plain; version=0.0.4; charset=utf-8".parse().expect("a value"))
        );
        answer.text().await.expect("a text")
    }
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

async fn counting() -> Fleet {
    fleet_with(|config| config.listen_metrics = "127.0.0.1:0".parse().ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_follow_what_happens() {
    let f = counting().await;
    let auth = f.accept("secret-name").await;
    let before = f.counts().await;
    f.poll("secret-name", &auth).await;
    let task = f.task("app", &bytes(3000), Terms::default(), |_| {}).await;
    let link = f.poll("secret-name", &auth).await.links.get("deploymentBase").expect("offered").to_owned();
    let deployment: DeploymentBase = f.read(&link, &auth).await;
    let what = deployment.deployment.expect("a deployment");
    let url = what.chunks[0].artifacts[0].links.get("download-http").expect("a link");
    assert_eq!(f.get(url, &auth).await.bytes().await.expect("a body").len(), 3000);
    assert_eq!(f.get(&f.ddi("nobody", ""), "TargetToken x").await.status(), 401);
    let app = &f.running.app;
    app.forget_snapshot().await;
    let after = f.counts().await;
    let grew = |name: &str| value(&after, name) - value(&before, name);
    assert_eq!(grew("mcp_check_ins_total"), 2.0);
    assert_eq!(grew("mcp_http_object_bytes_total"), 3000.0);
    assert_eq!(grew("mcp_http_answers_total{class=\"4xx\"}"), 1.0);
    assert!(grew("mcp_http_answers_total{class=\"2xx\"}") >= 5.0);
    assert!(grew("mcp_store_change_seconds_count") >= 3.0 && grew("mcp_store_change_seconds_sum") > 0.0);
    assert_eq!(value(&after, "mcp_devices{state=\"working\"}"), 1.0);
    assert_eq!(value(&after, "mcp_actions{state=\"running\"}"), 1.0);
    assert_eq!(value(&after, "mcp_tasks{state=\"running\"}"), 1.0);
    assert_eq!(value(&after, "mcp_store_up"), 1.0);
    assert!(!after.contains("secret"), "no names");
    let view = SessionView { symbols: 100, repairs: 7, wire: 9, ..SessionView::default() };
    app.metrics.session_over(&view);
    let after = f.counts().await;
    assert_eq!(value(&after, "mcp_session_symbols_total{kind=\"repair\"}"), 7.0);
    assert_eq!(
        (value(&after, "mcp_sessions_total"), value(&after, "mcp_session_wire_bytes_total")),
        (1.0, 9.0)
    );
    assert!(task > 0);
    // Not where devices and browsers come, and nothing else there.
    assert_eq!(f.http.get(f.url("/metrics")).send().await.expect("an answer").status(), 404);
    let other = format!("http://{}/login", f.running.metrics.expect("it listens"));
    assert_eq!(f.http.get(other).send().await.expect("an answer").status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_what_there_is() {
    let f = counting().await;
    let counts = f.counts().await;
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../../../packaging/grafana/mcp.json")).expect("JSON");
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for name in query.split(|c| !word(c)).filter(|name| name.starts_with("mcp_")) {
                let known = counts
                    .lines()
                    .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
                assert!(known, "{name} of {query}");
                asked += 1;
            }
        }
    }
    assert!(asked > 15, "{asked}");
}
