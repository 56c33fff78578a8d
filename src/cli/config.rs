//! The resolved configuration of a command: plain data. Only choices that need the network or the disk are
//! left open.

use super::args::{OneWayArgs, OutputArgs, RateChoice, RecvArgs, SendArgs, Slow, StreamArgs};
use super::objects;
use super::stream::STANDARD_INPUT;
use crate::ui::{Mode, Style};
use mcp_transfer::net::Marking;
use mcp_transfer::protocol::sender::Compression;
use mcp_transfer::protocol::trust::Strangers;
use mcp_transfer::session::send::{SETTLE, WAIT};
use mcp_transfer::units::SenderKey;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one `mcp recv` looks for a sender.
pub(super) const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Configuration of `mcp send`.
#[derive(Clone, Debug, PartialEq)]
pub struct SendConfig {
    /// The files to send together; none only if a command needs none.
    pub files: Vec<PathBuf>,
    /// Whether to send what only root may restore.
    pub archive: bool,
    /// The name of the object, a safe one; `None` for the file's own.
    pub name: Option<String>,
    /// The group or address as typed; `None` for the default rendezvous group, 239.255.74.17.
    pub group: Option<String>,
    /// The interface's name or address as typed; `None` if it is to be chosen.
    pub interface: Option<String>,
    /// UDP port, not 0.
    pub port: u16,
    /// Rate on the wire.
    pub rate: RateChoice,
    /// What happens to a device far slower than the rest.
    pub slow: Slow,
    /// Whether blocks are compressed.
    pub compress: Compression,
    /// The list of devices to serve.
    pub devices: Option<PathBuf>,
    /// When to start.
    pub gather: Gather,
    /// How long to wait for late devices after the end.
    pub linger: Duration,
    /// When to end, whatever is left to be done; none: never.
    pub max_time: Option<Duration>,
    /// How the datagrams are marked for the network.
    pub marking: Marking,
    /// Symbol size, a valid one; `None` to derive it from the interface's MTU.
    pub symbol_size: Option<u16>,
    /// The group key as typed: a name, a file or `none`.
    pub key: Option<PathBuf>,
    /// Whether to refuse to send without a group key.
    pub require_key: bool,
    /// For streams.
    pub stream: StreamArgs,
    /// The file for the final table.
    pub report: Option<PathBuf>,
    /// For lines without a way back.
    pub one_way: OneWayArgs,
    /// The file for the events, beside what is shown.
    pub events: Option<PathBuf>,
    /// The style of the output.
    pub style: Style,
}

/// When the stream starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Start as soon as this many devices are ready. This is also the expected number of devices.
    pub expected: Option<u32>,
    /// Start after this time at the latest with the devices that have joined; end if there are none.
    pub at_most: Duration,
    /// If set, end if no device comes in this time; `at_most` counts from the first one.
    pub wait_first: Option<Duration>,
    /// Without an expected number: start this long after the last device has joined.
    pub settle: Duration,
    /// Whether Enter starts at once (stdin is a terminal).
    pub enter: bool,
}

