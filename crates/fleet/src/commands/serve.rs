//! `mcp serve`.

use super::{CommandError, Exit, no_state};
use crate::log::LogFormat;
use crate::server::state_dir::new_token;
use crate::server::{BucketUrl, Multicast, OwnCertificate, Running, ServeConfig, clock, start};
use crate::store::{Database, LineKind, NewLine, Store};
use clap::{Args, Subcommand};
use mcp_transfer::limits::DEFAULT_PORT;
use mcp_transfer::net::{AddressKind, Destination};
use mcp_transfer::session::Target;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Arguments of `mcp serve`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ServeArgs {
    #[command(subcommand)]
    command: Option<ServeCommand>,
    /// Address and port to listen on, with TLS
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// Listen here too, without TLS: for clients of the device interface on a trusted network
    #[arg(long, value_name = "ADDR:PORT")]
    listen_plain: Option<SocketAddr>,
    /// Tell what the server counts here, for Prometheus: without TLS, to everybody who reaches it
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Name or address by which devices reach this server, the most usual first [default: the host's name]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Keep devices and tasks in this database of PostgreSQL, postgres://USER@HOST/DATABASE, instead of a file. Others can
    /// read the command line, so a password belongs into ~/.pgpass
    #[arg(long, value_name = "URL")]
    store: Option<Database>,
    /// Share files with other servers of the fleet here: s3://BUCKET/PREFIX, with the AWS_* variables of the environment, or
    /// file:///DIRECTORY
    #[arg(long, value_name = "URL")]
    objects: Option<BucketUrl>,
    /// Your own certificate chain (PEM) instead of one made here
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key to it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How often devices check in
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = poll_time)]
    poll: Duration,
    /// At most this many bytes a second for all downloads, such as 20M
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    http_rate: Option<u64>,
    /// Downloads at once; agents beyond that are told to come later
    #[arg(long, value_name = "N", default_value_t = 64)]
    downloads: usize,
    /// Where agents may get files instead: a URL with '/' at its end, below which 'mcp mirror export' wrote them
    #[arg(long = "mirror", value_name = "URL", value_parser = mirror_url)]
    mirrors: Vec<String>,
    /// Send devices for files to others of their segment that offer them ('mcp agent run --serve-neighbours')
    #[arg(long)]
    neighbours: bool,
    /// Send nothing by multicast: each device loads by itself
    #[arg(long)]
    no_multicast: bool,
    /// Multicast group of the sessions [default: that of 'mcp send']
    #[arg(long, value_name = "GROUP[:PORT]", conflicts_with = "no_multicast", value_parser = group)]
    group: Option<Destination>,
    /// Interface for multicast, by its name or one of its addresses [default: chosen by routing]
    #[arg(long, value_name = "IF", conflicts_with = "no_multicast")]
    interface: Option<String>,
    /// Send at most this many bits a second by multicast, such as 600M [default: what the line carries]
    #[arg(long, value_name = "BITS", conflicts_with = "no_multicast", value_parser = bytes)]
    rate: Option<u64>,
    /// Address of a proxy that is believed about client, protocol and host
    #[arg(long = "trust-proxy", value_name = "ADDR")]
    trusted_proxies: Vec<IpAddr>,
    /// How to log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) log: LogFormat,
    /// Issuer of client certificates, as the proxy names it in X-Authority
    #[arg(long = "authority", value_name = "HASH", requires = "trusted_proxies")]
    authorities: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum ServeCommand {
    /// Copy the database while the server runs; copy the other files of the directory beside it
    Backup {
        /// The copy; must not exist
        file: PathBuf,
    },
}

fn poll_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = crate::limits::MIN_SLEEP..=crate::limits::MAX_SLEEP;
    if allowed.contains(&time) { Ok(time) } else { Err("from 1s to a second below 24h".into()) }
}

fn group(text: &str) -> Result<Destination, String> {
    let group = Destination::parse(text, DEFAULT_PORT).map_err(|error| error.to_string())?;
    if group.kind == AddressKind::Multicast { Ok(group) } else { Err("expected a multicast group".into()) }
}

/// Checks a mirror's URL; it travels in a list that blanks separate.
fn mirror_url(text: &str) -> Result<String, String> {
    let web = text.starts_with("https://") || text.starts_with("http://");
    let fits = text.len() <= crate::limits::MAX_URL && text.bytes().all(|b| b.is_ascii_graphic());
    if web && fits && text.ends_with('/') {
        Ok(text.into())
    } else {
        Err("expected http(s)://HOST/PATH/".into())
    }
}

