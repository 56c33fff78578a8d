//! Whether sockets get the buffers that transfers ask for.

use super::Finding;
use mcp_transfer::net::endpoint::Families;
use mcp_transfer::net::{Features, UdpNet};

/// The name of the check.
const CHECK: &str = "buffers";

/// Opens the sockets of a receiver at a port of their own, and asks what they got.
pub fn check() -> Vec<Finding> {
    let net = match UdpNet::receiver(&[], 0, Families::ANY, (Features::default(), None)) {
        Ok(net) => net,
        Err(e) => return vec![Finding::broken(CHECK, format!("no UDP sockets: {e}"))],
    };
    let features = net.features();
    let mut findings = vec![match net.larger_buffer() {
        Some(line) => Finding::warning(
            CHECK,
            "the kernel grants smaller socket buffers than mcp asks for, so that datagrams are lost at high rates",
        )
        .mend(line),
        None => Finding::ok(CHECK, "the kernel grants the socket buffers that mcp asks for"),
    }];
    if !features.gro {
        let old = "the kernel hands over each datagram by itself; Linux 5.0 and later are faster";
        findings.push(Finding::warning("offload", old));
    }
    findings
}