/// Configuration of `mcp recv`.
#[derive(Clone, Debug, PartialEq)]
pub struct RecvConfig {
    /// The group or address to listen to, as typed, besides the default rendezvous group; `None` for that
    /// group only.
    pub group: Option<String>,
    /// If set, only an object of this name is taken.
    pub name: Option<String>,
    /// The directory, or the file name, to save to.
    pub output: PathBuf,
    /// The interface's name or address as typed; `None` if it is to be chosen.
    pub interface: Option<String>,
    /// UDP port, not 0.
    pub port: u16,
    /// The only source of the group's datagrams.
    pub source: Option<IpAddr>,
    /// The name chosen for this device, 1 to 64 bytes.
    pub id: Option<String>,
    /// Give up if no sender is found in this time; [`Duration::MAX`] for no limit.
    pub timeout: Duration,
    /// The group key as typed: a name, a file or `none`.
    pub key: Option<PathBuf>,
    /// Whether to refuse to receive without a group key.
    pub require_key: bool,
    /// If not empty, files are accepted from these senders only.
    pub senders: Vec<SenderKey>,
    /// What happens to unknown senders.
    pub strangers: Strangers,
    /// Whether files of accepted senders are taken from whoever sends them.
    pub relayed: bool,
    /// Whether `then`, `again` and a device may take files from unknown senders.
    pub any_sender: bool,
    /// Whether an existing file may be replaced, or a device be written to that is in use.
    pub force: bool,
    /// Whether a tree is merged into an existing directory.
    pub merge: bool,
    /// Whether to restore what only root may.
    pub archive: bool,
    /// Whether to read back what was written.
    pub verify: bool,
    /// An earlier version of the file, to take unchanged blocks from.
    pub from: Option<PathBuf>,
    /// The shell command that reads the object (`-o -` only).
    pub pipe: Option<OsString>,
    /// Where blocks of a pipe wait for their turn.
    pub spool: Option<PathBuf>,
    /// The shell command to run once the file is in place.
    pub then: Option<OsString>,
    /// Whether to wait for the next transfer after each one (`--loop`).
    pub again: bool,
    /// Whether to send nothing at all.
    pub one_way: bool,
    /// Whether to take a one-way transfer that may be a recording.
    pub retake: bool,
    /// The file for the outcome.
    pub report: Option<PathBuf>,
    /// The file for the events, beside what is shown.
    pub events: Option<PathBuf>,
    /// The style of the output.
    pub style: Style,
}

impl RecvConfig {
    /// The option for which the sender must be known, if there is one. `device` says whether the output is a device.
    #[must_use]
    pub fn needs_known_sender(&self, device: bool) -> Option<String> {
        let option = match self {
            Self { then: Some(_), .. } => "--then".to_owned(),
            Self { pipe: Some(_), .. } => "--pipe".to_owned(),
            Self { archive: true, .. } => "--archive".to_owned(),
            _ if device => format!("-o {}", self.output.display()),
            Self { again: true, .. } => "--loop".to_owned(),
            _ => return None,
        };
        (!self.any_sender).then_some(option)
    }

    /// Whether the object is passed on in order, and not saved.
    #[must_use]
    pub fn is_passed_on(&self) -> bool {
        self.output.as_os_str() == "-"
    }

    /// Checks that the options go together. `stdout_terminal`: standard output is a terminal.
    ///
    /// # Errors
    /// If they do not: one clause for the user.
    pub fn check(&self, stdout_terminal: bool) -> Result<(), &'static str> {
        if !self.is_passed_on() {
            return match self {
                Self { pipe: Some(_), .. } => {
                    Err("--pipe takes what would go to standard output; add -o -, or use --then for a file")
                }
                Self { spool: Some(_), .. } => Err("--spool is for -o -; a file needs none"),
                _ => Ok(()),
            };
        }
        match self {
            Self { then: Some(_), .. } => Err("--then needs a file; with -o -, use --pipe"),
            Self { from: Some(_), .. } => Err("--from does not go with -o -; receive into a file"),
            Self { verify: true, .. } => Err("--verify reads a file back; it does not go with -o -"),
            Self { merge: true, .. } => Err("--merge does not go with -o -; receive into a directory"),
            Self { archive: true, .. } => Err("--archive does not go with -o -; receive into a directory"),
            Self { force: true, .. } => Err("--force does not go with -o -, which replaces nothing"),
            Self { relayed: true, .. } => Err(
                "--relayed does not go with -o -, which passes on what is not known to be whole; receive into a file",
            ),
            Self { again: true, pipe: None, .. } => {
                Err("--loop would run objects together on standard output; use --pipe, which runs for each")
            }
            Self { pipe: None, .. } if stdout_terminal => {
                Err("-o - would write the object to the terminal; redirect it, or use --pipe")
            }
            _ => Ok(()),
        }
    }
}

