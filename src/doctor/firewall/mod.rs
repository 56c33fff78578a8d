//! Whether the packet filter of this machine lets transfers through. Rules are read as root from `nft` and
//! `iptables-save`; [`rules`] decides what they do to a datagram.

mod iptables;
mod nft;
mod rules;

use super::{Finding, Question, Verdict, fact};
use mcp_transfer::net::Interface;
use mcp_transfer::net::endpoint::FEEDBACK_PORT;
use rules::{Fate, Hook, Packet, Ruleset};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// The name of the check.
const CHECK: &str = "firewall";

/// Looks for rules that drop datagrams of transfers at these interfaces.
pub fn check(question: &Question, interfaces: &[Interface]) -> Vec<Finding> {
    let mut sets = Vec::new();
    let mut findings = Vec::new();
    for (program, args, read) in [
        ("nft", &["-j", "list", "ruleset"][..], nft::parse as fn(&str) -> Option<Ruleset>),
        ("iptables-save", &[], |text| Some(iptables::parse(text))),
    ] {
        match output(program, args) {
            Ok(text) => match read(&text) {
                Some(set) => sets.push(set),
                None => findings.push(Finding::warning(
                    CHECK,
                    format!("cannot tell: the rules of {program} cannot be read"),
                )),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) if !rustix::process::geteuid().is_root() => {
                return vec![Finding::warning(CHECK, "cannot tell: not root").mend("sudo mcp doctor")];
            }
            Err(e) => findings.push(Finding::warning(CHECK, format!("cannot tell: {program} failed ({e})"))),
        }
    }
    if sets.is_empty() && findings.is_empty() {
        return vec![
            Finding::warning(CHECK, "cannot tell: neither nft nor iptables-save is installed")
                .mend("apt install nftables"),
        ];
    }
    let port = question.destination.addr.port();
    // Devices get data at the one port, and senders feedback at the other. Most machines are devices.
    let cases = [
        (Hook::Input, port, Verdict::Broken, "arrives at", "devices need it"),
        (Hook::Input, FEEDBACK_PORT, Verdict::Warning, "arrives at", "only senders need it"),
        (Hook::Output, port, Verdict::Warning, "is sent to", "only senders need it"),
        (Hook::Output, FEEDBACK_PORT, Verdict::Broken, "is sent to", "devices need it"),
    ];
    for interface in interfaces {
        for (hook, port, verdict, what, role) in cases {
            let daddr = if port == FEEDBACK_PORT { None } else { question.group_v4() };
            let packet = Packet { interface: &interface.name, port, daddr, v6: question.destination.is_v6() };
            let (rule, does, verdict) = match sets.iter().map(|set| set.fate(hook, &packet)).max() {
                Some(Fate::Dropped(rule)) => (rule, "drops", verdict),
                Some(Fate::Unknown(rule)) => (rule, "may drop", Verdict::Warning),
                _ => continue,
            };
            let sentence = format!("{rule} {does} what {what} UDP port {port} ({}); {role}", interface.name);
            findings.push(Finding { verdict, ..Finding::ok(CHECK, sentence) }.mend(remedy(hook, port)));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("no rule drops UDP {port} or {FEEDBACK_PORT}")));
    }
    findings
}

/// The command that opens the port with the tool that rules here.
fn remedy(hook: Hook, port: u16) -> String {
    let ufw = fact("/etc/ufw/ufw.conf").is_some_and(|text| text.lines().any(|line| line == "ENABLED=yes"));
    match hook {
        Hook::Input if ufw => format!("ufw allow {port}/udp"),
        Hook::Output if ufw => format!("ufw allow out {port}/udp"),
        Hook::Input if Path::new("/run/firewalld").exists() => format!("firewall-cmd --add-port={port}/udp"),
        // A verdict of another table cannot be taken back: the user has to find the rule.
        _ => "nft -a list ruleset".to_owned(),
    }
}

/// Standard output of a program, at most what fits memory of a few rulesets.
fn output(program: &str, args: &[&str]) -> io::Result<String> {
    // These programs may be outside of a user's path.
    let found = ["/usr/sbin", "/sbin", "/usr/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.exists());
    let found = found.ok_or(io::ErrorKind::NotFound)?;
    let done = Command::new(found).args(args).stdin(Stdio::null()).output()?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        return Err(io::Error::other(why.lines().next().unwrap_or("no reason given").to_owned()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
