//! A server with invented devices, to look at its page.
//! `cargo run -p mcp-fleet --example page -- 100` prints a link and serves until Ctrl-C;
//! `cargo run -p mcp-fleet --example page -- 100 docs/page.png` takes a picture with Chromium.

#[path = "../tests/support/browser.rs"]
mod browser;
#[path = "../tests/support/invented.rs"]
mod invented;

use browser::{Browser, installed};
use invented::{Invented, name};
use std::path::PathBuf;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let devices: usize = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let fleet = Invented::new(devices).await;
    let link = fleet.link().await;
    match std::env::args().nth(2).map(PathBuf::from) {
        None => {
            println!("{link}");
            tokio::signal::ctrl_c().await?;
        }
        Some(_) if !installed() => return Err("pictures need Chromium; install the package chromium".into()),
        Some(file) => {
            let (pin, url, tasks) = (fleet.pin(), fleet.url(), [fleet.task, fleet.rollout]);
            tokio::task::spawn_blocking(move || pictures(&pin, &link, &url, tasks, &file)).await?;
        }
    }
    fleet.running.shut_down().await;
    Ok(())
}

/// Takes the picture `file`; with a directory in its place, of all pages in all ways to look at them.
fn pictures(pin: &str, link: &str, url: &str, tasks: [i64; 2], file: &std::path::Path) {
    let mut browser = Browser::start(pin);
    browser.look(1280, 900, false);
    browser.open(link);
    browser.press("button");
    browser.until("document.querySelector('#live.on')");
    if !file.is_dir() {
        browser.picture(file);
        return complain(&mut browser);
    }
    let pages = [
        ("fleet", "/".to_owned()),
        ("task", format!("/tasks/{}", tasks[0])),
        ("rollout", format!("/tasks/{}", tasks[1])),
        ("device", format!("/devices/{}", name(7 % 5))),
    ];
    for (name, path) in pages {
        browser.open(&format!("{url}{path}"));
        browser.until("document.querySelector('#live.on')");
        for (width, height) in [(1280, 1000), (390, 1400)] {
            for (scheme, dark) in [("light", false), ("dark", true)] {
                browser.look(width, height, dark);
                browser.picture(&file.join(format!("{name}-{width}-{scheme}.png")));
            }
        }
    }
    complain(&mut browser);
}

/// Says what the browser complained about.
fn complain(browser: &mut Browser) {
    browser.complaints().iter().for_each(|text| eprintln!("warning: {text}"));
}
