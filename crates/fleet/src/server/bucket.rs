//! Where the servers of a fleet share their objects: a bucket of S3, or a directory. Each server serves copies of its own,
//! and fetches those that it lacks while their tasks are live.
//!
//! The names are those of `mcp mirror export`: `objects/HASH`, and `objects/HASH.hashes`. So a bucket that can be read by
//! everybody is a mirror.

use super::error::{ApiError, ApiResult};
use super::{App, listen};
use crate::objects::{ObjectError, Objects};
use crate::store::StoreError;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, RetryConfig};
use reqwest::Url;
use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tracing::warn;

/// How often a server looks for objects that it lacks.
const AGAIN: Duration = Duration::from_secs(1);
/// How often, and for how long, a request to the bucket is tried again. Then whoever asked is told, and may ask again.
const RETRIES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a part, at least; S3 allows 10,000 parts.
const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 9_000;

/// Where a bucket is: `s3://BUCKET/PREFIX` or `file:///DIRECTORY`.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketUrl(Url);

impl FromStr for BucketUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = "expected s3://BUCKET/PREFIX or file:///DIRECTORY";
        let url = Url::parse(text).map_err(|_| why)?;
        let known = matches!(url.scheme(), "s3" if url.has_host()) || url.scheme() == "file";
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if known && plain { Ok(Self(url)) } else { Err(why) }
    }
}

impl fmt::Debug for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Why an object is not put into a bucket, or fetched from it: a lowercase clause with the next step.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The bucket.
    #[error("{url}: {source}; check the bucket, and the AWS_* variables of the server")]
    Away {
        /// The bucket.
        url: Box<str>,
        /// Its error.
        source: Box<object_store::Error>,
    },
    /// The server's own copy.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BucketError {
    fn away(url: &Url, error: object_store::Error) -> Self {
        Self::Away { url: url.as_str().into(), source: error.into() }
    }
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    url: Url,
    store: Arc<dyn ObjectStore>,
    below: Path,
}

impl Bucket {
    /// Opens a bucket. How to reach S3 is in the environment, in the variables that other programs use too:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`.
    pub(super) fn open(BucketUrl(url): BucketUrl) -> Result<Self, BucketError> {
        // It is there already if something else needed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let opened = || -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
            let below = Path::from_url_path(url.path())?;
            if url.scheme() == "file" {
                return Ok((Arc::new(LocalFileSystem::new()), below));
            }
            let retry =
                RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
            let s3 = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
            Ok((Arc::new(s3.build()?), below))
        };
        match opened() {
            Ok((store, below)) => Ok(Self { url, store, below }),
            Err(error) => Err(BucketError::away(&url, error)),
        }
    }

    fn at(&self, hash: &blake3::Hash, suffix: &str) -> Path {
        self.below.clone().join("objects").join(format!("{hash}{suffix}"))
    }

    fn away(&self) -> impl Fn(object_store::Error) -> BucketError {
        |error| BucketError::away(&self.url, error)
    }

    /// Puts an object into the bucket that this server has, unless it is there.
    pub(super) async fn put(&self, objects: &Arc<Objects>, hash: blake3::Hash) -> Result<(), BucketError> {
        let at = self.at(&hash, "");
        match self.store.head(&at).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.away()(error)),
        }
        let local = Arc::clone(objects);
        let opened = move || Ok::<_, ObjectError>((local.block_values(&hash)?, local.open_object(&hash)?));
        let opened = tokio::task::spawn_blocking(opened).await;
        let (values, (file, size)) = opened.map_err(|_| ObjectError::Missing(hash))??;
        // The chaining values first: where the object is, they are.
        self.store.put(&self.at(&hash, ".hashes"), values.into()).await.map_err(self.away())?;
        let part = usize::try_from(PART.max(size / MOST_PARTS)).unwrap_or(usize::MAX);
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.store), at, part).with_max_concurrency(2);
        let mut file = tokio::fs::File::from_std(file);
        let copied = async {
            tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(256 * 1024, &mut file), &mut writer)
                .await?;
            writer.shutdown().await
        };
        if let Err(error) = copied.await {
            // What was sent of it costs nothing then. It may not be reached for this either.
            let _ = writer.abort().await;
            let source = object_store::Error::Generic { store: "bucket", source: error.into() };
            return Err(self.away()(source));
        }
        Ok(())
    }

    /// Fetches an object, and checks it.
    async fn fetch(&self, objects: &Arc<Objects>, hash: blake3::Hash) -> Result<(), BucketError> {
        let found = self.store.get(&self.at(&hash, "")).await.map_err(self.away())?;
        let mut stream = found.into_stream();
        let (pieces, mut queue) = mpsc::channel::<axum::body::Bytes>(4);
        let local = Arc::clone(objects);
        let import = tokio::task::spawn_blocking(move || {
            let mut import = local.import()?;
            while let Some(piece) = queue.blocking_recv() {
                import.write(&piece)?;
            }
            import.finish(Some(hash))
        });
        let mut failed = None;
        while let Some(piece) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
            match piece {
                Ok(piece) => {
                    if pieces.send(piece).await.is_err() {
                        // The import failed, and says why.
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(self.away()(error));
                    break;
                }
            }
        }
        drop(pieces);
        // What came of a stream that broke has another hash: nothing of it is kept.
        let imported = import.await.map_err(|_| ObjectError::Missing(hash))?;
        failed.map_or_else(|| imported.map(drop).map_err(BucketError::from), Err)
    }
}

