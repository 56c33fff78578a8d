//! A small network in namespaces: one namespace with a bridge, one namespace for each host, a veth pair
//! between each host and the bridge. Host `n` has the addresses 10.77.0.(n+1)/24 and fd77::(n+1)/64 on
//! its `eth0`. No traffic reaches the machine's real network. Dropping the [`Lab`] removes everything,
//! even after a panic.
//!
//! Loss is made with nftables at the ingress of a host's `eth0`: each UDP datagram is dropped with the
//! given probability, independently of the other hosts. The kernel needs no netem for that. The sender's
//! segmentation offloads must be off ([`Lab::single_packets`]): otherwise one draw decides over a whole
//! run of datagrams, and byte counters miss headers.

use super::files::unique;
use super::process::Cmd;
use super::{has_program, is_root, skip};
use serde_json::Value;
use std::process::Command;

/// Prefix of the names of all namespaces made here.
const PREFIX: &str = "mcplab";

/// A network in namespaces; see the module's description.
pub struct Lab {
    tag: String,
    hosts: usize,
}

/// Counters of a host's loss rule.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// UDP datagrams that arrived, the dropped ones included.
    pub seen: u64,
    /// Datagrams that the rule dropped.
    pub dropped: u64,
}

/// Counters of the token bucket in front of a host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Bytes that passed, Ethernet headers included.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Packets dropped because the queue was full.
    pub drops: u64,
}

impl Lab {
    /// Builds a network of `hosts` hosts. `None`, with a message, if the machine does not allow it: not
    /// root, no `ip`, `nft` or `ethtool`, no namespaces.
    pub fn new(hosts: usize) -> Option<Self> {
        if !is_root() {
            skip("network namespaces need root");
            return None;
        }
        if let Some(missing) = ["ip", "nft", "ethtool", "tc"].iter().find(|p| !has_program(p)) {
            skip(&format!("network namespaces need the program {missing}"));
            return None;
        }
        sweep();
        let lab = Self { tag: format!("{PREFIX}-{}-{}", std::process::id(), unique()), hosts };
        if let Err(why) = run("ip", &["netns", "add", &lab.bridge()]) {
            skip(&format!("no network namespaces here: {why}"));
            return None;
        }
        lab.build();
        Some(lab)
    }

    fn build(&self) {
        let bridge = self.bridge();
        // Snooping off: the bridge floods multicast as a switch without IGMP snooping does.
        let link = ["-n", &bridge, "link", "add", "br0", "type", "bridge"];
        must("ip", &[&link[..], &["mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"]].concat());
        must("ip", &["-n", &bridge, "link", "set", "br0", "up"]);
        for host in 0..self.hosts {
            let ns = self.ns(host);
            must("ip", &["netns", "add", &ns]);
            // Duplicate address detection would keep the IPv6 addresses unusable for a second.
            let dad = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad 2>/dev/null; true";
            must("ip", &["netns", "exec", &ns, "sh", "-c", dad]);
            must("ip", &["-n", &ns, "link", "set", "lo", "up"]);
            self.plug(host);
        }
    }

