//! `mcp --version -v`: what this program is, and what it finds in the kernel.

use mcp_transfer::limits::WIRE_VERSION;
use mcp_transfer::net::Features;
use std::ffi::OsStr;
use std::fmt::Write as _;

/// Whether these arguments, which asked for the version, also have `-v`.
pub fn is_verbose<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> bool {
    arguments.into_iter().skip(1).any(|argument| {
        let argument = argument.as_ref().to_string_lossy();
        argument == "--verbose"
            || (argument.starts_with('-') && !argument.starts_with("--") && argument.contains('v'))
    })
}

/// The lines below the version.
pub fn details() -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let kernel = rustix::system::uname();
    let offered = Features::of_kernel();
    let features = if cfg!(feature = "fleet") { "fleet" } else { "none" };
    let lines = [
        ("commit", option_env!("MCP_BUILD_COMMIT").unwrap_or("unknown").to_owned()),
        ("features", features.to_owned()),
        ("wire version", WIRE_VERSION.to_string()),
        ("target", format!("{} {}", std::env::consts::ARCH, std::env::consts::OS)),
        ("kernel", format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy())),
        ("UDP_SEGMENT (sends batches)", yes(offered.gso).to_owned()),
        ("UDP_GRO (receives batches)", yes(offered.gro).to_owned()),
    ];
    #[cfg(feature = "fleet")]
    let handlers = [
        ("Landlock (handlers' files)", yes(mcp_fleet::handlers::has_landlock()).to_owned()),
        ("seccomp (handlers' calls)", yes(mcp_fleet::handlers::has_seccomp()).to_owned()),
    ];
    #[cfg(not(feature = "fleet"))]
    let handlers = [];
    let mut text = String::new();
    for (name, value) in lines.into_iter().chain(handlers) {
        // A string takes everything.
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_say_it() {
        for (line, verbose) in [
            ("mcp --version", false),
            ("mcp -V", false),
            ("mcp --version -v", true),
            ("mcp -vV", true),
            ("mcp -Vv", true),
            ("mcp --verbose --version", true),
            // Only the arguments count.
            ("-v --version", false),
        ] {
            assert_eq!(is_verbose(line.split(' ')), verbose, "{line}");
        }
    }

    #[test]
    fn every_detail_has_a_value() {
        for line in details().lines() {
            assert!(
                line.split_once(": ").is_some_and(|(name, value)| !name.is_empty() && !value.is_empty()),
                "{line}"
            );
        }
    }
}
