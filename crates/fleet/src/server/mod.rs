//! `mcp serve`: the HTTP side of the standing half.
//!
//! | part | contents |
//! |---|---|
//! | `ddi` | the device interface, version 1: polls, deployments, feedback, artifacts |
//! | `ours` | what it lacks: enrolment, roots, signed lists and tasks, objects by their hash |
//! | `manage` | the operators' interface, with signed requests |
//! | `page`, `metrics` | the page for browsers; counts for Prometheus |
//! | `requests` | counts and logs each request |
//! | `deciding` | what a device is offered now |
//! | `campaign` | multicast sessions for tasks of many devices |
//! | `auth`, `failures` | which device asks; what becomes of those who cannot say |
//! | `neighbours` | which devices serve others |
//! | `download` | ranges of objects |
//! | `hooks` | sends what happens to tasks to web hooks |
//! | `bucket` | where several servers share objects |
//! | `listen`, `tls`, `rate` | connections, certificate, bounds |
//! | `state_dir`, `clock`, `error` | files beside the database; the time; errors as answers |
//!
//! A multicast session runs on threads of its own: no request and no database holds it up.

mod auth;
mod bucket;
mod campaign;
pub mod clock;
mod ddi;
mod deciding;
pub(crate) mod download;
pub(crate) mod error;
mod failures;
mod hooks;
pub(crate) mod listen;
mod manage;
mod metrics;
mod neighbours;
mod ours;
mod page;
mod rate;
mod requests;
pub mod state_dir;
pub(crate) mod tls;

#[cfg(test)]
mod tests;

pub use bucket::{BucketError, BucketUrl};
pub use campaign::{Multicast, SessionView};
pub use manage::{
    AcceptRequest, ChangeResponse, DeviceView, EnrolmentRequest, EnrolmentResponse, HookRequest,
    HookResponse, LinkResponse, ObjectView, OperatorRequest, RequestPayload, SerialView, TagRequest,
    TaskRequest, TaskResponse, TaskView, TokenResponse,
};
pub use tls::{OwnCertificate, TlsError};

use crate::documents::{DocumentError, Enrolment, Envelope, FleetId, Hash, Role, Root, SecretKey};
use crate::limits::{DEVICE_RATE, MAX_COUNTED_DEVICES};
use crate::lock::Lock;
use crate::objects::{ObjectError, Objects};
use crate::store::{Database, Operator, OperatorRole, Store, StoreError};
use bucket::Bucket;
use campaign::Campaigns;
use download::Downloads;
use failures::Failures;
use neighbours::Neighbours;
use rate::{Beyond, Buckets};
use state_dir::{Address, StateError};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use zeroize::Zeroizing;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The server's directory (`STATE/serve`).
    pub dir: PathBuf,
    /// Where devices and tasks are kept.
    pub database: Database,
    /// Where several servers share objects.
    pub bucket: Option<BucketUrl>,
    /// Where it listens with TLS.
    pub listen: SocketAddr,
    /// Where it listens without.
    pub listen_plain: Option<SocketAddr>,
    /// Where it tells what it counts, without TLS and to everybody.
    pub listen_metrics: Option<SocketAddr>,
    /// Names and addresses in the certificate. Devices are told the first.
    pub names: Vec<String>,
    /// The user's certificate instead of one of its own.
    pub certificate: Option<OwnCertificate>,
    /// How often devices are to poll.
    pub poll: Duration,
    /// Bound on the bytes per second of all downloads.
    pub http_rate: Option<u64>,
    /// Downloads of our agents at once; further ones are told to come later.
    pub downloads: usize,
    /// Downloads of other clients at once; beyond, offers are left out.
    pub stock_downloads: usize,
    /// Where our agents may get objects instead: URLs below which `mcp mirror export` wrote them, with `/` at their end.
    pub mirrors: Vec<String>,
    /// Whether devices that offer it serve others of their segment.
    pub neighbours: bool,
    /// How objects are sent to many devices at once; `None`: each device loads them by itself.
    pub multicast: Option<Multicast>,
    /// Proxies that are believed about the device, the protocol and the host of a request.
    pub trusted_proxies: Vec<IpAddr>,
    /// Issuers of client certificates, as the proxy names them, whose devices are believed.
    pub authorities: Vec<String>,
}

