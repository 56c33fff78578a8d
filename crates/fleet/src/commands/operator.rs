//! `mcp operator`.

use super::output::{ago, json, line, table};
use super::remote::Remote;
use super::{CommandError, Exit, ServerOptions};
use crate::documents::{Envelope, PublicKey, Root};
use crate::server::state_dir::{own_key, read_key};
use crate::server::{LinkResponse, OperatorRequest, clock};
use crate::store::{Operator, OperatorRole};
use clap::Subcommand;
use reqwest::Method;
use std::path::PathBuf;

/// How long a root is valid.
const ROOT_VALIDITY: u64 = 10 * 365 * 24 * 3600;

/// Commands of `mcp operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make a key, and print its public half for 'mcp operator add'
    Key {
        /// The file for the key
        file: PathBuf,
    },
    /// Name an operator, or change what one may do
    Add {
        /// For people, and for the audit trail
        name: String,
        /// The public half of the key
        key: PublicKey,
        /// What the operator may do: read, operate or admin
        #[arg(long, default_value = "operate", value_parser = role)]
        role: OperatorRole,
        /// The key that signs roots [default: root.key beside address.json]
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// List the operators
    List {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Take an operator's rights away; tasks that the key signed are refused by devices from then on
    Remove {
        /// The operator
        name: String,
        /// The key that signs roots [default: root.key beside address.json]
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Print a link that opens the server's page in a browser; it works once, within 5 minutes
    Link {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Show who did what
    Audit {
        #[command(flatten)]
        server: ServerOptions,
    },
}

fn role(text: &str) -> Result<OperatorRole, String> {
    text.parse().map_err(|_| "expected read, operate or admin".into())
}

pub(super) async fn run(command: OperatorCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    match command {
        OperatorCommand::Key { file } => line(&own_key(&file)?.public().to_string()),
        OperatorCommand::Add { name, key, role, root_key, server } => {
            let remote = server.remote(state)?;
            // The root first: a key that the server takes and devices refuse is worse than the other way round.
            if role >= OperatorRole::Operate {
                change_root(&remote, &server, state, root_key, |keys| keys.insert(key)).await?;
            }
            let body =
                serde_json::to_vec(&OperatorRequest { key: key.to_string(), role }).unwrap_or_default();
            remote.order(Method::PUT, &format!("/operators/{name}"), body).await?;
        }
        OperatorCommand::List { server } => {
            let operators: Vec<Operator> = server.remote(state)?.get("/operators").await?;
            if server.json {
                json(&operators);
            } else {
                let heading = ["operator", "role", "since", "key"].map(String::from).to_vec();
                let rows = operators
                    .into_iter()
                    .map(|o| vec![o.name, o.role.as_str().into(), ago(Some(o.created)), o.public_key]);
                table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
            }
        }
        OperatorCommand::Remove { name, root_key, server } => {
            let remote = server.remote(state)?;
            let operators: Vec<Operator> = remote.get("/operators").await?;
            let known = operators.into_iter().find(|operator| operator.name == name);
            let known = known.ok_or_else(|| CommandError::Usage(format!("there is no operator {name}")))?;
            remote.order(Method::DELETE, &format!("/operators/{name}"), Vec::new()).await?;
            if let Ok(key) = known.public_key.parse::<PublicKey>() {
                change_root(&remote, &server, state, root_key, |keys| keys.remove(&key)).await?;
            }
        }
        OperatorCommand::Link { server } => {
            let remote = server.remote(state)?;
            let answer: LinkResponse = remote.send(Method::POST, "/links", &()).await?;
            let link = remote.link(&answer.path)?;
            if server.json {
                json(&serde_json::json!({ "link": link, "expires": answer.expires }));
            } else {
                line(&link);
            }
        }
        OperatorCommand::Audit { server } => {
            let entries: Vec<crate::store::AuditEntry> = server.remote(state)?.get("/audit").await?;
            if server.json {
                json(&entries);
            } else {
                let heading = ["when", "who", "from", "what", "subject"].map(String::from).to_vec();
                let rows =
                    entries.into_iter().map(|e| vec![ago(Some(e.at)), e.who, e.address, e.what, e.subject]);
                table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
            }
        }
    }
    Ok(Exit::Complete)
}

/// Signs and publishes the next root, if `change` changes the keys that sign tasks.
async fn change_root(
    remote: &Remote,
    server: &ServerOptions,
    state: Option<&PathBuf>,
    root_key: Option<PathBuf>,
    change: impl FnOnce(&mut std::collections::BTreeSet<PublicKey>) -> bool,
) -> Result<(), CommandError> {
    let path = match (root_key, &server.server) {
        (Some(path), _) => path,
        (None, Some(address)) => address.with_file_name("root.key"),
        (None, None) => super::serve::dir(state.ok_or_else(super::no_state)?).join("root.key"),
    };
    let fault = |why: String| CommandError::Environment(format!("the fleet's root: {why}"));
    let bytes = remote.newest_root().await?;
    let newest = Envelope::parse(&bytes).and_then(|envelope| Root::parse(envelope.payload()));
    let mut root = newest.map_err(|error| fault(error.to_string()))?;
    if !change(&mut root.tasks.keys) {
        return Ok(());
    }
    let key = read_key(&path)?.ok_or_else(|| {
        CommandError::Usage(format!(
            "there is no key of roots in {}; name the file with --root-key",
            path.display()
        ))
    })?;
    let now = clock::now();
    (root.version, root.issued, root.expires) = (root.version + 1, now, now + ROOT_VALIDITY);
    let signed = root.sign(&[&key]).map_err(|error| fault(error.to_string()))?;
    Ok(remote.order(Method::POST, "/roots", signed.to_bytes()).await?)
}
