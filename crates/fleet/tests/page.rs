//! The page in a real browser: Chromium without a window.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/invented.rs"]
mod invented;

use browser::{Browser, installed};
use invented::{Invented, name};
use mcp_fleet::store::DeviceState;
use serde_json::json;

fn skipped() -> bool {
    if !installed() {
        assert!(std::env::var_os("MCP_TESTS_MUST_RUN").is_none(), "would be skipped: needs chromium");
        eprintln!("skipped: needs chromium");
    }
    !installed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_live_and_fits_and_can_be_read_aloud() {
    if skipped() {
        return;
    }
    let fleet = Invented::new(100).await;
    let (link, url, task) = (fleet.link().await, fleet.url(), fleet.task);
    let store = fleet.running.store().clone();
    let mut browser = Browser::start(&fleet.pin());
    browser.look(1280, 900, false);
    browser.open(&link);
    browser.press("button");
    assert_eq!(browser.value("location.pathname"), "/");
    assert_eq!(browser.value("document.cookie"), "", "no script reads the cookie");
    browser.until("document.querySelector('#live.on')");

    // Another device, and the keyboard stays where it is.
    browser
        .value("window.kept = true; document.querySelector('[aria-label=\"bench-0003, working\"]').focus()");
    let now = mcp_fleet::server::clock::now();
    store.decide_device("aaa-newcomer", DeviceState::Accepted, None, now).await.expect("accepted");
    browser.until("document.querySelector('[aria-label^=aaa-newcomer]')");
    assert_eq!(browser.value("window.kept"), true, "the page was not loaded again");
    let focus = "document.activeElement.getAttribute('aria-label')";
    assert_eq!(browser.value(focus), "bench-0003, working");

    let pages = ["/".to_owned(), format!("/tasks/{task}"), format!("/devices/{}", name(7)), "/login".into()];
    for path in pages {
        browser.open(&format!("{url}{path}"));
        for width in [1280, 390] {
            browser.look(width, 900, width == 390);
            let wide = browser.value("document.documentElement.scrollWidth");
            assert!(wide.as_u64().expect("a number") <= width.into(), "{path} is {wide} wide at {width}");
        }
        let tree = browser.call("Accessibility.getFullAXTree", json!({}));
        let mut named = 0;
        for node in tree["nodes"].as_array().expect("nodes") {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            if ["link", "button", "searchbox", "textbox", "progressbar"].contains(&role) {
                let text = node["name"]["value"].as_str().unwrap_or_default();
                assert!(text.chars().any(char::is_alphanumeric), "{path}: {node}");
                named += 1;
            }
        }
        assert!(named > 2, "{path}");
    }

    let dir = tempfile::tempdir().expect("a directory");
    let picture = dir.path().join("page.png");
    browser.picture(&picture);
    assert!(std::fs::read(picture).expect("a picture").starts_with(b"\x89PNG"));

    // Without scripts: the forms work.
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.open(&format!("{url}/tasks/{task}"));
    browser.press("form[action$='/pause'] button");
    assert!(store.tasks(Some(task)).await.expect("read")[0].state.as_str() == "paused");
    browser.press("form[action$='/resume'] button");
    assert!(store.tasks(Some(task)).await.expect("read")[0].state.as_str() == "running");
    browser.press("form[action='/logout'] button");
    assert_eq!(browser.value("location.pathname"), "/login");
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    fleet.running.shut_down().await;
}
