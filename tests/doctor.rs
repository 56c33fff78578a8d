//! `mcp doctor`: each fault is made on purpose in network namespaces, and the doctor names it; each healthy case is
//! healthy. Real binary. Needs root and `ip`, `nft`, `ethtool`, `tc`; without them each test says so and passes.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::files::TempDir;
use support::lab::Lab;
use support::mcp::{MCP, SOON};
use support::process::{Cmd, End, Proc};
use support::{alone, has_program, skip};

/// A doctor with a state directory and an output directory of its own.
fn doctor(tmp: &TempDir, args: &[&str]) -> Cmd {
    let cmd = Cmd::new("doctor", MCP).arg("doctor").arg("--json").args(args);
    cmd.dir(tmp.path()).env("MCP_STATE_DIR", tmp.join("state"))
}

/// What a doctor found: verdict, sentence and remedy of each finding.
struct Findings(Vec<Value>);

impl Findings {
    #[track_caller]
    fn of(end: &End) -> Self {
        let value: Value = serde_json::from_str(&end.lines.concat())
            .unwrap_or_else(|e| panic!("{e}: {} {}", end.lines.concat(), end.stderr));
        let code = i32::from(value["verdict"] == "broken");
        assert_eq!(end.code, Some(code), "{value:#}");
        Self(value["findings"].as_array().expect("findings").clone())
    }

    /// The worst finding of a check whose sentence has this text.
    #[track_caller]
    fn has(&self, check: &str, verdict: &str, text: &str) -> &Value {
        let found = self.0.iter().find(|f| {
            f["check"] == check
                && f["verdict"] == verdict
                && f["sentence"].as_str().is_some_and(|s| s.contains(text))
        });
        found.unwrap_or_else(|| panic!("no {verdict} {check} with {text:?} in {:#?}", self.0))
    }

    #[track_caller]
    fn healthy(&self, check: &str) {
        let of: Vec<&Value> = self.0.iter().filter(|f| f["check"] == check).collect();
        assert!(!of.is_empty() && of.iter().all(|f| f["verdict"] == "ok"), "{check}: {of:#?}");
    }
}

/// Examines host 0 of a lab.
#[track_caller]
fn examine(lab: &Lab, args: &[&str]) -> Findings {
    let tmp = TempDir::new();
    Findings::of(&lab.on(0, doctor(&tmp, args)).run(SOON))
}

