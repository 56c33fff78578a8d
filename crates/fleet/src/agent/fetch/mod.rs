//! Loads an object: from mirrors and the server, block by block, into a part file that holds only verified blocks.
//!
//! Neighbours that the server names are tried first, then mirrors in their order, then the server. Whoever fails is left alone for a while that doubles; whoever gives wrong bytes
//! is not asked again for this object, and the report names it. A part file from before, and an earlier version of the file, give the blocks
//! that they have.
//!
//! Without chaining values (a server that is not ours), an object of more than one block is checked as a whole at its end.

mod blocks;
mod near;
mod source;
#[cfg(test)]
mod tests;
mod whole;

#[cfg(test)]
pub(crate) use blocks::list_of;
pub(crate) use blocks::{BLOCK, Blocks};
pub(crate) use source::{Pace, Problem, retry_after};
pub(crate) use whole::{Digests, is_object};

use super::api::Api;
use super::net::Net;
use crate::documents::Hash;
use crate::lacking::{Lacking, told, whole};
use crate::limits::{MAX_SOURCE_PAUSE, MAX_VALUES};
use reqwest::Url;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is to be loaded.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// In bytes.
    pub size: u64,
    /// What it is checked by.
    pub digests: Digests,
    /// Where it is to be had: mirrors first, in their order.
    pub sources: Vec<Url>,
    /// Who names neighbours that have it, which come before all of these.
    pub near: Option<Api>,
    /// Where its list of chaining values is to be had, if anywhere. Any list that merges to the hash is right.
    pub values: Vec<Url>,
    /// What is expected of a source.
    pub pace: Pace,
}

/// What a source did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceReport {
    /// The source.
    pub url: Url,
    /// Bytes that it gave and that were kept.
    pub bytes: u64,
    /// What was wrong with it last.
    pub problem: Option<Problem>,
}

/// How a load went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The sources in their order.
    pub sources: Vec<SourceReport>,
    /// How many of these, at the beginning, are neighbours.
    pub neighbours: usize,
    /// Bytes that a part file had from before.
    pub resumed: u64,
    /// Bytes that an earlier version of the file had.
    pub reused: u64,
}

impl Report {
    /// One clause for each source that did not do well, and for what was there already.
    pub(crate) fn details(&self) -> Vec<String> {
        let problems = self.sources.iter().filter_map(|source| {
            let problem = source.problem.as_ref()?;
            let lied = if problem.is_lie() { "lied: it " } else { "" };
            // Without query: it may hold a signature that gives access.
            let mut url = source.url.clone();
            url.set_query(None);
            let _ = (url.set_username(""), url.set_password(None));
            Some(format!("{url} {lied}{problem}"))
        });
        let from = |bytes: u64, what: &str| (bytes > 0).then(|| format!("{bytes} bytes from {what}"));
        let near = self.sources.iter().take(self.neighbours).map(|source| source.bytes).sum();
        let counts = [
            from(self.resumed, "a part file"),
            from(self.reused, "the earlier version"),
            from(near, "neighbours"),
        ];
        problems.chain(counts.into_iter().flatten()).collect()
    }
}

/// Why an object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Every source lied, or there is none.
    #[error("no source is left that has the right bytes")]
    NoSource(Report),
    /// The disk failed.
    #[error("cannot keep what was loaded ({0}); free or repair the disk")]
    Disk(#[from] io::Error),
}

/// A source, and when to ask it again.
struct Candidate {
    net: Net,
    pace: Pace,
    report: SourceReport,
    failures: u32,
    rest: Option<Instant>,
}

