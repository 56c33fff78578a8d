//! `mcp task`.

mod follow;
mod signing;

use super::output::{ago, json, line, span, table};
use super::remote::{Remote, RemoteError};
use super::{CommandError, Exit, ServerOptions};
use crate::ddi::Session;
use crate::documents::{Envelope, SecretKey, Task};
use crate::server::state_dir::read_key;
use crate::server::{
    ChangeResponse, ObjectView, SerialView, SessionView, TaskRequest, TaskResponse, TaskView, clock,
};
use crate::store::{Amount, Group, Percent, Terms};
use clap::{Args, Subcommand};
use reqwest::Method;
use signing::TaskArgs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Commands of `mcp task`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Sign a task with the operator's key, upload its files, and give it to the server
    #[command(after_help = EXAMPLES)]
    Add(Box<AddArgs>),
    /// Sign a task on a machine without a network; 'mcp task add --signed' takes it
    Sign(Box<SignArgs>),
    /// List the tasks
    List {
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Show one task and what became of it at each device
    Show {
        /// Its number
        id: i64,
        /// Follow it until no device is at it any more
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Print the command by which 'mcp recv' takes part in the session of a task that runs now. It contains the session's
    /// secret key
    Session {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Hold a task back at devices that have not begun
    Pause {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Let a paused task go on
    Resume {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// End a task; devices that have begun are asked to stop
    Cancel {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// End a task, and undo it where it has begun by the task that '--rollback' named
    Rollback {
        /// Its number
        id: i64,
        #[command(flatten)]
        server: ServerOptions,
    },
    /// Try a task again where it failed or was cancelled
    Retry {
        /// Its number
        id: i64,
        /// Only at this device
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        server: ServerOptions,
    },
}

const EXAMPLES: &str = "\
Examples:
  mcp task add copy image.iso --to all --at /srv/images/
  mcp task add install editor.deb --handler deb --to tag:lab3 --window 22:00-05:00
  mcp task add update firmware.bin --handler fw --version 2.1 --when 'version < 2.1' --to 'bench-*'
  mcp task add batch prices.csv --handler load-prices --to 'shop-*' --expires 7d
  mcp task add update firmware.bin --handler fw --version 2.2 --to all --groups tag:canary,10% --failures 5% --rollback 7";

/// Arguments of `mcp task add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// A task that 'mcp task sign' wrote, instead of signing one; the files are given as they were there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "at", "handler", "when", "window", "expires", "after", "arguments"])]
    signed: Option<PathBuf>,
    /// At how many devices it may be under way at once: a number, or a per cent of its devices
    #[arg(long, value_name = "N|N%", default_value = "0", hide_default_value = true)]
    at_once: Amount,
    /// Give it to these groups one after the other, and to all other devices last: tag:TAG, a number of devices, or a per
    /// cent of them, as in tag:canary,10%
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    groups: Vec<Group>,
    /// How much of a group must be done before the next one gets it [default: all but what may fail]
    #[arg(long, value_name = "N%", requires = "groups")]
    success: Option<Percent>,
    /// Pause it when more than this much of a group fails
    #[arg(long, value_name = "N%", default_value = "0%", requires = "groups")]
    failures: Percent,
    /// What 'mcp task rollback' does: an earlier task, by its number, or a file that 'mcp task sign' wrote
    #[arg(long, value_name = "TASK")]
    rollback: Option<String>,
    /// Devices may put it off until it suits them
    #[arg(long)]
    soft: bool,
    /// Devices load the files and install nothing; a later task of the same name need not load them again
    #[arg(long)]
    download_only: bool,
    /// Devices load the files not before --start-in and within --window only, in the server's time zone, and not ahead
    #[arg(long)]
    load_in_window: bool,
    /// Each device confirms it first
    #[arg(long)]
    confirm: bool,
    /// Tasks of higher weight come first
    #[arg(long, value_name = "N", default_value_t = 1000)]
    weight: u16,
    /// What clients of the device interface call this kind of software
    #[arg(long, value_name = "NAME", default_value = "bApp")]
    part: String,
    /// Wait until every device is done, and say so in the exit code; with a time, no longer than that
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "365d",
          value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: ServerOptions,
}

/// Arguments of `mcp task sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The fleet: 'fleet' in the server's address.json
    #[arg(long, value_name = "HEX")]
    fleet: crate::documents::FleetId,
    /// The operator's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signed task goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

pub(super) async fn run(command: TaskCommand, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    match command {
        TaskCommand::Add(args) => return add(*args, state).await,
        TaskCommand::Sign(args) => sign(*args)?,
        TaskCommand::List { server } => list(&server, state).await?,
        TaskCommand::Show { id, watch, server } => {
            let remote = server.remote(state)?;
            if watch {
                return follow::until_done(&remote, id, None, server.json).await;
            }
            let view: TaskView = remote.get(&format!("/tasks/{id}")).await?;
            if server.json { json(&view) } else { show(view) }
        }
        TaskCommand::Session { id, server } => {
            let session: Session = server.remote(state)?.get(&format!("/tasks/{id}/session")).await?;
            if server.json {
                json(&session);
            } else {
                let unreadable =
                    || CommandError::Environment("the server's keys cannot be read; update mcp".into());
                let (sender, seal) = session.keys().ok_or_else(unreadable)?;
                let (seal, address, port) = (seal.line(), session.group.ip(), session.group.port());
                line(&format!(
                    "MCP_KEY={} mcp recv {address} --port {port} --sender {}",
                    *seal,
                    sender.line()
                ));
            }
        }
        TaskCommand::Pause { id, server } => change(&server, state, id, "pause").await?,
        TaskCommand::Resume { id, server } => change(&server, state, id, "resume").await?,
        TaskCommand::Cancel { id, server } => change(&server, state, id, "cancel").await?,
        TaskCommand::Retry { id, device, server } => {
            let body = serde_json::json!({ "device": device });
            let answer: ChangeResponse =
                server.remote(state)?.send(Method::POST, &format!("/tasks/{id}/retry"), &body).await?;
            if server.json { json(&answer) } else { line(&format!("{} devices try again", answer.devices)) }
        }
        TaskCommand::Rollback { id, server } => {
            let path = format!("/tasks/{id}/rollback");
            let answer: ChangeResponse =
                server.remote(state)?.send(Method::POST, &path, &serde_json::json!({})).await?;
            match answer.task {
                Some(task) if !server.json => {
                    line(&format!("task {task} undoes it at {} devices", answer.devices));
                }
                _ => json(&answer),
            }
        }
    }
    Ok(Exit::Complete)
}

async fn change(
    server: &ServerOptions,
    state: Option<&PathBuf>,
    id: i64,
    what: &str,
) -> Result<(), CommandError> {
    Ok(server.remote(state)?.order(Method::POST, &format!("/tasks/{id}/{what}"), Vec::new()).await?)
}

async fn add(args: AddArgs, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    let remote = args.server.remote(state)?;
    let files = signing::hash_files(&args.task.files).await?;
    let envelope = match &args.signed {
        Some(path) => signing::read_signed(path)?,
        None => {
            let mut asked = args.task;
            asked.after = named(&remote, asked.after).await?;
            let name = asked.name()?;
            let serial = match asked.serial {
                Some(serial) => serial,
                None => remote.get::<SerialView>(&format!("/serials/{name}")).await?.serial + 1,
            };
            let to = signing::audience(&asked.to, Some(&remote)).await?;
            let task = asked.build(remote.address.fleet, serial, to, &files)?;
            task.sign(&[&remote.key]).map_err(|error| CommandError::Usage(error.to_string()))?
        }
    };
    let task = Task::parse(envelope.payload()).map_err(|error| CommandError::Usage(error.to_string()))?;
    for object in &task.objects {
        let file = files.iter().find(|file| file.object.blake3 == object.blake3);
        let file = file.ok_or_else(|| {
            CommandError::Usage(format!(
                "the signed task needs {}, which is not among the files",
                object.filename
            ))
        })?;
        upload(&remote, file, &args.server).await?;
    }
    let rollback = match &args.rollback {
        Some(back) => Some(signing::rollback(back, &task, &remote).await?.to_metadata()),
        None => None,
    };
    let terms = Terms {
        part: args.part,
        update: if args.soft { crate::ddi::Handling::Attempt } else { crate::ddi::Handling::Forced },
        download_only: args.download_only,
        confirm: args.confirm,
        at_once: args.at_once,
        weight: args.weight,
        load_in_window: args.load_in_window,
        groups: args.groups,
        success: args.success,
        failures: args.failures,
    };
    let request = TaskRequest { envelope: envelope.to_metadata(), terms, rollback };
    let TaskResponse { id } = remote.send(Method::POST, "/tasks", &request).await?;
    match args.wait {
        Some(wait) => follow::until_done(&remote, id, Some(wait), args.server.json).await,
        None => {
            if args.server.json {
                json(&TaskResponse { id })
            } else {
                line(&format!("task {id}"))
            }
            Ok(Exit::Complete)
        }
    }
}

/// The names of tasks that are given by number or by name. What is signed has names: numbers are the server's.
async fn named(remote: &Remote, mut tasks: Vec<String>) -> Result<Vec<String>, CommandError> {
    for task in &mut tasks {
        if let Ok(id) = task.parse::<i64>() {
            *task = earlier(remote, id).await?.name;
        }
    }
    Ok(tasks)
}

/// A task that the server has.
async fn earlier(remote: &Remote, id: i64) -> Result<Task, CommandError> {
    match remote.get::<TaskView>(&format!("/tasks/{id}")).await {
        Ok(view) => Ok(view.task),
        Err(RemoteError::Refused(why)) => {
            Err(CommandError::Usage(format!("task {id}: {why}; 'mcp task list' shows them")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Uploads a file, unless the server has it.
async fn upload(
    remote: &Remote,
    file: &signing::HashedFile,
    options: &ServerOptions,
) -> Result<(), CommandError> {
    let hash = file.object.blake3;
    if remote.get::<ObjectView>(&format!("/objects/{hash}")).await.is_ok() {
        return Ok(());
    }
    if !options.json {
        eprintln!("uploading {} ({} bytes)", file.path.display(), file.object.size);
    }
    let opened = std::fs::File::open(&file.path);
    let opened = opened.map_err(|error| {
        CommandError::Environment(format!("cannot open {} ({error})", file.path.display()))
    })?;
    let _: ObjectView = remote.upload(hash, opened).await?;
    Ok(())
}

fn sign(args: SignArgs) -> Result<(), CommandError> {
    let key = read_key(&args.key)?.ok_or_else(|| {
        CommandError::Usage(format!(
            "there is no key in {}; 'mcp operator key' makes one",
            args.key.display()
        ))
    })?;
    let files = args.task.files.iter().map(|path| signing::hash_file(path)).collect::<Result<Vec<_>, _>>()?;
    // Without the server, the time is a number that grows.
    if let Some(number) = args.task.after.iter().find(|task| task.parse::<i64>().is_ok()) {
        let why = format!("--after {number}: numbers are known at the server only; give the task's name");
        return Err(CommandError::Usage(why));
    }
    let serial = args.task.serial.unwrap_or_else(clock::now);
    let to = signing::audience_offline(&args.task.to)?;
    let task = args.task.build(args.fleet, serial, to, &files)?;
    let envelope = signed(&task, &key)?;
    let written = std::fs::write(&args.output, envelope.to_bytes());
    written.map_err(|error| {
        CommandError::Environment(format!("cannot write {} ({error})", args.output.display()))
    })
}

fn signed(task: &Task, key: &SecretKey) -> Result<Envelope, CommandError> {
    task.sign(&[key]).map_err(|error| CommandError::Usage(error.to_string()))
}

async fn list(server: &ServerOptions, state: Option<&PathBuf>) -> Result<(), CommandError> {
    let tasks: Vec<TaskView> = server.remote(state)?.get("/tasks").await?;
    if server.json {
        json(&tasks);
        return Ok(());
    }
    let heading =
        ["task", "name", "kind", "version", "state", "devices", "expires", "by"].map(String::from).to_vec();
    let now = clock::now();
    let rows = tasks.into_iter().map(|t| {
        let expires = match t.task.expires.checked_sub(now) {
            Some(left) if left > 0 => span(left),
            _ => "expired".into(),
        };
        vec![
            t.id.to_string(),
            t.task.name.clone(),
            t.task.kind.as_str().into(),
            t.task.version.clone(),
            t.state.as_str().into(),
            follow::summary(&t.counts),
            expires,
            t.by,
        ]
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    Ok(())
}

fn show(view: TaskView) {
    let task = &view.task;
    let mut rows = vec![
        vec!["task".into(), format!("{} ({} {})", view.id, task.name, task.serial)],
        vec!["kind".into(), task.kind.as_str().into()],
        vec!["state".into(), view.state.as_str().into()],
        vec!["added".into(), format!("{} by {}", ago(Some(view.created)), view.by)],
        vec!["devices".into(), follow::summary(&view.counts)],
    ];
    let mut optional = |name: &str, value: Option<String>| {
        rows.extend(value.filter(|value| !value.is_empty()).map(|value| vec![name.to_owned(), value]));
    };
    optional("version", Some(task.version.clone()));
    optional("handler", task.handler.clone());
    optional("at", task.at.clone());
    optional("window", task.window.map(|window| window.to_string()));
    optional("when", Some(task.when.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")));
    optional("after", Some(task.after.join(", ")));
    if let Some(rollout) = &view.rollout {
        optional("rollout", Some(follow::standing(rollout, &view.terms)));
        for (at, (name, group)) in view.terms.names().zip(&rollout.groups).enumerate() {
            let (all, done, failed) = (group.devices, group.done, group.failed);
            let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            let text = format!("{} {name}: {}, {done} of {all} done{failed}", at + 1, rollout.state(at));
            optional("group", Some(text));
        }
    }
    optional("rollback", view.rollback.then(|| format!("mcp task rollback {}", view.id)));
    for object in &task.objects {
        optional("file", Some(format!("{} ({} bytes, {})", object.filename, object.size, object.blake3)));
    }
    for session in view.sessions {
        let SessionView { file, expected, complete, streamed, size, wire, over, .. } = session;
        let state = if over { "over".to_owned() } else { format!("{streamed} of {size} bytes streamed") };
        let text =
            format!("{file}: {complete} devices complete ({expected} expected), {wire} bytes sent, {state}");
        optional("multicast", Some(text));
    }
    table(&rows);
    let actions = view.actions.unwrap_or_default();
    if !actions.is_empty() {
        line("");
        let heading = ["device", "state", "attempt", "changed", "message"].map(String::from).to_vec();
        let rows = actions.into_iter().map(|a| {
            let state = match a.progress {
                Some((done, of)) if a.state.is_open() && of > 0 => {
                    format!("{} {done}/{of}", a.state.as_str())
                }
                _ => a.state.as_str().into(),
            };
            vec![a.device, state, a.attempt.to_string(), ago(Some(a.updated)), a.message]
        });
        table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    }
}

/// The last component of a path, as a device sees it.
fn file_name(path: &Path) -> Result<String, CommandError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| CommandError::Usage(format!("{} has no usable name", path.display())))
}