/// Runs a command on a host.
#[track_caller]
fn run(lab: &Lab, host: usize, words: &[&str]) {
    let done = Command::new("ip").args(["netns", "exec", &lab.ns(host)]).args(words).output().expect("run");
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Makes a host's firewall drop what arrives under these conditions.
#[track_caller]
fn drop_arrivals(lab: &Lab, host: usize, conditions: &str) {
    let chain = format!("chain in {{ type filter hook input priority 0; {conditions} drop; }}");
    run(lab, host, &["nft", &format!("table inet fault {{\n{chain}\n}}")]);
}

#[test]
fn a_healthy_machine() {
    let Some(lab) = Lab::new(1) else { return };
    let findings = examine(&lab, &[]);
    for check in
        ["interface", "mtu", "route", "firewall", "port", "buffers", "igmp", "clock", "state", "offload"]
    {
        findings.healthy(check);
    }
    findings.has("querier", "ok", "was not looked at");
}

#[test]
fn rules_that_drop_are_named() {
    let Some(lab) = Lab::new(1) else { return };
    let input = "type filter hook input priority 0; policy";
    for (rules, verdict, text) in [
        (
            format!("chain in {{ {input} accept; udp dport 7400-7499 drop; }}"),
            "broken",
            "drops what arrives at UDP port 7417",
        ),
        (
            format!("chain in {{ {input} drop; meta mark 7 accept; }}"),
            "warning",
            "may drop what arrives at UDP port 7418",
        ),
        (
            // As distributions begin: answers come in, and new datagrams do not.
            format!(
                "chain in {{ {input} drop; ct state {{ established, related }} accept; udp dport 7417 accept; }}"
            ),
            "warning",
            "drops what arrives at UDP port 7418 (eth0); only senders need it",
        ),
        (
            format!("chain in {{ {input} drop; iif lo accept; tcp dport 22 accept; }}"),
            "broken",
            "the policy of chain in of table inet fault",
        ),
        (
            "chain out { type filter hook output priority 0; udp dport 7418 reject; }".into(),
            "broken",
            "is sent to UDP port 7418",
        ),
        (
            format!("chain in {{ {input} accept; ip daddr 224.0.0.0/4 drop; }}"),
            "broken",
            "arrives at UDP port 7417",
        ),
    ] {
        run(&lab, 0, &["nft", &format!("table inet fault {{\n{rules}\n}}")]);
        let findings = examine(&lab, &[]);
        let finding = findings.has("firewall", verdict, text);
        assert!(finding["remedy"].is_string(), "{finding}");
        run(&lab, 0, &["nft", "delete table inet fault"]);
    }
    // Others' ports, and a port that is let through before the rest is dropped.
    let fine =
        format!("chain in {{ {input} drop; udp dport {{ 53, 7417-7418 }} accept; tcp dport 22 drop; }}");
    run(&lab, 0, &["nft", &format!("table inet fault {{\n{fine}\n}}")]);
    examine(&lab, &[]).healthy("firewall");
}

#[test]
fn a_small_mtu_and_switched_off_offloads() {
    let Some(lab) = Lab::new(1) else { return };
    lab.mtu(0, 800);
    lab.single_packets(0);
    let findings = examine(&lab, &[]);
    findings.has("mtu", "warning", "at most 800 bytes");
    findings.has("offload", "warning", "gso off");
}

#[test]
fn no_way_to_the_group() {
    let Some(lab) = Lab::new(1) else { return };
    lab.ip(0, "link add eth1 type veth peer name eth2");
    lab.ip(0, "address add 10.78.0.1/24 dev eth1");
    lab.ip(0, "link set eth2 up");
    lab.ip(0, "link set eth1 up");
    let findings = examine(&lab, &[]);
    findings.has("route", "warning", "several interfaces");
    examine(&lab, &["-i", "eth0"]).healthy("route");
    findings.has("interface", "ok", "eth1 (10.78.0.1");
    lab.ip(0, "link set eth2 down");
    examine(&lab, &["-i", "eth1"]).has("interface", "broken", "no link");
    lab.ip(0, "link set eth1 down");
    let end = examine(&lab, &["-i", "eth1"]);
    assert_eq!(end.has("route", "broken", "eth1 is down")["remedy"], "ip link set eth1 up");
    lab.unplug(0);
    lab.ip(0, "link delete eth1");
    lab.ip(0, "link set lo down");
    examine(&lab, &[]).has("route", "broken", "no interface");
    // And to one machine.
    lab.ip(0, "link set lo up");
    examine(&lab, &["10.99.0.1"]).has("route", "broken", "no route");
}

#[test]
fn a_bridge_that_snoops_needs_a_querier() {
    let Some(lab) = Lab::new(1) else { return };
    lab.ip(0, "link add br7 type bridge mcast_snooping 1 mcast_querier 0");
    let finding = examine(&lab, &[]);
    let finding = finding.has("snooping", "warning", "br7");
    assert_eq!(finding["remedy"], "ip link set br7 type bridge mcast_querier 1");
    lab.ip(0, "link set br7 type bridge mcast_querier 1");
    examine(&lab, &[]).healthy("snooping");
    lab.ip(0, "link set br7 type bridge mcast_querier 0 mcast_snooping 0");
    examine(&lab, &[]).healthy("snooping");
}

#[test]
fn a_querier_is_heard() {
    let Some(lab) = Lab::new(1) else { return };
    examine(&lab, &["--listen-for", "300ms"]).has("querier", "warning", "nobody asked");
    // The doctor ends as soon as it has heard one.
    lab.query_often();
    lab.snoop();
    let findings = examine(&lab, &["--listen-for", "2m"]);
    findings.has("querier", "ok", "asks for members");
}

#[test]
fn an_igmp_version_that_was_forced() {
    let Some(lab) = Lab::new(1) else { return };
    run(&lab, 0, &["sh", "-c", "echo 2 > /proc/sys/net/ipv4/conf/eth0/force_igmp_version"]);
    let findings = examine(&lab, &[]);
    let finding = findings.has("igmp", "warning", "forced to IGMPv2");
    assert_eq!(finding["remedy"], "sysctl -w net.ipv4.conf.eth0.force_igmp_version=0");
}

#[test]
fn small_buffers_are_named_with_the_line_that_raises_them() {
    let Some(lab) = Lab::new(1) else { return };
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    if !has_program("setpriv") || limit.is_none_or(|limit| limit >= 8 << 20) {
        return skip("small buffers need setpriv, and a machine whose rmem_max was not raised");
    }
    let tmp = TempDir::new();
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    // The limit is for users other than root.
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    // The program may be where only root looks.
    let copy = tmp.join("mcp");
    fs::copy(MCP, &copy).expect("copy the program");
    let end = lab.on(0, doctor(&tmp, &[]).program(copy).through(user)).run(SOON);
    let findings = Findings::of(&end);
    let finding = findings.has("buffers", "warning", "smaller socket buffers");
    assert_eq!(finding["remedy"], "sysctl -w net.core.rmem_max=8388608");
    // A user cannot see the rules, and is told so.
    findings.has("firewall", "warning", "cannot tell: not root");
}

#[test]
fn an_address_that_another_machine_has() {
    let Some(lab) = Lab::new(2) else { return };
    examine(&lab, &[]).healthy("route");
    run(&lab, 0, &["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad"]);
    // With duplicate address detection, unlike the others of the lab.
    lab.ip(0, "address add fd77::2/64 dev eth0");
    // The kernel says so once the other machine has answered.
    let failed = || lab.ip(0, "-6 address show dev eth0 dadfailed").contains("fd77::2");
    let waited = std::time::Instant::now();
    while !failed() {
        assert!(waited.elapsed() < SOON, "the kernel does not notice");
        std::thread::yield_now();
    }
    let findings = examine(&lab, &[]);
    let finding = findings.has("duplicate", "broken", "fd77::2");
    assert_eq!(finding["remedy"], "ip address delete fd77::2 dev eth0");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let Some(lab) = Lab::new(1) else { return };
    let tmp = TempDir::new();
    // A receiver shares the port.
    let mut receiver =
        lab.on(0, Cmd::new("recv", MCP).args(["recv", "--json", "-v", "-i", "eth0"])).dir(tmp.path()).spawn();
    receiver.next_line(SOON);
    let findings = examine(&lab, &[]);
    findings.has("port", "ok", &format!("shared with mcp (process {})", receiver.pid()));
    receiver.signal("INT");
    receiver.expect(130, SOON);
    // This program does not.
    let script =
        "import socket,time;s=socket.socket(2,2);s.bind(('',7417));print('{}',flush=True);time.sleep(600)";
    let mut holder = lab.on(0, Cmd::new("holder", "python3").args(["-c", script])).spawn();
    holder.next_line(SOON);
    let findings = examine(&lab, &[]);
    let finding = findings.has("port", "broken", "taken by python");
    assert_eq!(finding["remedy"], "ss -ulpn 'sport = :7417'");
}

#[test]
fn what_an_earlier_transfer_left_and_who_may_write() {
    let Some(lab) = Lab::new(1) else { return };
    let tmp = TempDir::new();
    let out = tmp.dir("out");
    let part = tmp.file("out/.a.iso.0123456789abcdef.mcp-part", 1000, 1);
    let state = tmp.dir("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("mode");
    let end = lab.on(0, doctor(&tmp, &["-o"]).arg(&out)).run(SOON);
    let findings = Findings::of(&end);
    assert_eq!(
        findings.has("leftover", "warning", "did not end")["remedy"],
        format!("rm {}", part.display())
    );
    findings.has("state", "broken", "others can write");
    let end = lab.on(0, doctor(&tmp, &["-o"]).arg(tmp.join("no/such/file"))).run(SOON);
    Findings::of(&end).has("disk", "broken", "no directory");
}

#[test]
fn a_table_for_people() {
    let Some(lab) = Lab::new(1) else { return };
    let tmp = TempDir::new();
    let end = lab
        .on(0, Cmd::new("doctor", MCP).arg("doctor").dir(tmp.path()).env("MCP_STATE_DIR", tmp.join("s")))
        .run(SOON);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.lines[0].starts_with("CHECK      VERDICT  FINDING"), "{:?}", end.lines);
    assert!(end.lines.last().is_some_and(|line| line.ends_with(" 0 broken")), "{:?}", end.lines);
}

/// A doctor that listens at a host of a lab. It is told to end by [`heard`].
fn listening(lab: &Lab, host: usize, tmp: &TempDir) -> Proc {
    lab.on(host, doctor(tmp, &["--listen", "-i", "eth0"])).spawn()
}

/// Ends a doctor that listens.
#[track_caller]
fn heard(mut listener: Proc) -> Findings {
    listener.signal("INT");
    Findings::of(&listener.finish(SOON))
}

/// Measures the path from host 0. The first time, the listener may take a while to start.
#[track_caller]
fn measure(lab: &Lab, to: &str, wait: &str, more: &[&str]) -> Findings {
    let tmp = TempDir::new();
    let args = [&["--to", to, "--listen-for", wait][..], more].concat();
    Findings::of(&lab.on(0, doctor(&tmp, &args)).run(SOON))
}

const GROUP: &str = "239.255.74.17";

#[test]
fn a_healthy_pair() {
    let Some(lab) = Lab::new(2) else { return };
    let _cores = alone();
    let tmp = TempDir::new();
    // It answers from its first address.
    lab.ip(1, "address add 10.77.0.102/24 dev eth0");
    let listener = listening(&lab, 1, &tmp);
    for to in [GROUP, &lab.address(1), "10.77.0.102", "ff15::4d43:7417"] {
        let findings = measure(&lab, to, "1m", &["--long=2s"]);
        for check in ["multicast", "datagram", "loss", "rate", "membership"] {
            findings.healthy(check);
        }
        findings.has("datagram", "ok", "1500 bytes");
    }
    let findings = heard(listener);
    findings.healthy("multicast");
    findings.healthy("unicast");
}

#[test]
fn multicast_that_is_dropped_on_the_way() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    let host = lab.address(1);
    let listener = listening(&lab, 1, &tmp);
    measure(&lab, &host, "1m", &[]).healthy("multicast");
    assert_eq!(heard(listener).0.len(), 2);
    lab.no_groups(1);
    let listener = listening(&lab, 1, &tmp);
    measure(&lab, &host, "1m", &[]).has(
        "multicast",
        "broken",
        "reached by unicast, but datagrams to the group do not",
    );
    heard(listener).has("multicast", "broken", "but none to the group");
    // Of the group alone, nothing is left.
    let listener = listening(&lab, 1, &tmp);
    let finding = measure(&lab, GROUP, "1s", &[]);
    assert_eq!(finding.has("answer", "broken", "no doctor answers")["remedy"], "mcp doctor --listen");
    heard(listener).has("multicast", "broken", "no other doctor was heard");
}

