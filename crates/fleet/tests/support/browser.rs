//! Chromium without a window, driven over its own protocol on two pipes.

use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    last: u64,
    page: String,
    /// What the browser reported that was nobody's answer.
    events: Vec<Value>,
    _dir: tempfile::TempDir,
}

/// Whether there is a browser here.
pub fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("chromium").is_file())
}

impl Browser {
    /// Starts a browser that takes the certificate with this key's hash (SHA-256, base64) and asks this machine alone.
    pub fn start(pin: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
            path
        };
        let (commands, answers) = (pipe("commands"), pipe("answers"));
        let child = Command::new("sh")
            .args(["-c", "in=$1 out=$2; shift 2; exec chromium \"$@\" 3<\"$in\" 4>\"$out\"", "sh"])
            .args([&commands, &answers])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", dir.path().join("data").display()))
            .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // The shell opens the pipes in the same order.
        let to = OpenOptions::new().write(true).open(commands).expect("opened");
        let from = BufReader::new(File::open(answers).expect("opened"));
        let page = String::new();
        let mut browser = Self { child, to, from, last: 0, page, events: Vec::new(), _dir: dir };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.page = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn read(&mut self) -> Value {
        let mut text = Vec::new();
        self.from.read_until(0, &mut text).expect("readable");
        assert_eq!(text.pop(), Some(0), "the browser is gone");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Calls a method of the protocol, and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.page.is_empty() {
            message["sessionId"] = self.page.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("written");
        loop {
            let mut answer = self.read();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event after those that were read.
    fn wait_for(&mut self, method: &str) {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["method"] == method) {
                self.events.remove(at);
                return;
            }
            let event = self.read();
            self.events.push(event);
        }
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        self.call("Page.navigate", json!({"url": url}));
        self.wait_for("Page.loadEventFired");
    }

    /// The value of an expression; of its promise, if it is one.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the page that is loaded.
    pub fn until(&mut self, expression: &str) {
        let script = format!(
            "new Promise((yes, no) => {{ const look = () => {{ if ({expression}) yes(true); else setTimeout(look, 20); }}; \
             setTimeout(() => no(new Error('it never was')), 60000); look(); }})"
        );
        self.value(&script);
    }

    /// Presses what the selector finds, and waits for the page that it leads to.
    pub fn press(&mut self, selector: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        self.value(&format!("document.querySelector({selector:?}).click()"));
        self.wait_for("Page.loadEventFired");
    }

    /// The window's width and height, and whether the reader prefers dark colours.
    pub fn look(&mut self, width: u32, height: u32, dark: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Writes a picture (PNG) of what the window shows.
    pub fn picture(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let text = answer["data"].as_str().expect("a picture");
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).expect("base64");
        std::fs::write(file, bytes).expect("written");
    }

    /// What the browser complained about: scripts that failed, what the page's policy refused, files that are missing.
    pub fn complaints(&mut self) -> Vec<String> {
        // An answer comes after what was reported before it.
        self.value("0");
        let about = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(event["params"].to_string()),
            Some("Log.entryAdded") => Some(event["params"]["entry"]["text"].to_string()),
            _ => None,
        };
        self.events.iter().filter_map(about).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
