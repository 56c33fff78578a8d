//! `mcp enrol`.

use super::output::{json, line, span, table};
use super::{CommandError, Exit, ServerOptions};
use crate::server::{EnrolmentRequest, EnrolmentResponse, clock};
use crate::store::{EnrolmentLine, LineKind};
use clap::Subcommand;
use reqwest::Method;
use std::path::PathBuf;
use std::time::Duration;

/// Commands of `mcp enrol`.
#[derive(Debug, Subcommand)]
pub enum EnrolCommand {
    /// Print a line with which devices enrol
    New {
        /// Any number of devices may use it [default: one]
        #[arg(long)]
        group: bool,
        /// How many devices may use it
        #[arg(long, value_name = "N", conflicts_with = "group", default_value_t = 1)]
        uses: u64,
        /// How long it is valid
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
        valid: Duration,
        /// A tag of the devices that it enrols
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Let them wait for 'mcp device accept'
        #[arg(long)]
        ask: bool,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// Print a token for gateways instead: clients of the device interface that have no token of their own
        #[arg(long)]
        gateway: bool,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// List the lines
    List {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Revoke a line; devices that it enrolled stay enrolled
    Revoke {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
}

pub(super) async fn run(command: EnrolCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    match command {
        EnrolCommand::New { group, uses, valid, tags, ask, label, gateway, server } => {
            let kind = if gateway { LineKind::Gateway } else { LineKind::Line };
            let uses = (!group && !gateway).then_some(uses);
            let request = EnrolmentRequest { kind, label, uses, valid: valid.as_secs(), tags, accepts: !ask };
            let answer: EnrolmentResponse =
                server.remote(state)?.send(Method::POST, "/enrolments", &request).await?;
            if server.json { json(&answer) } else { line(&answer.line) }
        }
        EnrolCommand::List { server } => {
            let lines: Vec<EnrolmentLine> = server.remote(state)?.get("/enrolments").await?;
            if server.json {
                json(&lines);
            } else {
                let now = clock::now();
                let heading = ["id", "kind", "left", "valid", "tags", "label", "by"];
                let rows = lines.into_iter().map(|l| {
                    let valid = match l.expires.checked_sub(now) {
                        _ if l.revoked => "revoked".into(),
                        Some(left) if left > 0 => span(left),
                        _ => "expired".into(),
                    };
                    let left = l.uses_left.map_or_else(|| "any".into(), |n| n.to_string());
                    vec![
                        l.id.to_string(),
                        l.kind.as_str().into(),
                        left,
                        valid,
                        l.tags.join(","),
                        l.label,
                        l.by,
                    ]
                });
                table(&std::iter::once(heading.map(String::from).to_vec()).chain(rows).collect::<Vec<_>>());
            }
        }
        EnrolCommand::Revoke { id, server } => {
            server
                .remote(state)?
                .order(Method::POST, &format!("/enrolments/{id}/revoke"), Vec::new())
                .await?;
        }
    }
    Ok(Exit::Complete)
}