#[test]
fn answers_that_are_blocked() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    let listener = listening(&lab, 1, &tmp);
    measure(&lab, GROUP, "1m", &[]).healthy("multicast");
    drop_arrivals(&lab, 0, "udp dport 7418");
    measure(&lab, GROUP, "1s", &[]).has("answer", "broken", "no doctor answers");
    // The doctor alone finds the rule.
    examine(&lab, &[]).has("firewall", "warning", "drops what arrives at UDP port 7418");
    let findings = heard(listener);
    findings.has("unicast", "broken", "10.77.0.1 does not confirm answers");
    findings.has("unicast", "ok", "answers reach 10.77.0.1");
}

#[test]
fn unicast_that_is_blocked() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    let listener = listening(&lab, 1, &tmp);
    measure(&lab, GROUP, "1m", &[]).healthy("multicast");
    // What the listener sends passes, and nothing to its own address.
    drop_arrivals(&lab, 1, "udp dport 1-65535 ip daddr 10.77.0.2");
    let findings = measure(&lab, GROUP, "1m", &[]);
    findings.healthy("multicast");
    findings.has("answer", "broken", "what is sent to it alone is blocked");
    heard(listener).has("unicast", "broken", "does not confirm answers");
}

#[test]
fn an_mtu_that_is_too_small_on_the_way() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    lab.mtu(1, 1300);
    let listener = listening(&lab, 1, &tmp);
    let findings = measure(&lab, GROUP, "1m", &[]);
    let finding = findings.has("datagram", "broken", "IP packets of 1280 bytes arrive");
    // 1252 bytes of UDP, less the headers, in steps of 64.
    assert_eq!(finding["remedy"], "mcp send --symbol-size 1152");
    listener.signal("INT");
}