/// Loads `wanted` into `part`, and syncs it. `earlier` is an earlier version of the file. `progress` is called with the bytes that are
/// there. Dropping the future ends the load; the verified blocks stay in the part file.
///
/// Goes on until it is done: a source that cannot be reached may come back. The caller ends it when the task ends.
///
/// # Errors
/// If all sources lied, or the disk fails.
pub(crate) async fn fetch(
    net: &Net,
    wanted: &Wanted,
    part: File,
    earlier: Option<File>,
    progress: impl Fn(u64),
) -> Result<Report, FetchError> {
    let mut load = Load {
        wanted,
        part: Arc::new(part),
        progress,
        resumed: 0,
        reused: 0,
        candidates: wanted
            .sources
            .iter()
            .map(|url| Candidate::new(net.clone(), wanted.pace, url.clone()))
            .collect(),
        neighbours: 0,
    };
    let blocks = match wanted.digests.blake3 {
        Some(root) => blocks_of(net, wanted, root).await,
        None => None,
    };
    match blocks {
        Some(blocks) => load.by_blocks(blocks, earlier).await?,
        None => load.as_whole().await?,
    }
    let part = Arc::clone(&load.part);
    blocking(move || part.sync_all()).await?;
    Ok(load.report())
}

/// What a part file lacks of `wanted`; `None` if nobody gives the values that its blocks are checked by.
///
/// # Errors
/// If the disk fails.
pub(crate) async fn missing(net: &Net, wanted: &Wanted, part: File) -> io::Result<Option<Lacking>> {
    let Some(root) = wanted.digests.blake3 else { return Ok(None) };
    if part.metadata()?.len() == 0 {
        return Ok(Some(whole(wanted.size)));
    }
    let Some(blocks) = blocks_of(net, wanted, root).await else { return Ok(None) };
    let (blocks, ..) = blocking(move || local(blocks, &part, None)).await?;
    let lacks = (0..blocks.count()).filter(|index| !blocks.has(*index)).map(|index| blocks.range(index));
    Ok(Some(told(lacks.map(|range| [range.start, range.end]))))
}

/// The blocks of an object, if their values are to be had.
async fn blocks_of(net: &Net, wanted: &Wanted, root: Hash) -> Option<Blocks> {
    let size = wanted.size;
    if size <= BLOCK {
        return Blocks::single(size, root);
    }
    for url in &wanted.values {
        if let Some(blocks) = list(net, url, wanted).await.and_then(|list| Blocks::new(size, root, &list)) {
            return Some(blocks);
        }
    }
    None
}

/// The list of values at `url`.
async fn list(net: &Net, url: &Url, wanted: &Wanted) -> Option<Vec<u8>> {
    let len = Blocks::list_len(wanted.size);
    if len > MAX_VALUES {
        return None;
    }
    let mut body = source::open(net, url, 0..len, len, wanted.pace).await.ok()?;
    let mut list = Vec::new();
    while let Some(bytes) = body.next().await.ok()? {
        list.extend_from_slice(&bytes);
    }
    Some(list)
}

struct Load<'a, P> {
    wanted: &'a Wanted,
    part: Arc<File>,
    progress: P,
    resumed: u64,
    reused: u64,
    candidates: Vec<Candidate>,
    neighbours: usize,
}