/// The terminals of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether a user may press Enter.
    pub stdin_terminal: bool,
    /// Whether a user sees what is said on stderr.
    pub stderr_terminal: bool,
    /// Whether bars can be drawn there: not with `TERM=dumb`, as a screen reader has it.
    pub draws: bool,
}

impl Surroundings {
    /// Asks the operating system.
    #[must_use]
    pub fn detect() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr_terminal = std::io::stderr().is_terminal();
        Self {
            stdin_terminal: std::io::stdin().is_terminal(),
            stderr_terminal,
            draws: stderr_terminal && !dumb,
        }
    }
}

impl SendConfig {
    /// Resolves the arguments.
    #[must_use]
    pub fn new(args: SendArgs, surroundings: Surroundings) -> Self {
        let words = args.file.into_iter().map(PathBuf::into_os_string).chain(args.more).collect();
        let (files, group) = objects::split(words, args.stream.pipe.is_some(), args.port);
        // Standard input may be the stream, or what its command reads.
        let reads_input = files.first().is_some_and(|file| file == Path::new(STANDARD_INPUT));
        Self {
            files,
            archive: args.archive,
            name: args.name,
            group,
            interface: args.interface,
            port: args.port,
            rate: args.rate.unwrap_or(RateChoice::Auto(None)),
            slow: args.slow,
            compress: args.compress,
            devices: args.devices,
            gather: Gather {
                expected: args.receivers,
                at_most: args.wait.unwrap_or(WAIT),
                wait_first: args.wait_first,
                // A time given by the user is waited out.
                settle: args.wait.unwrap_or(SETTLE),
                enter: surroundings.stdin_terminal && !reads_input,
            },
            linger: args.linger,
            max_time: args.max_time,
            marking: Marking { ttl: args.ttl, dscp: args.dscp },
            symbol_size: args.symbol_size,
            key: args.key,
            require_key: args.require_key,
            stream: args.stream,
            report: args.report,
            one_way: args.one_way,
            style: style(&args.output, surroundings),
            events: args.output.json.flatten(),
        }
    }
}

impl RecvConfig {
    /// Resolves the arguments.
    #[must_use]
    pub fn new(args: RecvArgs, surroundings: Surroundings) -> Self {
        let mut style = style(&args.show, surroundings);
        if args.pipe.is_some() && style.mode == Mode::Bars {
            // The command shares the terminal.
            style.mode = Mode::Plain;
        }
        // What is allowed for this run does not make a sender known for the next one.
        let strangers = strangers(
            args.require_signed || !args.sender.is_empty(),
            surroundings.stderr_terminal && !args.any_sender,
        );
        Self {
            group: args.group,
            name: args.name,
            output: args.output,
            interface: args.interface,
            port: args.port,
            source: args.source,
            id: args.id,
            timeout: args.timeout.unwrap_or(if args.again { Duration::MAX } else { TIMEOUT }),
            key: args.key,
            require_key: args.require_key,
            senders: args.sender,
            strangers,
            relayed: args.relayed,
            any_sender: args.any_sender,
            force: args.force,
            merge: args.merge,
            archive: args.archive,
            verify: args.verify,
            from: args.from,
            pipe: args.pipe,
            spool: args.spool,
            then: args.then,
            again: args.again,
            one_way: args.one_way,
            retake: args.retake,
            report: args.report,
            events: args.show.json.flatten(),
            style,
        }
    }
}

/// What happens to unknown senders, if only certain ones are taken, and if a user sees that one is remembered.
pub(super) const fn strangers(certain: bool, seen: bool) -> Strangers {
    match (certain, seen) {
        (true, _) => Strangers::Refuse,
        (false, true) => Strangers::Pin,
        (false, false) => Strangers::Unverified,
    }
}