/// Reads `20M` as 20,000,000.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.trim().split_at_checked(text.trim().len().saturating_sub(1)) {
        Some((digits, "k" | "K")) => (digits, 1_000),
        Some((digits, "M")) => (digits, 1_000_000),
        Some((digits, "G")) => (digits, 1_000_000_000),
        _ => (text.trim(), 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    number.ok_or_else(|| "expected a number, such as 500k, 20M or 1G".into())
}

/// The server's directory below the state directory.
pub(super) fn dir(state: &Path) -> PathBuf {
    state.join("serve")
}

pub(super) async fn run(args: ServeArgs, state: Option<&PathBuf>) -> Result<Exit, CommandError> {
    let dir = dir(state.ok_or_else(no_state)?);
    if let Some(ServeCommand::Backup { file }) = args.command {
        Store::backup(&dir.join("fleet.db"), &file).await.map_err(crate::server::ServeError::from)?;
        return Ok(Exit::Complete);
    }
    if args.mirrors.len() > 8 {
        return Err(CommandError::Usage("at most 8 mirrors".into()));
    }
    let names = if args.names.is_empty() { vec![host_name(args.listen.ip())] } else { args.names };
    let target = args.group.map_or_else(Target::default, Target::At);
    let multicast = Multicast { target, interface: args.interface, rate: args.rate };
    let multicast = Some(multicast).filter(|_| !args.no_multicast);
    let config = ServeConfig {
        database: args.store.unwrap_or_else(|| Database::File(dir.join("fleet.db"))),
        bucket: args.objects,
        dir,
        listen: args.listen,
        listen_plain: args.listen_plain,
        listen_metrics: args.metrics_listen,
        names,
        certificate: args.tls_cert.zip(args.tls_key).map(|(chain, key)| OwnCertificate { chain, key }),
        poll: args.poll,
        http_rate: args.http_rate,
        downloads: args.downloads,
        stock_downloads: args.downloads,
        mirrors: args.mirrors,
        neighbours: args.neighbours,
        multicast,
        trusted_proxies: args.trusted_proxies,
        authorities: args.authorities,
    };
    let failed =
        |error: std::io::Error| CommandError::Environment(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    raise_open_files();
    let running = start(config).await?;
    greet(&running).await?;
    let exit = tokio::select! {
        _ = terminate.recv() => Exit::Complete,
        _ = interrupt.recv() => Exit::Interrupted,
    };
    running.shut_down().await;
    Ok(exit)
}

/// Says where the server listens, and prints an enrolment line for a day. No journal gets one: it holds a token.
async fn greet(running: &Running) -> Result<(), CommandError> {
    info!(address = %running.address, url = running.reach.url, "listening on {} as {}", running.address, running.reach.url);
    if let Some(plain) = running.plain {
        warn!(
            address = %plain,
            "listening on {plain} WITHOUT encryption: tokens and files can be read and changed there"
        );
    }
    if journal_takes_output() {
        info!("'mcp enrol new' prints a line with which devices enrol");
        return Ok(());
    }
    const DAY: u64 = 24 * 3600;
    let (token, now) = (new_token()?, clock::now());
    let Some(line) = running.line(&token) else {
        warn!("no enrolment line can say this server's name; give another with --name");
        return Ok(());
    };
    let new = NewLine {
        kind: LineKind::Line,
        label: "printed at the start".into(),
        token: blake3::hash(token.as_bytes()),
        uses: None,
        expires: now + DAY,
        tags: Vec::new(),
        accepts: false,
        by: "server".into(),
    };
    running.store().add_line(new, now).await.map_err(crate::server::ServeError::from)?;
    info!("for 24 hours, devices enrol with the following line, and wait for 'mcp device accept':");
    println!("{}", *line);
    Ok(())
}

/// Whether what this process prints goes to the system's journal, which keeps it and shows it to others.
fn journal_takes_output() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stdout())
        .is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

fn host_name(listen: IpAddr) -> String {
    if !listen.is_unspecified() {
        return listen.to_string();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !name.is_empty() && name.chars().all(plain) { name } else { "localhost".into() }
}

/// Each connection is a file. What the system allows is used; if it is little, fewer connections are accepted.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_as_people_write_them() {
        assert_eq!(bytes("20M"), Ok(20_000_000));
        assert_eq!(bytes("500k"), Ok(500_000));
        assert_eq!(bytes("7"), Ok(7));
        for wrong in ["", "M", "0", "-1", "1.5M", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(poll_time("5m"), Ok(Duration::from_secs(300)));
        assert!(poll_time("24h").is_err() && poll_time("0s").is_err());
    }
}