#[test]
fn loss_is_told_by_its_way() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    for host in [0, 1] {
        lab.single_packets(host);
    }
    lab.lose(1, 200);
    let listener = listening(&lab, 1, &tmp);
    let findings = measure(&lab, GROUP, "1m", &[]);
    findings.has("loss", "warning", "to the group");
    findings.has("loss", "warning", "to 10.77.0.2");
    findings.has("loss", "ok", "from 10.77.0.2");
    listener.signal("INT");
}

#[test]
fn a_group_that_is_forgotten_after_a_while() {
    let Some(lab) = Lab::new(2) else { return };
    let tmp = TempDir::new();
    let listener = listening(&lab, 1, &tmp);
    // Like a switch that forgets its member: the datagrams of the long train that have a number of 2 or more.
    drop_arrivals(&lab, 1, "@th,104,8 5 @th,344,8 >= 2");
    let findings = measure(&lab, GROUP, "1m", &["--long=8s"]);
    findings.has("membership", "broken", "after 2 s");
    findings.has("loss", "ok", "to the group");
    listener.signal("INT");
}

#[test]
fn two_machines_with_one_address() {
    let Some(lab) = Lab::new(3) else { return };
    let tmp = TempDir::new();
    lab.ip(2, "address delete 10.77.0.3/24 dev eth0");
    lab.ip(2, "address add 10.77.0.2/24 dev eth0");
    let listeners = [1, 2].map(|host| listening(&lab, host, &tmp));
    // The second one may start later than the first.
    let both = (0..20).any(|_| {
        let findings = measure(&lab, GROUP, "1m", &[]);
        findings.0.iter().any(|f| {
            f["check"] == "duplicate" && f["sentence"].as_str().is_some_and(|s| s.contains("10.77.0.2"))
        })
    });
    assert!(both, "nobody noticed");
    listeners.iter().for_each(|listener| listener.signal("INT"));
}

#[test]
fn arguments_that_do_not_go_together() {
    for args in [
        &["--listen", "--to", "10.0.0.1"][..],
        &["--long"],
        &["239.1.1.1", "--to", "10.0.0.1"],
        &["--to", "nowhere"],
    ] {
        let end = Cmd::new("doctor", MCP).arg("doctor").args(args).run(SOON);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.stderr);
    }
}