impl<P: Fn(u64)> Load<'_, P> {
    fn report(&self) -> Report {
        let sources = self.candidates.iter().map(|candidate| candidate.report.clone()).collect();
        Report { sources, neighbours: self.neighbours, resumed: self.resumed, reused: self.reused }
    }

    async fn by_blocks(&mut self, blocks: Blocks, earlier: Option<File>) -> Result<(), FetchError> {
        let part = Arc::clone(&self.part);
        let (mut blocks, resumed, reused) = blocking(move || local(blocks, &part, earlier)).await?;
        (self.resumed, self.reused) = (resumed, reused);
        if blocks.missing().is_some() {
            self.add_neighbours(blocks.size()).await;
        }
        while let Some(missing) = blocks.missing() {
            (self.progress)(blocks.bytes());
            let chosen = self.choose().await?;
            let before = blocks.bytes();
            let result = self.load_run(chosen, &mut blocks, missing).await?;
            self.judge(chosen, blocks.bytes() - before, result.err());
        }
        (self.progress)(blocks.bytes());
        Ok(())
    }

    /// Loads the blocks `missing` from a source, as far as it goes. The outer error is the disk's, the inner one the source's.
    async fn load_run(
        &self,
        chosen: usize,
        blocks: &mut Blocks,
        missing: std::ops::Range<usize>,
    ) -> Result<Result<(), Problem>, io::Error> {
        let bytes = blocks.range(missing.start).start..blocks.range(missing.end - 1).end;
        let Candidate { net, pace, report, .. } = &self.candidates[chosen];
        let mut body = match source::open(net, &report.url, bytes, blocks.size(), *pace).await {
            Ok(body) => body,
            Err(problem) => return Ok(Err(problem)),
        };
        let end = if body.whole { blocks.count() } else { missing.end };
        let mut pending = Vec::new();
        for index in missing.start..end {
            if blocks.missing().is_none() {
                break;
            }
            let range = blocks.range(index);
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            while pending.len() < len {
                match body.next().await {
                    Ok(Some(bytes)) => pending.extend_from_slice(&bytes),
                    Ok(None) => return Ok(Err(Problem::Short((len - pending.len()) as u64))),
                    Err(problem) => return Ok(Err(problem)),
                }
            }
            let rest = pending.split_off(len);
            let block = std::mem::replace(&mut pending, rest);
            if blocks.has(index) {
                continue;
            }
            if !blocks.verify(index, &block) {
                return Ok(Err(Problem::Wrong(index)));
            }
            let part = Arc::clone(&self.part);
            blocking(move || part.write_all_at(&block, range.start)).await?;
            blocks.set(index);
            (self.progress)(blocks.bytes());
        }
        Ok(Ok(()))
    }

    /// The first source that may be asked now; waits for one if all rest.
    async fn choose(&self) -> Result<usize, FetchError> {
        loop {
            let now = Instant::now();
            let honest = || self.candidates.iter().enumerate().filter(|(_, candidate)| !candidate.lied());
            let ready = honest().find(|(_, candidate)| candidate.rest.is_none_or(|rest| rest <= now));
            if let Some((index, _)) = ready {
                return Ok(index);
            }
            let Some(first) = honest().filter_map(|(_, candidate)| candidate.rest).min() else {
                return Err(FetchError::NoSource(self.report()));
            };
            tokio::time::sleep_until(first.into()).await;
        }
    }

    /// Notes how a source did.
    fn judge(&mut self, chosen: usize, bytes: u64, problem: Option<Problem>) {
        let candidate = &mut self.candidates[chosen];
        candidate.report.bytes += bytes;
        candidate.failures = if bytes > 0 { 0 } else { candidate.failures };
        let Some(problem) = problem else { return };
        let back_off = Duration::from_secs(1) * 2_u32.pow(candidate.failures.min(10));
        let pause = match &problem {
            Problem::Later(pause) => super::at_least(*pause),
            _ => super::jittered(back_off.min(MAX_SOURCE_PAUSE)),
        };
        candidate.failures += 1;
        candidate.rest = Some(Instant::now() + pause);
        candidate.report.problem = Some(problem);
    }
}

impl Candidate {
    const fn new(net: Net, pace: Pace, url: Url) -> Self {
        Self { net, pace, report: SourceReport { url, bytes: 0, problem: None }, failures: 0, rest: None }
    }

    fn lied(&self) -> bool {
        self.report.problem.as_ref().is_some_and(Problem::is_lie)
    }
}

/// The blocks that the part file has, and those that the earlier version has, which are copied into the part file. Both are read and
/// hashed: nothing on a disk is trusted. Returns the bytes of each too.
fn local(mut blocks: Blocks, part: &File, earlier: Option<File>) -> io::Result<(Blocks, u64, u64)> {
    let old = part.metadata()?.len();
    part.set_len(blocks.size())?;
    let mut buffer = Vec::new();
    let mut found = [0, 0];
    for index in 0..blocks.count() {
        let range = blocks.range(index);
        buffer.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
        if range.start < old
            && part.read_exact_at(&mut buffer, range.start).is_ok()
            && blocks.verify(index, &buffer)
        {
            blocks.set(index);
            found[0] += buffer.len() as u64;
            continue;
        }
        let Some(earlier) = &earlier else { continue };
        if earlier.read_exact_at(&mut buffer, range.start).is_ok() && blocks.verify(index, &buffer) {
            part.write_all_at(&buffer, range.start)?;
            blocks.set(index);
            found[1] += buffer.len() as u64;
        }
    }
    Ok((blocks, found[0], found[1]))
}

/// Runs what waits for the disk on another thread, so that the check-ins go on.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