/// Fetches the objects of live tasks that this server lacks, and puts those into the bucket that only this server has, until
/// it is stopped.
pub(super) async fn keep_up(app: App, mut stop: watch::Receiver<bool>) {
    let Some(bucket) = &app.bucket else { return };
    let (mut shared, mut failed) = (HashSet::new(), None);
    loop {
        tokio::select! {
            () = listen::stopped(&mut stop) => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
        let done = tokio::select! {
            () = listen::stopped(&mut stop) => return,
            done = app.share_objects(bucket, &mut shared) => done,
        };
        let error = done.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|error| failed.as_ref() != Some(*error)) {
            warn!(%error, "{error}; devices are told to come later");
        }
        failed = error;
    }
}

impl super::Shared {
    /// `shared` are the objects that are here and in the bucket. One that fails does not hold up the others.
    async fn share_objects(
        &self,
        bucket: &Bucket,
        shared: &mut HashSet<blake3::Hash>,
    ) -> Result<(), BucketError> {
        let mut outcome = Ok(());
        for hash in self.store.wanted_objects(super::clock::now()).await? {
            let here = self.objects.contains(&hash);
            let done = match (here, shared.contains(&hash)) {
                (true, true) => continue,
                (true, false) => bucket.put(&self.objects, hash).await,
                // It has been here, or has not.
                (false, _) => bucket.fetch(&self.objects, hash).await,
            };
            match done {
                Ok(()) => drop(shared.insert(hash)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Whether an object will be here soon: this server has yet to fetch it.
    pub(super) fn is_under_way(&self, hash: &blake3::Hash) -> bool {
        self.bucket.is_some() && !self.objects.contains(hash)
    }

    /// Tells a device to come later for an object that is under way.
    pub(super) fn here_or_later(&self, hash: &blake3::Hash) -> ApiResult<()> {
        if self.is_under_way(hash) { Err(ApiError::later(5)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_server_puts_another_one_fetches_and_checks() {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = |name: &str| Arc::new(Objects::open(&dir.path().join(name)).expect("opened"));
        let (one, two) = (objects("one"), objects("two"));
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).expect("made");
        let url = format!("file://{}/fleet", shared.display());
        let bucket = Bucket::open(url.parse().expect("a URL")).expect("opened");
        let bytes = vec![7; 3 << 20];
        let hash = one.import_from(&bytes[..], None).expect("imported").blake3;
        assert!(bucket.fetch(&two, hash).await.is_err(), "it is not there yet");
        for _ in 0..2 {
            bucket.put(&one, hash).await.expect("put");
        }
        bucket.fetch(&two, hash).await.expect("fetched");
        assert_eq!(std::fs::read(two.path(&hash)).expect("read"), bytes);
        assert_eq!(two.block_values(&hash).expect("read"), one.block_values(&hash).expect("read"));
        // As mirrors have it.
        let file = shared.join(format!("fleet/objects/{hash}"));
        assert_eq!(
            std::fs::read(file.with_extension("hashes")).expect("read"),
            one.block_values(&hash).expect("read")
        );
        // One that was changed there is not taken.
        std::fs::write(&file, &bytes[1..]).expect("written");
        let three = objects("three");
        let refused = bucket.fetch(&three, hash).await;
        assert!(matches!(refused, Err(BucketError::Objects(ObjectError::Differs { .. }))), "{refused:?}");
        assert!(!three.contains(&hash));
    }

    #[test]
    fn a_bucket_is_of_s3_or_a_directory() {
        for good in ["s3://fleet", "s3://fleet/a/b", "file:///srv/objects"] {
            assert!(good.parse::<BucketUrl>().is_ok(), "{good}");
        }
        for bad in ["fleet", "s3://", "s3://key:secret@fleet", "https://fleet/", "s3://fleet?x=1", ""] {
            assert!(bad.parse::<BucketUrl>().is_err(), "{bad}");
        }
    }
}
