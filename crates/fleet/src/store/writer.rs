//! The one thread of control that writes. Changes that wait are committed together.

use super::database::{Connection, Pool, begin};
use super::{Change, StoreError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait.
const WAITING: usize = 1024;
/// How long a database may say nothing while changes are committed. PostgreSQL ends a statement sooner, if it is there.
const SILENCE: Duration = Duration::from_secs(15);
/// Changes of one commit.
const TOGETHER: usize = 256;

/// Delivers the result of a change once its commit succeeded or failed.
type Deliver = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job =
    Box<dyn for<'c> FnOnce(&'c mut Connection) -> Pin<Box<dyn Future<Output = Done> + Send + 'c>> + Send>;

struct Done {
    succeeded: bool,
    deliver: Deliver,
}

#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    pool: Pool,
    took: Arc<Took>,
}

/// What changes took, since the start.
#[derive(Debug, Default)]
struct Took {
    changes: AtomicU64,
    micros: AtomicU64,
}

impl Writer {
    /// Starts the writer; `pool` has one connection.
    pub(super) fn start(pool: Pool) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(WAITING);
        let connections = pool.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while queue.recv_many(&mut batch, TOGETHER).await > 0 {
                commit(&connections, batch.drain(..)).await;
            }
        });
        Self { jobs, pool, took: Arc::default() }
    }

    /// Runs `change`, and returns when it is on the disk.
    pub(super) async fn run<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> Change<'c, T> + Send + 'static,
    {
        let began = Instant::now();
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let change = change(connection);
            Box::pin(async move {
                let outcome = change.await;
                let succeeded = outcome.is_ok();
                let deliver: Deliver = Box::new(move |commit| {
                    // Whoever asked may have gone.
                    let _ = answer.send(outcome.and_then(|value| commit.map(|()| value)));
                });
                Done { succeeded, deliver }
            })
        });
        let away = |why: &str| StoreError::Away(why.into());
        let sent = tokio::time::timeout(super::PATIENCE, self.jobs.send(job)).await;
        sent.map_err(|_| away("too many changes wait"))?.map_err(|_| away("it is closed"))?;
        let result = result.await.map_err(|_| away("the change could not begin"))?;
        self.took.changes.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.took.micros.fetch_add(micros, Ordering::Relaxed);
        result
    }

    /// How many changes there were, and how long they took from their request to the disk, all together.
    pub(super) fn took(&self) -> (u64, Duration) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.took.changes), Duration::from_micros(of(&self.took.micros)))
    }

    pub(super) async fn close(&self) {
        // A last change: what was asked for before it is done then.
        let _ = self.run(|_| Box::pin(async { Ok(()) })).await;
        self.pool.close().await;
    }
}

/// Runs the jobs in one transaction, each in a savepoint of its own.
///
/// The statements are written out: a full disk makes SQLite roll back by itself, and a guard that counts transactions would
/// count wrong from then on. For the same reason, a connection on which something failed is not used again.
async fn commit(pool: &Pool, jobs: impl Iterator<Item = Job>) {
    let Ok(mut connection) = pool.acquire().await else { return };
    let mut done = Vec::new();
    let work = async {
        begin(&mut connection).await?;
        for job in jobs {
            sqlx::query("SAVEPOINT change").execute(&mut *connection).await?;
            let one = job(&mut connection).await;
            let undo = !one.succeeded;
            done.push(one.deliver);
            if undo {
                sqlx::query("ROLLBACK TO change").execute(&mut *connection).await?;
            }
            sqlx::query("RELEASE change").execute(&mut *connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await.map(drop)
    };
    let outcome: Result<(), StoreError> = match tokio::time::timeout(SILENCE, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            // It may be rolled back already. Closed before anybody is told: what they ask next has a connection that works.
            let close = async {
                let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
                let _ = connection.close().await;
            };
            let _ = tokio::time::timeout(super::PATIENCE, close).await;
            Err(error.into())
        }
        Err(_) => {
            drop(connection.detach());
            Err(StoreError::Away("it does not answer".into()))
        }
    };
    done.into_iter().for_each(|deliver| deliver(outcome.clone()));
}