    /// Gives a host a new `eth0`, up and with its addresses.
    pub fn plug(&self, host: usize) {
        let (bridge, ns, port) = (self.bridge(), self.ns(host), format!("p{host}"));
        let pair = ["link", "add", &port, "netns", &bridge, "type", "veth", "peer", "name", "eth0"];
        must("ip", &[&pair[..], &["netns", &ns]].concat());
        must("ip", &["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
        // The same hardware address each time: the other hosts still know it.
        self.ip(host, &format!("link set eth0 address 02:77:00:00:00:{:02x}", host + 1));
        self.ip(host, "link set eth0 up");
        self.ip(host, &format!("address add {}/24 broadcast + dev eth0", self.address(host)));
        // A machine without IPv6 is fine until a test needs it.
        let address = format!("{}/64", self.address6(host));
        let _ = run("ip", &["-n", &ns, "address", "add", &address, "dev", "eth0", "nodad"]);
    }
    /// Gives a host a second interface, `eth1`, on the segment of another lab, with the address 10.78.0.(n+1)/24. The hosts of
    /// that lab get the addresses 10.78.0.(n+101)/24 instead of their own.
    pub fn reach(&self, host: usize, other: &Self) {
        let (bridge, ns, port) = (other.bridge(), self.ns(host), format!("u{host}"));
        let pair = ["link", "add", &port, "netns", &bridge, "type", "veth", "peer", "name", "eth1"];
        must("ip", &[&pair[..], &["netns", &ns]].concat());
        must("ip", &["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
        self.ip(host, "link set eth1 up");
        self.single_packets_of(host, "eth1");
        self.ip(host, &format!("address add 10.78.0.{}/24 broadcast + dev eth1", host + 1));
        for far in 0..other.hosts {
            other.ip(far, "address flush dev eth0 scope global");
            other.ip(far, &format!("address add 10.78.0.{}/24 broadcast + dev eth0", far + 101));
        }
    }
    /// Removes a host's `eth0`.
    pub fn unplug(&self, host: usize) {
        self.ip(host, "link delete eth0");
    }
    /// Runs `ip` on a host. Blanks separate its arguments.
    #[track_caller]
    pub fn ip(&self, host: usize, words: &str) -> String {
        let ns = self.ns(host);
        must("ip", &["-n", &ns].into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    }
    /// The kernel's index of a host's `eth0`.
    pub fn index(&self, host: usize) -> String {
        let ns = self.ns(host);
        must("ip", &["netns", "exec", &ns, "cat", "/sys/class/net/eth0/ifindex"]).trim().to_owned()
    }
    /// Makes the bridge learn group members from IGMP, as a switch with snooping does, and act as the
    /// querier. It drops traffic to groups without members.
    pub fn snoop(&self) {
        let bridge = self.bridge();
        let link = ["-n", &bridge, "link", "set", "br0", "type", "bridge", "mcast_snooping", "1"];
        // Without a querier the bridge floods. A new querier listens for ten seconds before it is active, and
        // floods reports as well until then. In IGMPv2 a host that hears another's report leaves out its own
        // (RFC 2236, section 3), so the bridge might not learn of it. IGMPv3 has no such suppression.
        let querier =
            ["mcast_igmp_version", "3", "mcast_query_response_interval", "10", "mcast_querier", "1"];
        must("ip", &[&link[..], &querier].concat());
    }
    /// Makes a bridge that snoops ask for members every second.
    pub fn query_often(&self) {
        let link = ["-n", &self.bridge(), "link", "set", "br0", "type", "bridge"];
        must(
            "ip",
            &[&link[..], &["mcast_query_interval", "100", "mcast_startup_query_interval", "100"]].concat(),
        );
    }
    /// Makes the bridge forget that a host is a member of `group`. Returns whether it was one.
    pub fn forget(&self, host: usize, group: &str) -> bool {
        let (bridge, port) = (self.bridge(), format!("p{host}"));
        run("bridge", &["-n", &bridge, "mdb", "del", "dev", "br0", "port", &port, "grp", group]).is_ok()
    }
    /// Drops all multicast to `host` from now on; other traffic still reaches it.
    pub fn no_groups(&self, host: usize) {
        self.ingress(host, "ip daddr 224.0.0.0/4 drop");
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.tag)
    }
    /// Name of a host's namespace.
    pub fn ns(&self, host: usize) -> String {
        assert!(host < self.hosts, "the lab has {} hosts", self.hosts);
        format!("{}-h{host}", self.tag)
    }
    pub fn hosts(&self) -> usize {
        self.hosts
    }
    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }
    pub fn address6(&self, host: usize) -> String {
        format!("fd77::{:x}", host + 1)
    }
    /// Makes a command run on a host. `ip netns exec` replaces itself by the command, so the process id
    /// is the command's own.
    pub fn on(&self, host: usize, cmd: Cmd) -> Cmd {
        cmd.through(["ip", "netns", "exec", &self.ns(host)])
    }

    /// Drops each datagram to `host` with a probability of `per_mille` / 1000. At the sender's host this
    /// is loss of feedback.
    pub fn lose(&self, host: usize, per_mille: u32) {
        let udp = "meta l4proto udp";
        let dice = format!("numgen random mod 1000 < {per_mille}");
        self.ingress(
            host,
            &format!("{udp} counter name \"seen\"\n {udp} {dice} counter name \"dropped\" drop"),
        );
    }
    /// Drops everything that a host sends, group memberships included, and counts its UDP datagrams.
    pub fn mute(&self, host: usize) {
        let rules = "table inet mute {\n counter spoken { }\n chain output {\n type filter hook output priority 0; policy drop;\n \
                     meta l4proto udp counter name \"spoken\" drop\n }\n}\n";
        let script = format!("printf '%s' '{rules}' | nft -f -");
        must("ip", &["netns", "exec", &self.ns(host), "sh", "-c", &script]);
    }
    /// The number of UDP datagrams that a mute host wanted to send.
    pub fn spoken(&self, host: usize) -> u64 {
        self.counter(host, "spoken")
    }
    /// Counts the UDP datagrams to `host` that have another class than `dscp` as dropped, and lets them through.
    pub fn watch_class(&self, host: usize, dscp: u8) {
        let udp = "meta l4proto udp";
        self.ingress(
            host,
            &format!("{udp} counter name \"seen\"\n {udp} ip dscp != {dscp} counter name \"dropped\""),
        );
    }
    /// Counts the bytes that a host sends to each of these networks, by name; see [`Lab::sent`].
    pub fn count_sent(&self, host: usize, networks: &[(&str, &str)]) {
        let counters: String = networks.iter().map(|(name, _)| format!(" counter {name} {{ }}\n")).collect();
        let rule = |(name, to): &(&str, &str)| format!(" ip daddr {to} counter name \"{name}\"\n");
        let rules: String = networks.iter().map(rule).collect();
        let chain = "type filter hook output priority 0; policy accept;";
        let rules = format!("table inet sent {{\n{counters} chain output {{\n {chain}\n{rules} }}\n}}\n");
        let script = format!("printf '%s' '{rules}' | nft -f -");
        must("ip", &["netns", "exec", &self.ns(host), "sh", "-c", &script]);
    }
    /// The bytes that a host has sent to one of them, IP headers included.
    pub fn sent(&self, host: usize, name: &str) -> u64 {
        let script = format!("nft -j list counter inet sent {name}");
        let text = must("ip", &["netns", "exec", &self.ns(host), "sh", "-c", &script]);
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("nft: {e}: {text}"));
        let counter = list["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|entry| entry["counter"]["bytes"].as_u64());
        counter.unwrap_or_else(|| panic!("no counter in {text}"))
    }
    /// Puts hosts behind a second switch, which has a line of its own to the first.
    pub fn second_switch(&self, hosts: &[usize]) {
        let bridge = self.bridge();
        let link = ["-n", &bridge, "link", "add", "br1", "type", "bridge"];
        must("ip", &[&link[..], &["mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"]].concat());
        must("ip", &["-n", &bridge, "link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        for (port, of) in [("up0", "br0"), ("up1", "br1")] {
            must("ip", &["-n", &bridge, "link", "set", port, "master", of, "up"]);
        }
        must("ip", &["-n", &bridge, "link", "set", "br1", "up"]);
        for host in hosts {
            must("ip", &["-n", &bridge, "link", "set", &format!("p{host}"), "master", "br1"]);
        }
    }
    /// Replaces the rules for traffic to `host`.
    fn ingress(&self, host: usize, rules: &str) {
        let rules = format!(
            "table netdev lab {{ }}\ndelete table netdev lab\ntable netdev lab {{\n counter seen {{ }}\n counter dropped {{ }}\n chain ingress {{\n \
             type filter hook ingress device \"eth0\" priority 0; policy accept;\n {rules}\n }}\n}}\n"
        );
        let script = format!("printf '%s' '{rules}' | nft -f -");
        must("ip", &["netns", "exec", &self.ns(host), "sh", "-c", &script]);
    }
    /// The counters of the rule of [`Lab::lose`].
    pub fn loss(&self, host: usize) -> Loss {
        Loss { seen: self.counter(host, "seen"), dropped: self.counter(host, "dropped") }
    }
    /// A counter of a host's rules, in packets.
    fn counter(&self, host: usize, name: &str) -> u64 {
        let list = must("ip", &["netns", "exec", &self.ns(host), "nft", "list", "counters"]);
        let from = list.find(&format!("counter {name}")).map_or("", |at| &list[at..]);
        let mut words = from.split_whitespace().skip_while(|w| *w != "packets").skip(1);
        words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no counter {name}: {list}"))
    }
    /// Makes every datagram cross the wire by itself, with its own headers, as on a real network.
    pub fn single_packets(&self, host: usize) {
        self.single_packets_of(host, "eth0");
    }
    fn single_packets_of(&self, host: usize, interface: &str) {
        let off = ["tx-udp-segmentation", "off", "gso", "off", "tso", "off", "gro", "off"];
        must("ip", &[&["netns", "exec", &self.ns(host), "ethtool", "-K", interface][..], &off].concat());
    }
    /// Sets the MTU of both ends of the line to a host.
    pub fn mtu(&self, host: usize, mtu: u32) {
        self.ip(host, &format!("link set eth0 mtu {mtu}"));
        let (port, mtu) = (format!("p{host}"), mtu.to_string());
        must("ip", &["-n", &self.bridge(), "link", "set", &port, "mtu", &mtu]);
    }
    /// Limits the line to a host, with the queue of a small switch (`rate` in the format of `tc`).
    pub fn line_rate(&self, host: usize, rate: &str) {
        let port = format!("p{host}");
        let tbf = ["root", "tbf", "rate", rate, "burst", "64k", "limit", "256k"];
        must("tc", &[&["-n", &self.bridge(), "qdisc", "replace", "dev", &port][..], &tbf].concat());
    }
    /// Sets the line to a host to `mbit` Mbit/s: a token bucket of 64 KiB before a queue of 50 ms. It
    /// counts 14 bytes of Ethernet header a packet.
    pub fn bucket(&self, host: usize, mbit: u64) {
        let (port, rate) = (format!("p{host}"), format!("{mbit}mbit"));
        let tbf = ["root", "tbf", "rate", &rate, "burst", "64k", "latency", "50ms"];
        must("tc", &[&["-n", &self.bridge(), "qdisc", "replace", "dev", &port][..], &tbf].concat());
    }
    /// Lets almost no traffic out of a host, with an unlimited queue.
    pub fn hold(&self, host: usize) {
        let tbf = ["root", "tbf", "rate", "8kbit", "burst", "3kb", "limit", "1gb"];
        must("tc", &[&["-n", &self.ns(host), "qdisc", "add", "dev", "eth0"][..], &tbf].concat());
    }
    /// The counters of all hosts' buckets, by host; zeros for a host without a bucket.
    pub fn buckets(&self) -> Vec<Bucket> {
        let text = must("tc", &["-n", &self.bridge(), "-j", "-s", "qdisc", "show"]);
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("tc: {e}: {text}"));
        let mut all = vec![Bucket::default(); self.hosts];
        for line in list.as_array().into_iter().flatten().filter(|q| q["kind"] == "tbf") {
            let host = line["dev"].as_str().and_then(|d| d.strip_prefix('p')?.parse::<usize>().ok());
            if let Some(bucket) = host.and_then(|h| all.get_mut(h)) {
                let count = |key: &str| line[key].as_u64().unwrap_or(0);
                *bucket = Bucket { bytes: count("bytes"), packets: count("packets"), drops: count("drops") };
            }
        }
        all
    }
    /// Takes a host's line down or up.
    pub fn line(&self, host: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        must("ip", &["-n", &self.bridge(), "link", "set", &format!("p{host}"), state]);
    }
    /// Bytes a host has sent, Ethernet headers included.
    pub fn tx_bytes(&self, host: usize) -> u64 {
        self.statistic(host, "tx_bytes")
    }
    /// One of the counters of a host's `eth0`.
    pub fn statistic(&self, host: usize, name: &str) -> u64 {
        let path = format!("/sys/class/net/eth0/statistics/{name}");
        let text = must("ip", &["netns", "exec", &self.ns(host), "cat", &path]);
        text.trim().parse().unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            let _ = run("ip", &["netns", "del", &self.ns(host)]);
        }
        let _ = run("ip", &["netns", "del", &self.bridge()]);
    }
}

/// Removes namespaces that killed runs left behind: those with this prefix whose process no longer
/// exists.
fn sweep() {
    for name in run("ip", &["netns", "list"]).unwrap_or_default().lines() {
        let name = name.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = run("ip", &["netns", "del", name]);
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[track_caller]
fn must(program: &str, args: &[&str]) -> String {
    run(program, args).unwrap_or_else(|e| panic!("{e}"))
}
