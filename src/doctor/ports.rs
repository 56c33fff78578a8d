//! Who listens at the ports of transfers.

use super::{Finding, fact};
use mcp_transfer::net::endpoint::{FEEDBACK_PORT, Families};
use mcp_transfer::net::{Features, UdpNet};
use std::fs;
use std::io;

/// The name of the check.
const CHECK: &str = "port";
/// Most processes that are searched for the one with a socket.
const MAX_PROCESSES: usize = 100_000;

/// Looks for programs that keep a receiver from `port`, or a sender from the port of feedback.
pub fn check(port: u16) -> Vec<Finding> {
    let opened = UdpNet::receiver(&[], port, Families::ANY, (Features::default(), None)).map(drop);
    let shared = match opened {
        Ok(()) => match holders(port) {
            names if names.is_empty() => Finding::ok(CHECK, format!("UDP port {port} is free")),
            names => Finding::ok(CHECK, format!("UDP port {port} is shared with {}", names.join(", "))),
        },
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            Finding::broken(CHECK, format!("UDP port {port} is taken by {}", named(port)))
                .mend(format!("ss -ulpn 'sport = :{port}'"))
        }
        Err(e) => Finding::broken(CHECK, format!("UDP port {port} cannot be used: {e}"))
            .mend("mcp recv --port 17417"),
    };
    let feedback = match holders(FEEDBACK_PORT) {
        names if names.is_empty() => Finding::ok(CHECK, format!("UDP port {FEEDBACK_PORT} is free")),
        names => Finding::warning(
            CHECK,
            format!("UDP port {FEEDBACK_PORT} is taken by {}; a sender takes another one, which firewalls may block", names.join(", ")),
        )
        .mend(format!("ss -ulpn 'sport = :{FEEDBACK_PORT}'")),
    };
    vec![shared, feedback]
}

fn named(port: u16) -> String {
    let names = holders(port);
    if names.is_empty() { "another program".to_owned() } else { names.join(", ") }
}

/// The programs with a UDP socket at the port, as far as this user may see them.
fn holders(port: u16) -> Vec<String> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| fact(path).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| sockets(table, port)).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut names = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().take(MAX_PROCESSES);
    for process in
        processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
    {
        let links = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        let has = |target: &std::path::Path| {
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
        };
        if targets.any(|target| has(&target)) {
            let pid = process.file_name().to_string_lossy().into_owned();
            let name = fact(&format!("/proc/{pid}/comm")).unwrap_or_default();
            names.push(format!("{name} (process {pid})"));
        }
    }
    if names.is_empty() { vec!["a program of another user".to_owned()] } else { names }
}

/// The inodes of the sockets at a port. Columns: slot, local address and port, remote, state, queues, timer,
/// retransmissions, user, timeout, inode.
fn sockets(table: &str, port: u16) -> Vec<String> {
    let at = |line: &str| {
        let c: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = u16::from_str_radix(c.get(1)?.rsplit(':').next()?, 16).ok()?;
        (local == port).then(|| c.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_with_its_holder() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let holders = holders(port);
        assert!(
            holders.iter().any(|name| name.contains(&format!("process {}", std::process::id()))),
            "{holders:?}"
        );
        assert!(sockets("x\ngarbage\n", port).is_empty());
    }
}
