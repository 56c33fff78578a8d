//! The tools, and their equivalent options.

use super::run::Setting;
use super::support::mcp::Network;
use super::support::process::{Cmd, Proc};
use mcp::crypto::derive::Secret;
use mcp::crypto::group::GroupKey;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A tool to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    Mcp,
    /// mcp with a group key.
    Sealed,
    /// Another build of mcp.
    Other,
    /// mcp on a line without a way back.
    OneWay,
    Udpcast,
    /// UDPcast on a line without a way back, with as many repair packets.
    UdpcastFec,
    Uftp,
    /// rsync, to one receiver after the other.
    Rsync,
    /// Datagrams without a protocol: the capacity of the machine.
    Blaster,
}

impl Tool {
    /// The program that the tool needs.
    pub fn program(self) -> &'static str {
        match self {
            // Part of the bench.
            Self::Mcp | Self::Sealed | Self::Other | Self::OneWay | Self::Blaster => "ip",
            Self::Udpcast | Self::UdpcastFec => "udp-sender",
            Self::Uftp => "uftp",
            Self::Rsync => "rsync",
        }
    }

    /// Whether its receivers are daemons, which have to be stopped.
    pub fn has_daemons(self) -> bool {
        matches!(self, Self::Uftp | Self::Rsync)
    }

    /// Whether it needs a rate, because nothing comes back.
    pub fn is_one_way(self) -> bool {
        matches!(self, Self::OneWay | Self::UdpcastFec)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mcp => "mcp",
            Self::Sealed => "sealed",
            Self::Other => "other",
            Self::OneWay => "one-way",
            Self::Udpcast => "udpcast",
            Self::UdpcastFec => "udpc-fec",
            Self::Uftp => "uftp",
            Self::Rsync => "rsync",
            Self::Blaster => "blaster",
        })
    }
}

/// Gives mcp a group key if the tool is [`Tool::Sealed`].
fn with_key(tool: Tool, cmd: Cmd) -> Cmd {
    if tool != Tool::Sealed {
        return cmd;
    }
    let key = GroupKey::new("bench", Secret::new([1; 32])).expect("a name");
    cmd.env("MCP_KEY", key.line().as_str())
}

/// The rate of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No limit. mcp, which always has a limit, gets one that it cannot reach.
    None,
    /// mcp's own choice; no limit for the others.
    Auto,
    /// Mbit/s.
    Mbit(u64),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(0) | Err(_) => Err("not \"none\", \"auto\" or a number of Mbit/s".into()),
                Ok(mbit) => Ok(Self::Mbit(mbit)),
            },
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::Mbit(mbit) => write!(f, "{mbit} Mbit/s"),
        }
    }
}

impl Pace {
    fn mbit(self) -> Option<u64> {
        match self {
            Self::Mbit(mbit) => Some(mbit),
            Self::None | Self::Auto => None,
        }
    }
}

fn network() -> Network {
    Network::new("239.77.0.1", 7417, "eth0")
}