pub(super) fn style(args: &OutputArgs, surroundings: Surroundings) -> Style {
    let mode = match (args.json == Some(None), args.quiet, surroundings.draws) {
        (true, _, _) => Mode::Json,
        (_, true, _) => Mode::Quiet,
        (_, _, true) => Mode::Bars,
        (_, _, false) => Mode::Plain,
    };
    Style { mode, verbose: args.verbose }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;
    use mcp_transfer::protocol::sender::FOREVER;
    use mcp_transfer::units::Rate;

    fn resolve(line: &str, terminal: bool) -> (Option<SendConfig>, Option<RecvConfig>) {
        let surroundings =
            Surroundings { stdin_terminal: terminal, stderr_terminal: terminal, draws: terminal };
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Send(args) => (Some(SendConfig::new(args, surroundings)), None),
            Command::Recv(args) => (None, Some(RecvConfig::new(args, surroundings))),
            _ => panic!("{line}: no transfer"),
        }
    }

    #[test]
    fn a_terminal_without_bars_has_a_user_all_the_same() {
        let surroundings = Surroundings { stdin_terminal: true, stderr_terminal: true, draws: false };
        let Command::Recv(args) = Cli::try_parse_from(["mcp", "recv"]).unwrap().command else { panic!() };
        let config = RecvConfig::new(args, surroundings);
        assert_eq!((config.style.mode, config.strangers), (Mode::Plain, Strangers::Pin));
    }

    #[test]
    fn modes() {
        let table = [
            ("mcp recv", true, Mode::Bars, false),
            ("mcp recv", false, Mode::Plain, false),
            ("mcp recv -v", true, Mode::Bars, true),
            ("mcp recv -q", true, Mode::Quiet, false),
            ("mcp recv --json", true, Mode::Json, false),
            ("mcp recv --json -v", false, Mode::Json, true),
            ("mcp recv --json=f", false, Mode::Plain, false),
            ("mcp recv --json=f -q", true, Mode::Quiet, false),
        ];
        for (line, terminal, mode, verbose) in table {
            let style = resolve(line, terminal).1.unwrap().style;
            assert_eq!(style, Style { mode, verbose }, "{line}");
        }
    }

    #[test]
    fn gathering() {
        let gather = |line, terminal| resolve(line, terminal).0.unwrap().gather;
        let usual = Gather {
            expected: None,
            at_most: Duration::from_secs(600),
            wait_first: None,
            settle: SETTLE,
            enter: true,
        };
        assert_eq!(gather("mcp send f", true), usual);
        let minute = Duration::from_secs(60);
        let typed = Gather { expected: Some(3), at_most: minute, settle: minute, enter: false, ..usual };
        assert_eq!(gather("mcp send f -n 3 -w 60", false), typed);
        let first = Gather { wait_first: Some(FOREVER), ..typed };
        assert_eq!(gather("mcp send f -n 3 -w 60 --wait-first forever", false), first);
    }

    #[test]
    fn what_goes_with_a_pipe() {
        let says = |line: &str, terminal| resolve(line, false).1.unwrap().check(terminal).err();
        for (line, terminal, refused) in [
            ("mcp recv -o -", false, None),
            ("mcp recv -o -", true, Some("to the terminal")),
            ("mcp recv -o - --pipe cat", true, None),
            ("mcp recv -o - --pipe cat --loop", false, None),
            ("mcp recv -o - --loop", false, Some("use --pipe")),
            ("mcp recv -o - --then x", false, Some("--then needs a file")),
            ("mcp recv -o - --from x", false, Some("--from")),
            ("mcp recv -o - --force", false, Some("--force")),
            ("mcp recv --pipe cat", false, Some("add -o -")),
            ("mcp recv --spool d", false, Some("--spool")),
            ("mcp recv -o ./-", true, None),
        ] {
            let said = says(line, terminal);
            assert_eq!(said.is_some(), refused.is_some(), "{line}");
            assert!(said.is_none_or(|said| said.contains(refused.unwrap())), "{line}: {said:?}");
        }
        let needs = |line: &str| resolve(line, false).1.unwrap().needs_known_sender(false);
        assert_eq!(needs("mcp recv -o - --pipe cat"), Some("--pipe".to_owned()));
        assert_eq!((needs("mcp recv -o -"), needs("mcp recv -o - --pipe cat --any-sender")), (None, None));
    }

    #[test]
    fn rates_and_slow_devices() {
        let chosen = |line| resolve(line, true).0.map(|c| (c.rate, c.slow)).unwrap();
        assert_eq!(chosen("mcp send f"), (RateChoice::Auto(None), Slow::Defer));
        assert_eq!(chosen("mcp send f -r auto --slow keep"), (RateChoice::Auto(None), Slow::Keep));
        let most = RateChoice::Auto(Some(Rate(800_000_000)));
        assert_eq!(chosen("mcp send f -r auto:800M --slow drop"), (most, Slow::Drop));
    }

    #[test]
    fn strangers() {
        let key = SenderKey([7; 32]);
        let pinned = format!("mcp recv --sender {} --sender {}", key.line(), SenderKey([8; 32]).line());
        for (line, terminal, strangers) in [
            ("mcp recv", true, Strangers::Pin),
            ("mcp recv", false, Strangers::Unverified),
            ("mcp recv --require-signed", true, Strangers::Refuse),
            ("mcp recv --require-signed", false, Strangers::Refuse),
            (&pinned, true, Strangers::Refuse),
            ("mcp recv --loop --any-sender", true, Strangers::Unverified),
        ] {
            assert_eq!(resolve(line, terminal).1.unwrap().strangers, strangers, "{line}");
        }
        assert_eq!(resolve(&pinned, false).1.unwrap().senders, [key, SenderKey([8; 32])]);
    }

    #[test]
    fn what_may_do_harm_needs_a_known_sender() {
        let option = |line, device| resolve(line, true).1.unwrap().needs_known_sender(device);
        assert_eq!(option("mcp recv -o /dev/sdb", false), None);
        assert_eq!(option("mcp recv -o /dev/sdb", true).as_deref(), Some("-o /dev/sdb"));
        assert_eq!(option("mcp recv -o /dev/sdb --loop", true).as_deref(), Some("-o /dev/sdb"));
        assert_eq!(option("mcp recv --loop", false).as_deref(), Some("--loop"));
        assert_eq!(option("mcp recv --loop --then x", false).as_deref(), Some("--then"));
        assert_eq!(option("mcp recv -o /dev/sdb --loop --any-sender", true), None);
        assert!(resolve("mcp recv --verify", true).1.unwrap().verify);
    }

    #[test]
    fn everything_arrives() {
        let c = resolve(
            "mcp send f g -i e -p 9 -r 1M --linger 1 --ttl 0 --dscp ef --symbol-size 64 --report r -k lab",
            true,
        );
        let c = c.0.unwrap();
        assert_eq!(
            (c.files, c.group.as_deref(), c.interface.as_deref()),
            (vec!["f".into()], Some("g"), Some("e"))
        );
        assert_eq!(
            (c.port, c.rate, c.marking, c.symbol_size),
            (9, RateChoice::Fixed(Rate(1_000_000)), Marking { ttl: 0, dscp: 46 }, Some(64))
        );
        assert_eq!((c.key, c.devices, c.require_key), (Some("lab".into()), None, false));
        assert_eq!((c.linger, c.report), (Duration::from_secs(1), Some("r".into())));
        let c = resolve("mcp recv g -o d -i e -p 9 --id n --timeout 7 --force -k none", true).1.unwrap();
        assert_eq!(
            (c.group.as_deref(), c.output, c.interface.as_deref()),
            (Some("g"), "d".into(), Some("e"))
        );
        assert_eq!((c.port, c.id.as_deref(), c.force), (9, Some("n"), true));
        assert_eq!((c.timeout, c.key), (Duration::from_secs(7), Some("none".into())));
        let c = resolve("mcp send f --devices list --require-key", true).0.unwrap();
        assert_eq!((c.devices, c.require_key, c.gather.expected), (Some("list".into()), true, None));
        assert!(resolve("mcp recv --require-key", true).1.unwrap().require_key);
        assert!(Cli::try_parse_from(["mcp", "send", "f", "-n", "2", "--devices", "list"]).is_err());
    }
}
