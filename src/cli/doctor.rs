//! `mcp doctor`: runs the checks, prints what they found, and exits by the worst of it.

use super::args::DoctorArgs;
use super::exit::Exit;
use super::report::{self, Error};
use crate::doctor::{Finding, Question, Verdict, examine, show, worst};
use mcp_transfer::limits::DEFAULT_GROUP_V4;
use mcp_transfer::net::Destination;
use std::io::{self, Write};

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
    let destination = match &args.group {
        None => Destination::group(DEFAULT_GROUP_V4.into(), args.port),
        Some(text) => Destination::parse(text, args.port).map_err(|e| Error::Usage(e.to_string()))?,
    };
    Ok(examine(&Question {
        destination,
        interface: args.interface,
        output: args.output,
        listen_for: args.listen_for.unwrap_or_default(),
    }))
}

fn print(findings: &[Finding], json: bool) -> Result<(), Error> {
    let text = if json {
        format!("{}\n", show::json(findings))
    } else {
        show::table(findings, console::colors_enabled())
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::Environment(format!("cannot write to standard output: {e}; check where it goes")))
}
