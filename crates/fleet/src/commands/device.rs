//! `mcp device`.

use super::output::{ago, json, line, table};
use super::remote::Remote;
use super::{CommandError, Exit, ServerOptions};
use crate::server::{AcceptRequest, DeviceView, TagRequest, TokenResponse};
use clap::Subcommand;
use mcp_transfer::text::escape;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use std::path::PathBuf;

/// Commands of `mcp device`.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List the devices
    List {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Show one device, what it said of itself, and its tasks
    Show {
        /// The device
        device: String,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Make devices part of the fleet
    Accept {
        /// The devices; one that was never heard of is added
        #[arg(required = true)]
        devices: Vec<String>,
        /// Print a new target token for each, for clients of the device interface
        #[arg(long)]
        token: bool,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Keep devices out
    Refuse {
        /// The devices
        #[arg(required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Give a device tags, or with '-' before it take one away
    #[command(after_help = "Example: mcp device tag bench-1 lab3 -old")]
    Tag {
        /// The device
        device: String,
        /// Tags
        #[arg(required = true, allow_hyphen_values = true)]
        tags: Vec<String>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Forget devices, their tokens, and what they did
    Forget {
        /// The devices
        #[arg(required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        server: ServerOptions,
    },
}

/// The path of a device.
fn path(device: &str, rest: &str) -> String {
    format!("/devices/{}{rest}", utf8_percent_encode(device, NON_ALPHANUMERIC))
}

/// All devices of the server.
pub(super) async fn all(remote: &Remote) -> Result<Vec<DeviceView>, CommandError> {
    let mut devices = Vec::<DeviceView>::new();
    loop {
        let after = devices.last().map(|device| device.id.clone()).unwrap_or_default();
        let after = utf8_percent_encode(&after, NON_ALPHANUMERIC).to_string();
        let page: Vec<DeviceView> = remote.get(&format!("/devices?after={after}")).await?;
        if page.is_empty() {
            return Ok(devices);
        }
        devices.extend(page);
    }
}

pub(super) async fn run(command: DeviceCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    match command {
        DeviceCommand::List { server } => {
            let devices = all(&server.remote(state)?).await?;
            if server.json {
                json(&devices);
            } else {
                let heading = ["device", "state", "heard", "from", "version", "tags"];
                let rows = devices.into_iter().map(|d| {
                    let version = d.attributes.get("version").or_else(|| d.attributes.get("sw_version"));
                    vec![
                        d.id,
                        d.state.as_str().into(),
                        ago(d.last_seen),
                        d.last_address.unwrap_or_default(),
                        version.cloned().unwrap_or_default(),
                        d.tags.into_iter().collect::<Vec<_>>().join(","),
                    ]
                });
                table(&std::iter::once(heading.map(String::from).to_vec()).chain(rows).collect::<Vec<_>>());
            }
        }
        DeviceCommand::Show { device, server } => {
            let view: DeviceView = server.remote(state)?.get(&path(&device, "")).await?;
            if server.json { json(&view) } else { show(view) }
        }
        DeviceCommand::Accept { devices, token, server } => {
            let remote = server.remote(state)?;
            for device in devices {
                let answer: TokenResponse =
                    remote.send(Method::POST, &path(&device, "/accept"), &AcceptRequest { token }).await?;
                if let Some(token) = answer.target_token {
                    line(&format!("{} {token}", escape(&device)));
                }
            }
        }
        DeviceCommand::Refuse { devices, server } => {
            let remote = server.remote(state)?;
            for device in devices {
                remote.order(Method::POST, &path(&device, "/refuse"), Vec::new()).await?;
            }
        }
        DeviceCommand::Tag { device, tags, server } => {
            let (remove, add): (Vec<String>, Vec<String>) =
                tags.into_iter().partition(|tag| tag.starts_with('-'));
            let remove = remove.into_iter().map(|tag| tag[1..].to_owned()).collect();
            let body = serde_json::to_vec(&TagRequest { add, remove }).unwrap_or_default();
            server.remote(state)?.order(Method::POST, &path(&device, "/tag"), body).await?;
        }
        DeviceCommand::Forget { devices, server } => {
            let remote = server.remote(state)?;
            for device in devices {
                remote.order(Method::POST, &path(&device, "/forget"), Vec::new()).await?;
            }
        }
    }
    Ok(Exit::Complete)
}

fn show(view: DeviceView) {
    let mut rows = vec![
        vec!["device".into(), view.id],
        vec!["state".into(), view.state.as_str().into()],
        vec![
            "heard".into(),
            format!("{} from {}", ago(view.last_seen), view.last_address.unwrap_or_default()),
        ],
        vec!["tags".into(), view.tags.into_iter().collect::<Vec<_>>().join(",")],
    ];
    rows.extend(view.key.map(|key| vec!["key".into(), key]));
    rows.extend(view.attributes.into_iter().map(|(key, value)| vec![key, value]));
    table(&rows);
    let actions = view.actions.unwrap_or_default();
    if !actions.is_empty() {
        line("");
        let heading = ["task", "attempt", "state", "changed", "message"].map(String::from).to_vec();
        let rows = actions.into_iter().map(|a| {
            let changed = ago(Some(a.updated));
            vec![a.task.to_string(), a.attempt.to_string(), a.state.as_str().into(), changed, a.message]
        });
        table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    }
}
