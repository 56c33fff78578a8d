//! Rules from `nft -j list ruleset` (libnftables-json(5)).

use super::rules::{Action, Base, Chain, Condition, Hook, Rule, Ruleset};
use serde_json::Value;

/// Protocol families as numbers and names.
const UDP: [&str; 2] = ["udp", "17"];

/// The rules; `None` if the text is not the JSON of `nft`.
pub fn parse(text: &str) -> Option<Ruleset> {
    let all: Value = serde_json::from_str(text).ok()?;
    let mut set = Ruleset::default();
    for object in all["nftables"].as_array()? {
        if let Some(chain) = object.get("chain") {
            set.chains.insert(name(chain, &chain["name"]), base(chain));
        }
        if let Some(rule) = object.get("rule") {
            let chain = set.chains.entry(name(rule, &rule["chain"])).or_default();
            chain.rules.push(rule_of(rule));
        }
    }
    Some(set)
}

/// A chain's name for people.
fn name(object: &Value, chain: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("chain {} of table {} {}", word(chain), word(&object["family"]), word(&object["table"]))
}

fn base(chain: &Value) -> Chain {
    let hook = match chain["hook"].as_str() {
        Some("input" | "prerouting" | "ingress") => Some(Hook::Input),
        Some("output" | "postrouting" | "egress") => Some(Hook::Output),
        _ => None,
    };
    let devices = match &chain["dev"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(|d| Some(d.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    };
    let family = chain["family"].as_str();
    let v6 = match family {
        Some("ip") => Some(false),
        Some("ip6") => Some(true),
        _ => None,
    };
    // What bridges pass on is not for this machine, and chains of nat only see the first datagram of a flow.
    let hook = hook.filter(|_| !matches!(family, Some("bridge" | "arp")) && chain["type"] != "nat");
    let hook = hook.map(|hook| Base { hook, devices, v6 });
    Chain { hook, drops: chain["policy"] == "drop", rules: Vec::new() }
}

fn rule_of(rule: &Value) -> Rule {
    let mut made = Rule { conditions: Vec::new(), action: Action::Nothing };
    for part in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = part.as_object().and_then(|part| part.iter().next()) else { continue };
        match kind.as_str() {
            "match" => made.conditions.push(condition(value)),
            "accept" => made.action = Action::Accept,
            "drop" | "reject" => made.action = Action::Drop,
            "return" => made.action = Action::Return,
            "jump" | "goto" => {
                let target = name(rule, &value["target"]);
                made.action = if kind == "jump" { Action::Jump(target) } else { Action::Goto(target) };
            }
            "counter" | "log" | "mangle" | "comment" | "notrack" | "quota" => {}
            // A limit, a map of verdicts, what comes from iptables.
            "limit" | "xt" | "ct count" => made.conditions.push(Condition::Unknown),
            _ => made.action = Action::Unknown,
        }
    }
    made
}

fn condition(value: &Value) -> Condition {
    let same = match value["op"].as_str() {
        Some("==" | "in") => true,
        Some("!=") => false,
        _ => return Condition::Unknown,
    };
    let (left, right) = (&value["left"], &value["right"]);
    let words = words(right);
    if left["ct"]["key"] == "state" {
        // The first datagram of a transfer belongs to no connection: multicast never does.
        return Condition::Is(words.iter().any(|word| word == "new") == same);
    }
    let any = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    match left["meta"]["key"].as_str() {
        Some("l4proto") => return Condition::Is(any(&UDP) == same),
        Some("nfproto") => return Condition::V6(any(&["ipv6"]) == same),
        Some("protocol") if words.len() == 1 => return Condition::V6(any(&["ip6"]) == same),
        Some("iif" | "iifname" | "oif" | "oifname") => {
            return match &words[..] {
                [one] => Condition::Interface(one.clone(), same),
                _ => Condition::Unknown,
            };
        }
        _ => {}
    }
    let payload = &left["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some("udp" | "th"), Some("dport")) => {
            ports(right).map_or(Condition::Unknown, |ranges| Condition::Port(ranges, same))
        }
        (Some("tcp" | "icmp" | "icmpv6" | "igmp" | "sctp" | "dccp"), _) => Condition::Is(false),
        (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => Condition::Is(any(&UDP) == same),
        (Some("ip"), Some("daddr")) => {
            network(right).map_or(Condition::Unknown, |(net, len)| Condition::Daddr(net, len, same))
        }
        _ => Condition::Unknown,
    }
}

/// A word, or all words of a list or an anonymous set.
fn words(right: &Value) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match right.as_array().or_else(|| right.get("set")?.as_array()) {
        Some(set) => set.iter().filter_map(one).collect(),
        None => one(right).into_iter().collect(),
    }
}

