//! Loading an object that can be checked only as a whole: its bytes come in order, and its hash decides at the end.

use super::source::{self, Problem};
use super::{Candidate, FetchError, Load, blocking};
use crate::documents::Hash;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// What an object is checked by. All that are given must be right; at least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    /// BLAKE3.
    pub blake3: Option<Hash>,
    /// SHA-256.
    pub sha256: Option<Hash>,
    /// SHA-1. It tells a damaged copy, and no more.
    pub sha1: Option<[u8; 20]>,
}

impl Digests {
    /// Whether there is a hash that nobody can find another object for.
    pub(crate) const fn strong(&self) -> bool {
        self.blake3.is_some() || self.sha256.is_some()
    }
}

/// The hashes of what has come so far.
#[derive(Clone, Default)]
struct Running {
    blake3: blake3::Hasher,
    sha256: Sha256,
    sha1: Sha1,
    len: u64,
}

impl Running {
    fn update(&mut self, bytes: &[u8], digests: &Digests) {
        if digests.blake3.is_some() {
            self.blake3.update(bytes);
        }
        if digests.sha256.is_some() {
            self.sha256.update(bytes);
        }
        if digests.sha1.is_some() {
            self.sha1.update(bytes);
        }
        self.len += bytes.len() as u64;
    }

    fn satisfies(self, digests: &Digests) -> bool {
        let some = digests.strong() || digests.sha1.is_some();
        some && digests.blake3.is_none_or(|hash| *self.blake3.finalize().as_bytes() == hash.0)
            && digests.sha256.is_none_or(|hash| self.sha256.finalize()[..] == hash.0)
            && digests.sha1.is_none_or(|hash| self.sha1.finalize()[..] == hash)
    }
}

/// Whether `file` has these size and digests.
pub(crate) fn is_object(file: &File, size: u64, digests: &Digests) -> io::Result<bool> {
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    Ok(read(file, size, digests)?.satisfies(digests))
}

/// The hashes of the first `len` bytes of a file.
fn read(file: &File, len: u64, digests: &Digests) -> io::Result<Running> {
    let mut running = Running::default();
    let mut buffer = vec![0; 1 << 20];
    while running.len < len {
        let piece = buffer.len().min(usize::try_from(len - running.len).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..piece], running.len)?;
        running.update(&buffer[..piece], digests);
    }
    Ok(running)
}

impl<P: Fn(u64)> Load<'_, P> {
    /// Loads the object in order. What a part file has is gone on from. If the whole is wrong, it is dropped: the source is to blame if all
    /// came from it, and otherwise the next try takes all from one source.
    pub(super) async fn as_whole(&mut self) -> Result<(), FetchError> {
        let (part, size, digests) = (Arc::clone(&self.part), self.wanted.size, self.wanted.digests.clone());
        let mut running = blocking(move || {
            let len = part.metadata()?.len().min(size);
            read(&part, len, &digests)
        })
        .await?;
        self.resumed = running.len;
        // Who gave what is there; `None` before anything came, and for what was there from before, which blames nobody.
        let mut from = None;
        let mut alone = running.len == 0;
        loop {
            (self.progress)(running.len);
            if running.len == size {
                if running.clone().satisfies(&self.wanted.digests) {
                    return Ok(());
                }
                if let Some(liar) = from.filter(|_| alone) {
                    self.judge(liar, 0, Some(Problem::WrongWhole));
                }
                (running, from, alone, self.resumed) = (Running::default(), None, true, 0);
                let part = Arc::clone(&self.part);
                blocking(move || part.set_len(0)).await?;
                // An object without bytes has no source to blame.
                if size == 0 {
                    return Err(FetchError::NoSource(self.report()));
                }
            }
            let chosen = self.choose().await?;
            if from.is_some_and(|from| from != chosen) {
                // Bytes of several sources could not be blamed on one.
                (running, alone, self.resumed) = (Running::default(), true, 0);
            }
            from = Some(chosen);
            let before = running.len;
            let result = self.load_rest(chosen, &mut running).await?;
            let gained = running.len - before;
            self.judge(chosen, gained, result.err());
        }
    }

    async fn load_rest(
        &self,
        chosen: usize,
        running: &mut Running,
    ) -> Result<Result<(), Problem>, io::Error> {
        let Candidate { net, pace, report, .. } = &self.candidates[chosen];
        let size = self.wanted.size;
        let mut body = match source::open(net, &report.url, running.len..size, size, *pace).await {
            Ok(body) => body,
            Err(problem) => return Ok(Err(problem)),
        };
        loop {
            match body.next().await {
                Ok(Some(bytes)) => {
                    let (part, at) = (Arc::clone(&self.part), running.len);
                    running.update(&bytes, &self.wanted.digests);
                    blocking(move || part.write_all_at(&bytes, at)).await?;
                    (self.progress)(running.len);
                }
                Ok(None) => return Ok(Ok(())),
                Err(problem) => return Ok(Err(problem)),
            }
        }
    }
}
