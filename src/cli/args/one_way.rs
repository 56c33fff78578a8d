//! Arguments for lines without a way back.

use clap::Args;
use mcp_transfer::limits::MAX_OVERHEAD_PER_MILLE;
use std::time::Duration;

/// Options of `mcp send` for lines without a way back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct OneWayArgs {
    /// Send over a line without a way back: nobody joins or answers, all is sent several times with repair symbols,
    /// at a fixed --rate. Exit code 0 means: sent, and nobody can confirm
    #[arg(long, conflicts_with_all = [
        "receivers", "devices", "wait", "wait_first", "linger", "slow", "pipe", "spool", "compress",
    ])]
    pub one_way: bool,
    /// With --one-way: repair symbols in each pass, as a share of the object [default: 10%]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, requires = "one_way")]
    pub repair: Option<u16>,
    /// With --one-way: the number of passes, or forever [default: 2]
    #[arg(long, value_name = "N|forever", value_parser = parse_repeat, requires = "one_way")]
    pub repeat: Option<Repeat>,
    /// With --one-way: the pause between two passes [default: none]
    #[arg(long, value_name = "TIME", value_parser = super::parse_duration, requires = "one_way")]
    pub every: Option<Duration>,
}

/// The number of passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// So many, at least 1.
    Times(u32),
    /// Without an end.
    Forever,
}

/// A share in tenths of a percent.
fn parse_percent(text: &str) -> Result<u16, String> {
    let most = MAX_OVERHEAD_PER_MILLE / 10;
    let objection = || format!("a share from 0% to {most}%, such as 20% or 2.5%");
    let number: f64 = text.strip_suffix('%').unwrap_or(text).trim().parse().map_err(|_| objection())?;
    if !(0.0..=f64::from(most)).contains(&number) {
        return Err(objection());
    }
    Ok((number * 10.0).round() as u16)
}

fn parse_repeat(text: &str) -> Result<Repeat, String> {
    if text == "forever" {
        return Ok(Repeat::Forever);
    }
    match text.parse() {
        Ok(times) if times > 0 => Ok(Repeat::Times(times)),
        _ => Err("a number of passes, at least 1, or forever".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn parsed(line: &str) -> Result<OneWayArgs, String> {
        match Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?.command {
            Command::Send(args) => Ok(args.one_way),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn shares_and_passes() {
        let args = parsed("mcp send f --one-way -r 600M --repair 20% --repeat forever --every 5m").unwrap();
        let expected = OneWayArgs {
            one_way: true,
            repair: Some(200),
            repeat: Some(Repeat::Forever),
            every: Some(Duration::from_secs(300)),
        };
        assert_eq!(args, expected);
        assert_eq!(parse_percent("2.5"), Ok(25));
        assert_eq!(parse_percent("500%"), Ok(5000));
        for bad in ["501%", "-1", "many", "nan", ""] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_repeat("3"), Ok(Repeat::Times(3)));
        assert!(parse_repeat("0").is_err() && parse_repeat("ever").is_err());
    }

    #[test]
    fn what_needs_answers_is_refused() {
        for option in
            ["-n 3", "--devices l", "-w 5", "--wait-first 3", "--linger 5", "--slow keep", "--pipe x"]
        {
            let error = parsed(&format!("mcp send f --one-way -r 1M {option}")).unwrap_err();
            assert!(
                error.contains("--one-way") && error.contains("cannot be used with"),
                "{option}: {error}"
            );
        }
        for alone in ["--repair 5", "--repeat 2", "--every 5"] {
            assert!(parsed(&format!("mcp send f {alone}")).unwrap_err().contains("--one-way"), "{alone}");
        }
    }
}