impl ServeConfig {
    /// A server of the directory `dir` that listens at `listen` with a certificate of its own for that address, without
    /// any bound on its rate.
    #[must_use]
    pub fn new(dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            database: Database::File(dir.join("fleet.db")),
            bucket: None,
            dir,
            listen,
            listen_plain: None,
            listen_metrics: None,
            names: vec![listen.ip().to_string()],
            certificate: None,
            poll: Duration::from_secs(300),
            http_rate: None,
            downloads: 64,
            stock_downloads: 64,
            mirrors: Vec::new(),
            neighbours: false,
            multicast: None,
            trusted_proxies: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory of objects.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// Where several servers share objects.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A file of the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A root that is kept here.
    #[error("root: {0}")]
    Root(#[from] DocumentError),
    /// The address cannot be had.
    #[error("cannot listen on {address} ({source}); choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The database is that of a fleet whose devices take no lists from this server.
    #[error(
        "{} is not the key of the fleet in the database; copy the files *.key and tls.* of {} from a server of the fleet", .0.join("lists.key").display(), .0.display()
    )]
    Stranger(PathBuf),
    /// Another server uses the directory.
    #[error("another 'mcp serve' uses {}; stop it, or set MCP_STATE_DIR", .0.display())]
    Busy(PathBuf),
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    app: App,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Where it listens with TLS.
    pub address: SocketAddr,
    /// Where it listens without.
    pub plain: Option<SocketAddr>,
    /// Where it tells what it counts.
    pub metrics: Option<SocketAddr>,
    /// How its clients reach and know it.
    pub reach: Address,
    _lock: Lock,
}

/// What all handlers share.
pub(crate) type App = Arc<Shared>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) objects: Arc<Objects>,
    bucket: Option<Bucket>,
    pub(crate) config: ServeConfig,
    /// What tells this server from others that use the same database.
    pub(crate) name: String,
    pub(crate) fleet: FleetId,
    pub(crate) root_hash: Hash,
    pub(crate) reach: Address,
    lists: SecretKey,
    requests: Buckets<String>,
    failures: Failures,
    pub(crate) downloads: Arc<Downloads>,
    neighbours: Neighbours,
    /// Devices heard of since they were last noted.
    seen: Mutex<HashMap<String, (u64, String)>>,
    campaigns: Campaigns,
    live: page::Live,
    metrics: metrics::Metrics,
}

/// How long the first root is valid: the operator renews it with `mcp operator`.
const ROOT_VALIDITY: u64 = 10 * 365 * 24 * 3600;

/// Starts a server.
///
/// # Errors
///
/// If another server uses the directory, a file or the database cannot be used, or an address cannot be had.
pub async fn start(config: ServeConfig) -> Result<Running, ServeError> {
    state_dir::make_dir(&config.dir)?;
    let lock = lock(&config.dir)?;
    let tls = tls::server_tls(&config.dir, &config.names, config.certificate.as_ref())?;
    let store = Store::open(&config.database).await?;
    let objects = Arc::new(Objects::open(&config.dir.join("objects"))?);
    let bucket = config.bucket.clone().map(Bucket::open).transpose()?;
    let lists = state_dir::own_key(&config.dir.join("lists.key"))?;
    let (fleet, root_hash) = first_root(&store, &config.dir, &lists).await?;

    let bind = |address| {
        let bound = listen::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        bound.map_err(|source| ServeError::Listen { address, source })
    };
    let (address, secure) = bind(config.listen)?;
    let plain = match config.listen_plain {
        Some(address) => Some(bind(address)?),
        None => None,
    };
    let counts = config.listen_metrics.map(bind).transpose()?;
    let host = config.names.first().cloned().unwrap_or_else(|| address.ip().to_string());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let reach = Address { url: format!("https://{host}:{}", address.port()), pin: tls.pin, fleet };
    let text = serde_json::to_vec_pretty(&reach).unwrap_or_default();
    state_dir::write_private(&config.dir.join("address.json"), &text)?;

    let (stop, stopped) = watch::channel(false);
    let app: App = Arc::new(Shared {
        // They are authenticated, so there are no more of them than there are devices.
        requests: Buckets::new(DEVICE_RATE.0, DEVICE_RATE.1, MAX_COUNTED_DEVICES, Beyond::Serve),
        failures: Failures::new(),
        downloads: Downloads::new(Arc::clone(&objects), config.http_rate, config.downloads),
        neighbours: Neighbours::default(),
        seen: Mutex::default(),
        campaigns: Campaigns::new(config.multicast.as_ref()),
        live: page::Live::new(stopped.clone()),
        metrics: metrics::Metrics::default(),
        reach: reach.clone(),
        store,
        objects,
        bucket,
        name: name(&config.dir),
        config,
        fleet,
        root_hash,
        lists,
    });
    let router = axum::Router::new()
        .merge(ddi::routes())
        .merge(page::routes())
        .nest("/mcp/v1", ours::routes().nest("/manage", manage::routes()))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), requests::note))
        .with_state(Arc::clone(&app));
    app.take_up_own_sessions().await?;
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config);
    let bounds = listen::Bounds::default();
    let mut tasks =
        vec![tokio::spawn(listen::serve(secure, Some(acceptor), router.clone(), bounds, stopped.clone()))];
    let plain = plain.map(|(address, listener)| {
        tasks.push(tokio::spawn(listen::serve(listener, None, router, bounds, stopped.clone())));
        address
    });
    let counts = counts.map(|(address, listener)| {
        let router = metrics::routes().with_state(Arc::clone(&app));
        tasks.push(tokio::spawn(listen::serve(listener, None, router, bounds, stopped.clone())));
        address
    });
    tasks.push(tokio::spawn(page::produce(Arc::clone(&app))));
    tasks.push(tokio::spawn(bucket::keep_up(Arc::clone(&app), stopped.clone())));
    tasks.push(tokio::spawn(hooks::tell(Arc::clone(&app), stopped.clone())));
    tasks.push(tokio::spawn(housekeeping(Arc::clone(&app), stopped)));
    Ok(Running { app, stop, tasks, address, plain, metrics: counts, reach, _lock: lock })
}