impl Setting<'_> {
    /// The output directory of a host's receiver; created if needed.
    pub fn out(&self, host: usize) -> PathBuf {
        self.place.dir(&format!("h{host}"))
    }

    /// Whether a directory is copied.
    pub fn is_tree(&self) -> bool {
        self.source.is_dir()
    }

    /// Whether the processes that the bench starts do the work themselves: not a shell, nor children of rsync.
    pub fn is_one_process(&self, tool: Tool) -> bool {
        tool != Tool::Rsync && !(tool == Tool::Udpcast && self.is_tree())
    }

    /// The path of a host's copy of the file or directory.
    pub fn copy(&self, host: usize) -> PathBuf {
        self.out(host).join(self.source.file_name().expect("a file's name"))
    }

    /// The build of mcp for a tool.
    fn program(&self, tool: Tool) -> &Path {
        if tool == Tool::Other { self.other } else { self.mcp }
    }

    /// Commands of mcp for a line without a way back. The receiver answers nothing, so each has a state directory.
    fn one_way(&self, name: &str, command: &str) -> Cmd {
        let words = [command, "--json", "--one-way", "-i", "eth0"];
        Cmd::new(name, self.mcp).args(words).env("MCP_STATE_DIR", self.place.dir(&format!("state-{name}")))
    }

    fn on(&self, host: usize, program: &str, words: &str) -> Cmd {
        self.lab.on(host, Cmd::new(program, program).args(words.split_whitespace()))
    }

    /// Runs this program on a host, as a part of the blaster.
    fn blaster(&self, host: usize, role: &str) -> Cmd {
        let own = std::env::current_exe().expect("the path of this program");
        self.lab.on(host, Cmd::new(role, own).arg(role))
    }

    /// Starts the tool's receiver on a host.
    pub fn receiver(&self, tool: Tool, host: usize) -> Proc {
        let cmd = match tool {
            Tool::Mcp | Tool::Sealed | Tool::Other => {
                let cmd = network().recv(&format!("h{host}"), self.out(host)).program(self.program(tool));
                self.lab.on(host, with_key(tool, cmd))
            }
            Tool::OneWay => {
                let cmd = self.one_way(&format!("h{host}"), "recv").arg("-o").arg(self.out(host));
                self.lab.on(host, cmd.args(["--timeout", "30s"]).tail("239.77.0.1"))
            }
            Tool::Udpcast if self.is_tree() => {
                let script = "udp-receiver --nokbd --interface eth0 | tar x -C \"$0\"";
                self.lab.on(host, Cmd::new("udp-receiver", "sh").args(["-c", script])).tail(self.out(host))
            }
            Tool::Udpcast | Tool::UdpcastFec => {
                self.on(host, "udp-receiver", "--nokbd --interface eth0 --file").tail(self.copy(host))
            }
            Tool::Uftp => {
                let words = "-d -t -I eth0 -D";
                self.on(host, "uftpd", words).arg(self.out(host)).args(["-B", "4194304"])
            }
            Tool::Rsync => {
                let config = self.place.join(format!("rsyncd-{host}.conf"));
                let text = format!(
                    "use chroot = no\nuid = {0}\ngid = {0}\npid file =\n[copy]\npath = {1}\nread only = no\n",
                    0,
                    self.out(host).display()
                );
                std::fs::write(&config, text).expect("write the daemon's configuration");
                self.on(host, "rsync", "--daemon --no-detach --config").arg(config)
            }
            Tool::Blaster => self.blaster(host, "catch"),
        };
        cmd.spawn()
    }

    /// Starts the tool's sender.
    pub fn sender(&self, tool: Tool) -> Proc {
        let (n, rate) = (self.receivers, self.pace.mbit());
        let cmd = match tool {
            Tool::Mcp | Tool::Sealed | Tool::Other => {
                let rate = match self.pace {
                    Pace::Auto => Vec::new(),
                    Pace::None => vec!["--rate".into(), "20G".into()],
                    Pace::Mbit(mbit) => vec!["--rate".into(), format!("{mbit}M")],
                };
                let cmd = network().send(self.source, n).program(self.program(tool));
                let cmd = cmd.args(rate).args(self.mcp_args.split_whitespace());
                self.lab.on(0, with_key(tool, cmd))
            }
            Tool::OneWay => {
                let rate = format!("{}M", rate.unwrap_or(0));
                let cmd = self.one_way("sender", "send").args(["--rate", &rate, "--repair", "20%"]);
                self.lab.on(0, cmd.args(["--repeat", "1"]).tail(self.source).tail("239.77.0.1"))
            }
            Tool::UdpcastFec => {
                let words = format!(
                    "--nokbd --async --fec 8x26/128 --max-bitrate {}m --interface eth0 --file",
                    rate.unwrap_or(0)
                );
                self.on(0, "udp-sender", &words).tail(self.source)
            }
            Tool::Udpcast => {
                let limit = rate.map_or(String::new(), |mbit| format!("--max-bitrate {mbit}m"));
                let words = format!("--nokbd --min-receivers {n} --full-duplex --interface eth0 {limit}");
                if self.is_tree() {
                    let script = format!("tar c -C \"$0\" \"$1\" | udp-sender {words}");
                    let (dir, name) = (self.source.parent(), self.source.file_name());
                    let cmd = Cmd::new("udp-sender", "sh").args(["-c", &script]);
                    self.lab.on(0, cmd.tail(dir.expect("a parent")).tail(name.expect("a name")))
                } else {
                    self.on(0, "udp-sender", &format!("{words} --file")).tail(self.source)
                }
            }
            Tool::Uftp => {
                // UFTP names its clients by their addresses. It paces its announcements by the round trip
                // that it assumes; a tenth of a second shortens its start to a LAN's.
                let clients: Vec<String> = (1..=n).map(|h| format!("0x0A4D00{:02X}", h + 1)).collect();
                let limit = rate.map_or("-1".into(), |mbit| (mbit * 1000).to_string());
                let words = format!("-I eth0 -r 0.1 -B 4194304 -R {limit} -H {}", clients.join(","));
                self.on(0, "uftp", &words).tail(self.source)
            }
            Tool::Rsync => {
                // --whole-file: there is no earlier copy to compare with.
                let limit =
                    rate.map_or(String::new(), |mbit| format!("--bwlimit={}K", mbit * 1_000_000 / 8 / 1024));
                let hosts: Vec<String> = (1..=n).map(|h| self.lab.address(h)).collect();
                let script = format!(
                    "for host in {}; do rsync -r --whole-file {limit} \"$0\" rsync://$host/copy/ || exit 1; done",
                    hosts.join(" ")
                );
                self.lab.on(0, Cmd::new("rsync", "sh").args(["-c", &script])).tail(self.source)
            }
            Tool::Blaster => {
                let mbit = rate.unwrap_or(0).to_string();
                let cmd = self.blaster(0, "blast").args(["--mbit", &mbit]);
                cmd.args(["--batch", &self.batch.to_string()]).tail(self.source)
            }
        };
        cmd.spawn()
    }
}