/// Ports: one, a range, or an anonymous set of both; `None` for others.
fn ports(right: &Value) -> Option<Vec<(u16, u16)>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let one = |value: &Value| match value.get("range").and_then(Value::as_array) {
        Some(range) => Some((port(range.first()?)?, port(range.get(1)?)?)),
        None => port(value).map(|port| (port, port)),
    };
    match right.get("set").and_then(Value::as_array) {
        Some(set) => set.iter().map(one).collect(),
        None => one(right).map(|range| vec![range]),
    }
}

fn network(right: &Value) -> Option<(std::net::Ipv4Addr, u8)> {
    if let Some(prefix) = right.get("prefix") {
        return Some((prefix["addr"].as_str()?.parse().ok()?, u8::try_from(prefix["len"].as_u64()?).ok()?));
    }
    Some((right.as_str()?.parse().ok()?, 32))
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Fate, Packet};
    use super::*;

    /// The fate of what arrives at eth0 for 7417, by a base chain with these expressions of one rule each.
    fn fate(policy: &str, rules: &[&str]) -> &'static str {
        let chain = format!(
            r#"{{"chain":{{"family":"inet","table":"f","name":"in","type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}}"#
        );
        let rules = rules.iter().map(|expr| {
            format!(r#",{{"rule":{{"family":"inet","table":"f","chain":"in","expr":[{expr}]}}}}"#)
        });
        let other = r#",{"chain":{"family":"inet","table":"f","name":"x"}},{"rule":{"family":"inet","table":"f","chain":"x","expr":[{"drop":null}]}}"#;
        let text = format!(r#"{{"nftables":[{chain}{}{other}]}}"#, rules.collect::<String>());
        let packet =
            Packet { interface: "eth0", port: 7417, daddr: Some([239, 255, 74, 17].into()), v6: false };
        match parse(&text).unwrap().fate(Hook::Input, &packet) {
            Fate::Accepted => "accepted",
            Fate::Unknown(_) => "unknown",
            Fate::Dropped(_) => "dropped",
        }
    }

    const UDP_7417: &str = r#"{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":{"set":[53,{"range":[7400,7420]}]}}}"#;
    const TCP: &str =
        r#"{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":22}}"#;
    const LOOP: &str = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}}"#;
    const GROUPS: &str = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"prefix":{"addr":"224.0.0.0","len":4}}}}"#;
    const MARK: &str = r#"{"match":{"op":"==","left":{"meta":{"key":"mark"}},"right":7}}"#;
    const KNOWN: &str = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established"]}}"#;

    #[test]
    fn what_rules_do() {
        let with =
            |condition: &str, action: &str| format!(r#"{condition},{{"counter":{{}}}},{{"{action}":null}}"#);
        let jump = |condition: &str| format!(r#"{condition},{{"jump":{{"target":"x"}}}}"#);
        for (policy, rules, wanted) in [
            ("accept", vec![], "accepted"),
            ("drop", vec![], "dropped"),
            ("drop", vec![with(UDP_7417, "accept")], "accepted"),
            ("drop", vec![with(KNOWN, "accept")], "dropped"),
            ("drop", vec![with(MARK, "accept")], "unknown"),
            ("drop", vec![with(TCP, "accept"), with(LOOP, "accept")], "dropped"),
            ("accept", vec![with(GROUPS, "drop")], "dropped"),
            ("accept", vec![with(LOOP, "drop")], "accepted"),
            ("accept", vec![with(KNOWN, "drop")], "accepted"),
            ("accept", vec![with(MARK, "drop")], "unknown"),
            ("accept", vec![jump(UDP_7417)], "dropped"),
            ("accept", vec![jump(TCP)], "accepted"),
            ("accept", vec![with(UDP_7417, "return"), jump(UDP_7417)], "accepted"),
        ] {
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            assert_eq!(fate(policy, &rules), wanted, "{policy} {rules:?}");
        }
    }

    #[test]
    fn what_is_no_ruleset() {
        assert!(parse("").is_none() && parse("{}").is_none());
        assert!(parse(r#"{"nftables":[{"chain":7},{"rule":{}},null]}"#).is_some());
    }
}
