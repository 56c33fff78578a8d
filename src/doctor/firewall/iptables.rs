//! Rules from `iptables-save`. Only its filter table drops.

use super::rules::{Action, Base, Condition, Hook, Rule, Ruleset};

/// The rules of the filter table.
pub fn parse(text: &str) -> Ruleset {
    let mut set = Ruleset::default();
    let mut filter = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some(table) if table.starts_with('*') => filter = table == "*filter",
            Some(chain) if filter && chain.starts_with(':') => {
                let hook = match &chain[1..] {
                    "INPUT" => Some(Hook::Input),
                    "OUTPUT" => Some(Hook::Output),
                    _ => None,
                };
                let chain = set.chains.entry(name(&chain[1..])).or_default();
                chain.hook = hook.map(|hook| Base { hook, devices: Vec::new(), v6: Some(false) });
                chain.drops = words.next() == Some("DROP");
            }
            Some("-A") if filter => {
                if let Some(chain) = words.next() {
                    let chain = set.chains.entry(name(chain)).or_default();
                    chain.rules.push(rule(&mut words));
                }
            }
            _ => {}
        }
    }
    set
}

fn name(chain: &str) -> String {
    format!("chain {chain} of iptables")
}

fn rule<'a>(words: &mut impl Iterator<Item = &'a str>) -> Rule {
    let mut made = Rule { conditions: Vec::new(), action: Action::Nothing };
    let mut same = true;
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        let condition = match word {
            "!" => {
                same = false;
                continue;
            }
            "-p" => Condition::Is((value() == "udp") == same),
            "-i" | "-o" => Condition::Interface(value().replace('+', "*"), same),
            // The first datagram of a transfer belongs to no connection: multicast never does.
            "--ctstate" | "--state" => Condition::Is(value().split(',').any(|state| state == "NEW") == same),
            "--dport" | "--dports" => {
                let ranges: Option<Vec<_>> = value().split(',').map(range).collect();
                ranges.map_or(Condition::Unknown, |ranges| Condition::Port(ranges, same))
            }
            "-d" => {
                network(value()).map_or(Condition::Unknown, |(net, len)| Condition::Daddr(net, len, same))
            }
            // It names what follows, or says no more than -p.
            "-m" => match value() {
                "udp" | "multiport" | "comment" | "conntrack" | "state" => continue,
                _ => Condition::Unknown,
            },
            "--comment" => {
                let mut text = value();
                while text.starts_with('"') && !text.ends_with('"') || text == "\"" {
                    match words.next() {
                        Some(more) if more.ends_with('"') => break,
                        Some(_) => {}
                        None => break,
                    }
                    text = "\"";
                }
                continue;
            }
            "-j" | "-g" => {
                made.action = match (value(), word) {
                    ("ACCEPT", _) => Action::Accept,
                    ("DROP" | "REJECT", _) => Action::Drop,
                    ("RETURN", _) => Action::Return,
                    ("LOG" | "NFLOG" | "MARK", _) => Action::Nothing,
                    (chain, "-j") => Action::Jump(name(chain)),
                    (chain, _) => Action::Goto(name(chain)),
                };
                // The target's own options follow.
                break;
            }
            _ => Condition::Unknown,
        };
        made.conditions.push(condition);
        same = true;
    }
    made
}

fn range(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((low, high)) => Some((low.parse().ok()?, high.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

fn network(text: &str) -> Option<(std::net::Ipv4Addr, u8)> {
    let (net, len) = text.split_once('/').unwrap_or((text, "32"));
    Some((net.parse().ok()?, len.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Fate, Packet};
    use super::*;

    #[test]
    fn what_rules_do() {
        let head = "*mangle\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n";
        for (rules, input, output) in [
            (":INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n", "accepted", "dropped"),
            (
                ":INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 7417:7418 -j ACCEPT\n",
                "accepted",
                "accepted",
            ),
            (
                ":INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
                "dropped",
                "accepted",
            ),
            (
                ":INPUT ACCEPT [0:0]\n-A INPUT -i lo -j DROP\n-A INPUT ! -i eth+ -j DROP\n",
                "accepted",
                "accepted",
            ),
            (
                ":INPUT ACCEPT [0:0]\n:own - [0:0]\n-A INPUT -m comment --comment \"a b\" -j own\n-A own -d 224.0.0.0/4 -j REJECT --reject-with x\n",
                "dropped",
                "accepted",
            ),
            (":OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j DROP\n", "accepted", "accepted"),
            (":INPUT DROP [0:0]\n-A INPUT -m mark --mark 0x7 -j ACCEPT\n", "unknown", "accepted"),
        ] {
            let set = parse(&format!("{head}{rules}COMMIT\n"));
            let packet =
                Packet { interface: "eth0", port: 7417, daddr: Some([239, 255, 74, 17].into()), v6: false };
            let fate = |hook| match set.fate(hook, &packet) {
                Fate::Accepted => "accepted",
                Fate::Unknown(_) => "unknown",
                Fate::Dropped(_) => "dropped",
            };
            assert_eq!((fate(Hook::Input), fate(Hook::Output)), (input, output), "{rules}");
        }
    }
}
