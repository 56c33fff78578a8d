use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::io::{BufRead, BufReader, Read};

fn put(file: &EventFile, line: impl AsRef<[u8]>, must: bool) -> bool {
    EventLines { shared: Arc::clone(&file.shared) }.put(line.as_ref().to_vec(), must)
}

fn fifo(dir: &Path) -> PathBuf {
    let path = dir.join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

#[test]
fn a_file_is_written_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    for line in ["one\n", "two\n"] {
        let file = EventFile::open(&path).unwrap();
        assert!(put(&file, line, false));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    assert!(EventFile::open(dir.path()).is_err() && EventFile::open(&path.join("x")).is_err());
}

#[test]
fn a_fifo_without_a_reader_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let file = EventFile::open(&path).unwrap();
    let line = vec![b'x'; MAX_EVENT_BACKLOG / 2];
    assert_eq!(
        [put(&file, &line, false), put(&file, &line, false), put(&file, b"y", false)],
        [true, true, false]
    );
    assert!(put(&file, b"end", true));
    assert!(!put(&file, vec![0; 2 * MAX_EVENT_BACKLOG], true), "it is bounded");
    // None of this has waited for a reader, who will not come.
    drop(file);
}

#[test]
fn a_reader_that_comes_late_or_anew_gets_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let file = EventFile::open(&path).unwrap();
    put(&file, "one\n", false);
    let mut line = String::new();
    BufReader::new(File::open(&path).unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    // The first reader has gone.
    put(&file, "two\n", false);
    let second = thread::spawn(move || {
        let mut all = String::new();
        File::open(&path).unwrap().read_to_string(&mut all).unwrap();
        all
    });
    put(&file, "three\n", false);
    while !file.shared.lock().open {
        thread::sleep(Duration::from_millis(1));
    }
    drop(file);
    assert_eq!(second.join().unwrap(), "two\nthree\n");
}

#[test]
fn a_reader_that_reads_no_more_is_left_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let file = EventFile::open(&path).unwrap();
    put(&file, vec![b'x'; 1 << 20], false);
    let mut reader = File::open(&path).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    let begun = Instant::now();
    drop(file);
    assert!(begun.elapsed() >= LAST_LINES.0);
}
