//! Interfaces, addresses, link speed, MTU, offloads, and the way to the group.

use super::{Finding, Question, fact, quoted};
use mcp_transfer::net::{Interface, InterfaceError, choose};
use mcp_transfer::text::rate;
use std::path::Path;
use std::process::{Command, Stdio};

/// The least MTU of IPv6 (RFC 8200), and so of networks today.
const LEAST_MTU: u32 = 1280;
/// The usual MTU.
const USUAL_MTU: u32 = 1500;
/// Links slower than this make a transfer slow, in Mbit/s.
const SLOW_LINK: u32 = 100;
/// The kernel's mark of an IPv6 address that another machine has too.
const DAD_FAILED: u32 = 0x08;

/// Looks at the interfaces that transfers use.
pub fn check(question: &Question) -> Vec<Finding> {
    let interfaces = match question.interfaces() {
        Ok(interfaces) => interfaces,
        Err(e) => return vec![lacking(&e)],
    };
    let mut findings: Vec<Finding> = interfaces.iter().flat_map(interface).collect();
    findings.push(match choose(question.interface.as_deref(), &question.destination) {
        Ok(chosen) => Finding::ok("route", format!("{} is reached by {}", question.destination, chosen.name)),
        // Receiving works with any number of them.
        Err(e @ InterfaceError::Several { .. }) => {
            Finding::warning("route", format!("mcp send does not know where to: {e}"))
                .mend(format!("mcp send --interface {}", interfaces.first().map_or("NAME", |i| &i.name)))
        }
        Err(e) => lacking(&e),
    });
    findings.extend(filtered(&interfaces));
    findings.extend(duplicates(&fact("/proc/net/if_inet6").unwrap_or_default()));
    findings
}

/// No interface can be used.
fn lacking(error: &InterfaceError) -> Finding {
    let finding = Finding::broken("route", error.to_string());
    match error {
        InterfaceError::Down { name } => finding.mend(format!("ip link set {} up", quoted(name))),
        _ => finding.mend("ip address show"),
    }
}

fn interface(i: &Interface) -> Vec<Finding> {
    let speed =
        i.link_rate().map_or_else(|| "of unknown speed".to_owned(), |speed| format!("at {}", rate(speed.0)));
    let told = format!("{i} is up, {speed}");
    let slow = i.speed.is_some_and(|mbits| mbits < SLOW_LINK);
    let unplugged = fact(&format!("/sys/class/net/{}/carrier", i.name)).is_some_and(|carrier| carrier == "0");
    let link = if unplugged {
        Finding::broken("interface", format!("{i} has no link: its cable or the other end is off"))
            .mend(format!("ip link show {}", quoted(&i.name)))
    } else if slow {
        Finding::warning("interface", format!("{told}; most links are faster"))
            .mend(format!("ethtool {}", quoted(&i.name)))
    } else {
        Finding::ok("interface", told)
    };
    let mtu = if i.mtu < LEAST_MTU {
        Finding::warning(
            "mtu",
            format!("datagrams on {} are at most {} bytes, which makes transfers slow", i.name, i.mtu),
        )
        .mend(format!("ip link set {} mtu {USUAL_MTU}", quoted(&i.name)))
    } else {
        Finding::ok(
            "mtu",
            format!(
                "datagrams on {} are at most {} bytes; whether they arrive is for a pair to tell",
                i.name, i.mtu
            ),
        )
    };
    let mut findings = vec![link, mtu];
    if !i.loopback {
        findings.extend(offloads(&i.name));
    }
    findings
}

/// Whether the kernel passes runs of datagrams through the network stack at once. Only `ethtool` tells it for an
/// interface.
fn offloads(name: &str) -> Option<Finding> {
    let done = Command::new("ethtool").args(["-k", name]).stdin(Stdio::null()).output().ok()?;
    if !done.status.success() {
        return None;
    }
    let mut off = without(&String::from_utf8_lossy(&done.stdout));
    if !Path::new("/sys/class/net").join(name).join("device").exists() {
        // Virtual interfaces have no need to put together what was never taken apart.
        off.retain(|word| *word != "gro");
    }
    Some(if off.is_empty() {
        Finding::ok("offload", format!("{name} handles runs of datagrams at once"))
    } else {
        let words: Vec<String> = off.iter().map(|word| format!("{word} on")).collect();
        Finding::warning(
            "offload",
            format!("{name} handles each datagram by itself ({} off)", off.join(", ")),
        )
        .mend(format!("ethtool -K {} {}", quoted(name), words.join(" ")))
    })
}

/// The offloads that are switched off, by the short names that `ethtool -K` takes.
fn without(features: &str) -> Vec<&'static str> {
    let off = |long: &str| {
        features
            .lines()
            .any(|line| line.trim().strip_prefix(long).is_some_and(|rest| rest.starts_with(": off")))
    };
    let known = [("generic-segmentation-offload", "gso"), ("generic-receive-offload", "gro")];
    known.into_iter().filter(|(long, _)| off(long)).map(|(_, short)| short).collect()
}

/// Strict reverse path filters drop the datagrams of senders to which the routes lead another way.
fn filtered(interfaces: &[Interface]) -> Option<Finding> {
    let mode = |name: &str| {
        fact(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).and_then(|mode| mode.parse::<u8>().ok())
    };
    let all = mode("all").unwrap_or(0);
    let strict = interfaces.iter().find(|i| mode(&i.name).unwrap_or(0).max(all) == 1);
    let strict = strict.filter(|_| interfaces.len() > 1)?;
    Some(
        Finding::warning(
            "route",
            format!("{} drops what comes from machines that another interface leads to", strict.name),
        )
        .mend(format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", strict.name)),
    )
}

/// IPv6 addresses that the kernel does not use, because another machine has them. Columns of the table: address,
/// index, prefix length, scope, flags, interface.
fn duplicates(table: &str) -> Vec<Finding> {
    let found = |line: &str| {
        let c: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, _, _, flags, name] = c[..] else { return None };
        let address = std::net::Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        (u32::from_str_radix(flags, 16).ok()? & DAD_FAILED != 0).then(|| {
            Finding::broken(
                "duplicate",
                format!("another machine on {name} has this machine's address {address}"),
            )
            .mend(format!("ip address delete {address} dev {}", quoted(name)))
        })
    };
    table.lines().filter_map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_addresses() {
        let table = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                     fd770000000000000000000000000002 02 40 00 88     eth0\nshort line\n";
        let found = duplicates(table);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].remedy.as_deref(), Some("ip address delete fd77::2 dev eth0"));
    }

    #[test]
    fn offloads_that_are_off() {
        let text = "Features for eth0:\ngeneric-segmentation-offload: on\ngeneric-receive-offload: off\ntx-udp-segmentation: off\n";
        assert_eq!(without(text), ["gro"]);
        assert!(without("").is_empty());
    }
}