impl Running {
    /// An enrolment line with this token.
    #[must_use]
    pub fn line(&self, token: &Zeroizing<String>) -> Option<Zeroizing<String>> {
        self.app.line(token)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.app.store
    }

    /// Takes no further requests, completes those under way, and closes the database.
    pub async fn shut_down(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        self.app.campaigns.stop();
        // If the database is away, others notice by themselves.
        let _ = self.app.store.release_sessions(&self.app.name).await;
        self.app.note_seen().await;
        self.app.store.close().await;
    }
}

impl Shared {
    fn line(&self, token: &Zeroizing<String>) -> Option<Zeroizing<String>> {
        let Address { url, pin, fleet } = self.reach.clone();
        Enrolment { fleet, pin, root: self.root_hash, token: token.clone(), url }.line()
    }

    /// Devices that were heard last before this time are silent: they have missed two polls.
    fn silent_before(&self) -> u64 {
        clock::now().saturating_sub(self.config.poll.as_secs() * 2 + 30)
    }

    /// Writes down who was heard since the last time.
    async fn note_seen(&self) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !seen.is_empty() {
            let seen = seen.into_iter().map(|(id, (at, address))| (id, at, address)).collect();
            // If the database is away, the next poll notes it again.
            let _ = self.store.seen(seen).await;
        }
    }
}

/// What is done now and then: gives tasks to further groups, notes who was heard, ends what expired.
async fn housekeeping(app: App, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    let mut often = tokio::time::interval(Duration::from_secs(1));
    let (mut away, mut seen) = (false, None);
    loop {
        tokio::select! {
            () = listen::stopped(&mut stop) => return,
            _ = every.tick() => {}
            _ = often.tick() => {
                // If the database is away, the next look notes it.
                let _ = app.watch_sessions().await;
                // It counts devices, so only if anything has changed.
                let changes = app.store.changes().0;
                if seen != Some(changes) && app.store.roll_out(clock::now()).await.is_ok() {
                    seen = Some(changes);
                }
                continue;
            }
        }
        app.note_seen().await;
        // If the database is away, the next look notes it.
        let _ = app.look_after_sessions().await;
        let now = clock::now();
        // Other servers may have changed something.
        seen = None;
        match app.store.expire(now).await {
            Ok(missed) => {
                if std::mem::take(&mut away) {
                    info!("the database is back");
                }
                for (hook, events) in missed {
                    warn!(
                        hook,
                        events, "web hook {hook} missed {events} events: it has not taken any for too long"
                    );
                    app.metrics.hook_missed(events);
                }
            }
            Err(error) if !away => {
                warn!(%error, "{error}; devices are told to come later");
                away = true;
            }
            Err(_) => {}
        }
    }
}

/// The host, and the directory, which one server uses at a time.
fn name(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), dir.display())
}

/// Makes sure that only one server uses the directory.
fn lock(dir: &Path) -> Result<Lock, ServeError> {
    let path = dir.join("lock");
    let lock = Lock::take(&path).map_err(|source| StateError::File { doing: "lock", path, source })?;
    lock.ok_or_else(|| ServeError::Busy(dir.to_owned()))
}

/// The fleet, and the hash of its first root. At the first start they are made, with the first operator.
async fn first_root(store: &Store, dir: &Path, lists: &SecretKey) -> Result<(FleetId, Hash), ServeError> {
    if let Some(bytes) = store.root(1).await? {
        let envelope = Envelope::parse(&bytes)?;
        let newest = store.root(store.newest_root().await?).await?.unwrap_or(bytes);
        if !Root::parse(Envelope::parse(&newest)?.payload())?.lists.keys.contains(&lists.public()) {
            return Err(ServeError::Stranger(dir.to_owned()));
        }
        return Ok((Root::parse(envelope.payload())?.fleet, envelope.hash()));
    }
    let root_key = state_dir::own_key(&dir.join("root.key"))?;
    let operator = state_dir::own_key(&dir.join("operator.key"))?;
    let fleet = FleetId(*state_dir::random::<16>()?);
    let now = clock::now();
    let roles = [&root_key, &operator, lists].map(|key| Role::of(key.public()));
    let envelope = Root::new((fleet, 1), (now, now + ROOT_VALIDITY), roles).sign(&[&root_key])?;
    let first = Operator {
        name: "first".into(),
        public_key: operator.public().to_string(),
        role: OperatorRole::Admin,
        created: now,
    };
    // The root last: while it is missing, all of this is done again.
    store.put_operator(first).await?;
    store.add_root(1, envelope.to_bytes()).await?;
    Ok((fleet, envelope.hash()))
}
