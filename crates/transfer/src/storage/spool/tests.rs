use super::*;
use crate::storage::scratch::Scratch;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};

const BLOCK: usize = 1 << DEFAULT_BLOCK_LOG2;

/// An input of bytes that count up, at most `at_once` at a time.
struct Given {
    len: usize,
    at_once: usize,
    read: AtomicUsize,
    end: Result<(), String>,
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

impl Input for Given {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let at = self.read.load(Ordering::SeqCst);
        let n = buf.len().min(self.at_once).min(self.len - at);
        (at..).zip(&mut buf[..n]).for_each(|(at, to)| *to = byte(at));
        self.read.fetch_add(n, Ordering::SeqCst);
        Ok(n)
    }
    fn finish(&self) -> Result<(), String> {
        self.end.clone()
    }
    fn stop(&self) {}
}

fn spool(dir: &Scratch, len: usize, at_once: usize, end: Result<(), String>) -> Spool {
    let input = Given { len, at_once, read: AtomicUsize::new(0), end };
    Spool::new(Box::new(input), &dir.join("")).unwrap()
}

#[test]
fn a_block_counts_once_something_follows_it() {
    let dir = Scratch::new();
    for (len, grows) in [
        (0, vec![]),
        (1, vec![]),
        (BLOCK - 1, vec![]),
        (BLOCK, vec![]),
        (BLOCK + 1, vec![1]),
        (2 * BLOCK, vec![1]),
        (3 * BLOCK + 7, vec![1, 2, 3]),
    ] {
        for at_once in [1000, usize::MAX] {
            let spool = spool(&dir, len, at_once, Ok(()));
            for &blocks in &grows {
                let size = (blocks * BLOCK) as u64;
                assert_eq!(spool.read_on().unwrap(), Extent { size, sealed: false }, "{len}");
            }
            for _ in 0..2 {
                assert_eq!(spool.read_on().unwrap(), Extent::sealed(len as u64));
            }
            let mut back = vec![0; len];
            spool.read_at(0, &mut back).unwrap();
            assert!(back.iter().enumerate().all(|(at, found)| *found == byte(at)));
            // All of it can be sent from the map.
            (0..len).step_by(1408).for_each(|at| {
                spool.raw(at as u64, (len - at).min(1408));
            });
        }
    }
    assert_eq!(std::fs::read_dir(dir.join("")).unwrap().count(), 0, "a spool has no name");
}

#[test]
fn an_input_that_fails_at_its_end_is_not_sealed() {
    let dir = Scratch::new();
    let spool = spool(&dir, BLOCK + 1, usize::MAX, Err("it failed".to_owned()));
    assert_eq!(spool.read_on().unwrap().size, BLOCK as u64);
    let error = spool.read_on().unwrap_err();
    assert_eq!(error.to_string(), "it failed");
    assert!(!spool.extent().sealed);
}

#[test]
fn a_spool_needs_a_directory() {
    let input = || Box::new(Given { len: 0, at_once: 1, read: AtomicUsize::new(0), end: Ok(()) });
    let error = Spool::new(input(), Path::new("/no/such/place")).err().unwrap().to_string();
    assert!(error.contains("/no/such/place") && error.contains("--spool"), "{error}");
}

#[test]
fn a_spool_in_memory_forgets_what_nobody_needs() {
    let input = Given { len: 3 * BLOCK + 7, at_once: usize::MAX, read: AtomicUsize::new(0), end: Ok(()) };
    let spool = Spool::in_memory(Box::new(input), 8 << 20).unwrap();
    while !spool.read_on().unwrap().sealed {}
    let held = || spool.file.metadata().unwrap().blocks() * 512;
    let all = held();
    assert!(all >= 3 * BLOCK as u64, "{all}");
    spool.forget(2 * BLOCK as u64);
    spool.forget(BLOCK as u64);
    assert_eq!(held(), all - 2 * BLOCK as u64);
    let mut back = vec![0; BLOCK + 7];
    spool.read_at(2 * BLOCK as u64, &mut back).unwrap();
    assert!(back.iter().enumerate().all(|(at, &is)| is == byte(2 * BLOCK + at)));
    assert_eq!(spool.keeps(), Some(8 << 20));
    // One on a disk keeps all.
    let dir = Scratch::new();
    let disk = self::spool(&dir, 2 * BLOCK, usize::MAX, Ok(()));
    while !disk.read_on().unwrap().sealed {}
    disk.forget(BLOCK as u64);
    disk.read_at(0, &mut back[..BLOCK]).unwrap();
    assert!(back[..BLOCK].iter().enumerate().all(|(at, &is)| is == byte(at)) && disk.keeps().is_none());
}
