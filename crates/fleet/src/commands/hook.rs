//! `mcp hook`.

use super::output::{ago, json, line, span, table};
use super::{CommandError, Exit, ServerOptions};
use crate::server::{HookRequest, HookResponse, clock};
use crate::store::{EventKind, Hook};
use clap::Subcommand;
use reqwest::Method;
use std::path::PathBuf;

/// Commands of `mcp hook`.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Send what happens to tasks to a URL, and print the secret by which it knows that the server sent it
    Add {
        /// http(s)://HOST/PATH, as the server reaches it
        #[arg(value_name = "URL")]
        to: String,
        /// Only this kind of event, such as task.over; may be given several times [default: all]
        #[arg(long = "event", value_name = "KIND", value_parser = kind)]
        kinds: Vec<EventKind>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// List the web hooks, and what they have not taken yet
    List {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Send nothing there any more
    Remove {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
}

fn kind(text: &str) -> Result<EventKind, String> {
    text.parse().map_err(|_| {
        let known = EventKind::ALL.iter().filter(|kind| **kind != EventKind::HookAdded);
        format!("expected one of {}", known.map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "))
    })
}

pub(super) async fn run(command: HookCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    match command {
        HookCommand::Add { to: url, kinds, server } => {
            let remote = server.remote(state)?;
            let answer: HookResponse =
                remote.send(Method::POST, "/hooks", &HookRequest { url, kinds }).await?;
            if server.json { json(&answer) } else { line(&answer.secret) }
        }
        HookCommand::List { server } => {
            let hooks: Vec<Hook> = server.remote(state)?.get("/hooks").await?;
            if server.json {
                json(&hooks);
            } else {
                let heading = ["id", "url", "events", "since", "waiting", "missed", "state"];
                let rows = hooks.iter().map(row);
                table(&std::iter::once(heading.map(String::from).to_vec()).chain(rows).collect::<Vec<_>>());
            }
        }
        HookCommand::Remove { id, server } => {
            server.remote(state)?.order(Method::DELETE, &format!("/hooks/{id}"), Vec::new()).await?;
        }
    }
    Ok(Exit::Complete)
}

fn row(hook: &Hook) -> Vec<String> {
    let kinds: Vec<&str> = hook.kinds.iter().map(|kind| kind.as_str()).collect();
    let state = match hook.again.saturating_sub(clock::now()) {
        _ if hook.failures == 0 => "ok".into(),
        0 => format!("failed: {}", hook.error),
        wait => format!("failed: {}; again in {}", hook.error, span(wait)),
    };
    vec![
        hook.id.to_string(),
        hook.url.clone(),
        if kinds.is_empty() { "all".into() } else { kinds.join(",") },
        ago(Some(hook.created)),
        hook.waiting.to_string(),
        hook.missed.to_string(),
        state,
    ]
}
