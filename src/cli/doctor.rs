//! `mcp doctor`: runs the checks, prints what they found, and exits by the worst of it.

use super::args::DoctorArgs;
use super::exit::Exit;
use super::report::{self, Error, tell};
use crate::doctor::{Finding, Question, Verdict, examine, pairs, show, worst};
use mcp_transfer::limits::DEFAULT_GROUP_V4;
use mcp_transfer::net::Destination;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Longer than a switch remembers a member without a querier: 260 s (RFC 3376, section 8.4).
const LONG: Duration = Duration::from_secs(300);

/// Runs `mcp doctor`.
#[must_use]
pub fn run(args: DoctorArgs) -> Exit {
    let json = args.json;
    match find(args).and_then(|findings| print(&findings, json).map(|()| worst(&findings))) {
        Ok(Verdict::Broken) => Exit::Environment,
        Ok(Verdict::Ok | Verdict::Warning) => Exit::Complete,
        Err(error) => {
            report::error(&error);
            error.exit()
        }
    }
}

fn find(args: DoctorArgs) -> Result<Vec<Finding>, Error> {
    let parse = |text: &str| Destination::parse(text, args.port).map_err(|e| Error::Usage(e.to_string()));
    let environment = |e: io::Error| Error::Environment(e.to_string());
    let interface = args.interface.as_deref();
    if let Some(to) = &args.to {
        let long = args.long.map(|time| time.unwrap_or(LONG));
        return pairs::probe::run(&parse(to)?, interface, args.listen_for, long).map_err(environment);
    }
    let group = args.group.as_deref().map(parse).transpose()?;
    if args.listen {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(environment)?;
        }
        tell("listening for 'mcp doctor --to' of another machine; Ctrl-C ends it and prints what was heard");
        return pairs::listen::run(group.as_ref(), interface, args.port, args.listen_for, &stop)
            .map_err(environment);
    }
    Ok(examine(&Question {
        destination: group.unwrap_or_else(|| Destination::group(DEFAULT_GROUP_V4.into(), args.port)),
        interface: args.interface,
        output: args.output,
        listen_for: args.listen_for.unwrap_or_default(),
    }))
}

fn print(findings: &[Finding], json: bool) -> Result<(), Error> {
    let text = if json {
        format!("{}\n", show::json(findings))
    } else {
        {
            // 0 if it is no terminal: a line is as long as it gets.
            let columns =
                console::Term::stdout().size_checked().map_or(0, |(_, columns)| usize::from(columns));
            show::table(findings, columns, console::colors_enabled())
        }
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::Environment(format!("cannot write to standard output: {e}; check where it goes")))
}
