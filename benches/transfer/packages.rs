//! Names the Debian packages of the programs that are missing.

use super::support::{has_program, skip};
use super::tools::Tool;
use std::collections::BTreeSet;

/// Programs of the lab, and the packages that they are in.
const LAB: [(&str, &str); 4] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables"), ("ethtool", "ethtool")];

/// The package of a tool.
fn package(tool: Tool) -> &'static str {
    match tool {
        Tool::Udpcast | Tool::UdpcastFec => "udpcast",
        Tool::Uftp => "uftp",
        Tool::Rsync => "rsync",
        Tool::Mcp | Tool::Sealed | Tool::Other | Tool::OneWay | Tool::Blaster => "iproute2",
    }
}

/// Says which tools are left out, and prints the command that installs all that is missing.
pub fn report(missing: &[Tool]) {
    let lab = LAB.into_iter().filter(|(program, _)| !has_program(program)).map(|(_, package)| package);
    let packages: BTreeSet<&str> = missing.iter().map(|&tool| package(tool)).chain(lab).collect();
    if !packages.is_empty() {
        let all: Vec<&str> = packages.into_iter().collect();
        eprintln!("some programs are missing: on Debian, apt-get install {}", all.join(" "));
    }
    for tool in missing {
        skip(&format!("{tool}: {} is not installed", tool.program()));
    }
}
