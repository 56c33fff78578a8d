//! Any list of arguments: a configuration within its bounds, or a usage error; never a panic. Neither the
//! network nor the disk is looked at.

use clap::Parser as _;
use mcp::cli::args::{Cli, Command, MAX_RATE, MIN_RATE, RateChoice};
use mcp::cli::config::{RecvConfig, SendConfig, Surroundings};
use mcp::cli::identity::DeviceIdentity;
use mcp::limits::{MAX_DEVICES, MAX_LABEL, MAX_SYMBOL_SIZE, MIN_SYMBOL_SIZE, SYMBOL_ALIGN};
use mcp::net::Destination;
use mcp::protocol::trust::Strangers;
use mcp::time::Time;
use mcp::ui::Mode;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Arguments in one input, at the most.
const MAX_ARGUMENTS: usize = 32;

/// The first byte says what is a terminal; the rest is the arguments, with a NUL or a line break between
/// them.
///
/// # Panics
/// When a configuration is out of its bounds.
pub fn fuzz_arguments(bytes: &[u8]) {
    let Some((&choice, typed)) = bytes.split_first() else { return };
    let typed = typed.split(|byte| matches!(byte, 0 | b'\n')).map(OsStr::from_bytes);
    let typed = [OsStr::new("mcp")].into_iter().chain(typed).take(MAX_ARGUMENTS);
    let around = Surroundings {
        stdin_terminal: choice & 1 == 1,
        stderr_terminal: choice & 2 == 2,
        draws: choice & 6 == 6,
    };
    match Cli::try_parse_from(typed) {
        Err(error) => assert!(!error.render().ansi().to_string().is_empty()),
        Ok(Cli { command: Command::Send(args), .. }) => sender(&SendConfig::new(args, around), around),
        Ok(Cli { command: Command::Recv(args), .. }) => receiver(&RecvConfig::new(args, around), around),
        Ok(_) => {}
    }
}

fn sender(config: &SendConfig, around: Surroundings) {
    let sound = |rate| (MIN_RATE..=MAX_RATE).contains(&rate);
    match config.rate {
        RateChoice::Auto(most) => assert!(most.is_none_or(sound), "{config:?}"),
        RateChoice::Fixed(rate) => assert!(sound(rate), "{config:?}"),
    }
    if let Some(size) = config.symbol_size {
        assert!((MIN_SYMBOL_SIZE..=MAX_SYMBOL_SIZE).contains(&size) && size.is_multiple_of(SYMBOL_ALIGN));
    }
    let expected = config.gather.expected;
    assert!(expected.is_none_or(|n| n > 0 && n as usize <= MAX_DEVICES), "{config:?}");
    assert!(config.gather.settle <= config.gather.at_most, "{config:?}");
    // What is typed is the content if that comes from standard input.
    let typed = around.stdin_terminal && config.files.first().is_none_or(|file| file.as_os_str() != "-");
    assert_eq!(config.gather.enter, typed, "{config:?}");
    // A time that is added to another may be long, but must not overflow.
    for time in [config.gather.at_most, config.gather.settle, config.linger] {
        let _ = Time::ZERO + time;
    }
    group(config.group.as_deref(), config.port);
    assert!(config.style.mode != Mode::Bars || around.stderr_terminal, "{config:?}");
}

fn receiver(config: &RecvConfig, around: Surroundings) {
    if let Some(id) = &config.id {
        assert!((1..=MAX_LABEL).contains(&id.len()) && !id.chars().any(char::is_control), "{id:?}");
        assert_eq!(DeviceIdentity::named(id).label, *id);
    }
    assert!(config.senders.is_empty() || config.strangers == Strangers::Refuse, "{config:?}");
    // Nobody sees what is remembered where there is no terminal.
    assert!(config.strangers != Strangers::Pin || around.stderr_terminal, "{config:?}");
    let _ = Time::ZERO + config.timeout;
    group(config.group.as_deref(), config.port);
}

fn group(text: Option<&str>, port: u16) {
    assert!(port > 0);
    match text.map(|text| Destination::parse_with(text, port, &[])) {
        None => {}
        Some(Ok(to)) => assert!(to.addr.port() > 0 && !to.addr.ip().is_unspecified(), "{to:?}"),
        Some(Err(error)) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
    }
}
