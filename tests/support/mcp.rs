//! `mcp` command lines, their events and reports.

use super::files::unique;
use super::process::{Cmd, End, Proc};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Long enough for any short operation on a busy two-core machine.
pub const SOON: Duration = Duration::from_secs(120);

/// The binary under test.
pub const MCP: &str = env!("CARGO_BIN_EXE_mcp");

/// The group, port and interface of a session. `None` leaves the choice to `mcp`.
#[derive(Clone, Default)]
pub struct Network {
    pub group: Option<String>,
    pub port: Option<u16>,
    pub interface: Option<String>,
}

impl Network {
    pub fn new(group: &str, port: u16, interface: &str) -> Self {
        Self { group: Some(group.into()), port: Some(port), interface: Some(interface.into()) }
    }
    /// A group and a port of this test's own on `lo`.
    pub fn loopback() -> Self {
        let n = unique();
        let group = Ipv4Addr::new(239, 77, (std::process::id() % 251) as u8, (n % 250 + 1) as u8);
        Self::new(&group.to_string(), free_port(), "lo")
    }
    fn options(&self, cmd: Cmd) -> Cmd {
        let mut cmd = cmd;
        if let Some(interface) = &self.interface {
            cmd = cmd.args(["-i", interface]);
        }
        if let Some(port) = self.port {
            cmd = cmd.args(["-p", &port.to_string()]);
        }
        cmd
    }
    fn group(&self, cmd: Cmd) -> Cmd {
        match &self.group {
            Some(group) => cmd.tail(group),
            None => cmd,
        }
    }
    /// `mcp send FILE GROUP -n receivers --json`.
    pub fn send(&self, file: impl AsRef<Path>, receivers: usize) -> Cmd {
        let cmd = Cmd::new("sender", MCP).args(["send", "--json", "-n", &receivers.to_string()]);
        self.group(self.options(cmd).tail("--").tail(file.as_ref()))
    }
    /// `mcp send FILE GROUP --devices list --json`.
    pub fn send_to_list(&self, file: impl AsRef<Path>, list: &Path) -> Cmd {
        let cmd = Cmd::new("sender", MCP).args(["send", "--json", "--devices"]).arg(list);
        self.group(self.options(cmd).tail("--").tail(file.as_ref()))
    }
    /// `mcp recv GROUP -o output --id id --json`. It gives up if no sender comes.
    pub fn recv(&self, id: &str, output: impl AsRef<Path>) -> Cmd {
        self.patient_recv(id, output, SOON)
    }
    /// Like [`Network::recv`], with a given time to wait for a sender.
    pub fn patient_recv(&self, id: &str, output: impl AsRef<Path>, timeout: Duration) -> Cmd {
        let timeout = format!("{}ms", timeout.as_millis());
        let cmd = Cmd::new(id, MCP).args(["recv", "--json", "--timeout", &timeout, "--id", id]);
        self.group(self.options(cmd).arg("-o").arg(output.as_ref()).tail("--"))
    }
}

/// A UDP port that was free a moment ago. It is below the range of ephemeral ports: otherwise the sockets
/// of another test's processes could take it in the meantime. No two calls look at the same port, because a look
/// takes it for a moment.
pub fn free_port() -> u16 {
    static LOOKED_AT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let next = || begin.wrapping_add(LOOKED_AT.fetch_add(3, Ordering::Relaxed)) % 20_000;
    std::iter::repeat_with(|| 10_000 + next() as u16)
        .take(1000)
        .find(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .expect("a free UDP port")
}

/// Whether an event line is of this kind.
pub fn is_event(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

impl Proc {
    /// Waits for the next event of a kind.
    #[track_caller]
    pub fn event(&mut self, kind: &str) -> Value {
        self.until(&format!("event \"{kind}\""), SOON, |e| is_event(e, kind))
    }

    /// Waits until this receiver has reported that many bytes of the object.
    #[track_caller]
    pub fn received(&mut self, bytes: u64) {
        self.counted("received_bytes", bytes);
    }
    /// Waits until a receiver has verified so many bytes.
    #[track_caller]
    pub fn verified(&mut self, bytes: u64) {
        self.counted("verified_bytes", bytes);
    }
    #[track_caller]
    fn counted(&mut self, key: &str, bytes: u64) {
        let enough = |e: &Value| is_event(e, "progress") && e[key].as_u64().is_some_and(|have| have >= bytes);
        self.until(&format!("{bytes} {key}"), SOON, enough);
    }
}

/// A number in an event.
#[track_caller]
pub fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

impl End {
    /// The share of the object that a receiver took from the network.
    #[track_caller]
    pub fn received_share(&self) -> f64 {
        let last = self.last_event();
        number(&last, "received_bytes") / number(&last, "size")
    }
    /// The last event, which has the run's outcome.
    #[track_caller]
    pub fn last_event(&self) -> Value {
        self.events().pop().unwrap_or_else(|| panic!("no events; standard error: {}", self.stderr))
    }
}

/// The content of the report file.
pub struct Report(pub Value);

impl Report {
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        Self(serde_json::from_str(&text).unwrap_or_else(|e| panic!("report is not JSON ({e}): {text}")))
    }
    pub fn rows(&self) -> &[Value] {
        self.0["devices"].as_array().map_or(&[], Vec::as_slice)
    }
    /// The row of the device that was started with this `--id`.
    #[track_caller]
    pub fn row(&self, label: &str) -> &Value {
        self.rows()
            .iter()
            .find(|r| r["label"] == label)
            .unwrap_or_else(|| panic!("no device {label} in the report: {:#}", self.0))
    }
    #[track_caller]
    pub fn status(&self, label: &str) -> &str {
        self.row(label)["status"].as_str().unwrap_or_else(|| panic!("no status for {label}: {:#}", self.0))
    }
    #[track_caller]
    pub fn reason(&self, label: &str) -> String {
        self.row(label)["reason"].as_str().unwrap_or_default().to_lowercase()
    }
    /// One of the sender's counters.
    #[track_caller]
    pub fn counter(&self, key: &str) -> f64 {
        let value = self.0["counters"][key].as_f64();
        value.unwrap_or_else(|| panic!("no counter \"{key}\" in the report: {:#}", self.0))
    }
}
