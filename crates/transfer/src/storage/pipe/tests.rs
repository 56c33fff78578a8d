use super::*;
use crate::storage::refusal::shown;
use std::io::Read;
use std::thread;

fn command(line: &str) -> Box<dyn Part> {
    let reader = Reader::Command(line.into());
    PipeSink::new(reader, None).create("name", Extent::sealed(1 << 20)).unwrap()
}

fn piped() -> (PipePart, std::io::PipeReader) {
    let (read, write) = std::io::pipe().unwrap();
    (PipePart::new(write.into(), None, None), read)
}

fn says(result: Result<impl std::fmt::Debug, SinkError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_reader_gets_the_bytes_in_order_and_nothing_else() {
    let (part, mut read) = piped();
    let bytes: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        read.read_to_end(&mut all).unwrap();
        all
    });
    for piece in bytes.chunks(300_000) {
        part.write_next(piece).unwrap();
    }
    assert_eq!(part.commit().unwrap(), Path::new("-"));
    drop(part);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn a_reader_that_goes_away_is_an_error_at_once() {
    let (part, read) = piped();
    part.write_next(&[1; 100]).unwrap();
    drop(read);
    assert_eq!(says(part.write_next(&[1; 100])), "nobody reads the standard output any more");
}

#[test]
fn a_writer_that_waits_is_stopped() {
    let (part, read) = piped();
    let part = Arc::new(part);
    let writes = Arc::clone(&part);
    let writer = thread::spawn(move || writes.write_next(&[7; 1 << 20]));
    thread::sleep(Duration::from_millis(50));
    assert!(!writer.is_finished(), "nobody reads");
    part.discard();
    assert_eq!(says(writer.join().unwrap()), "the transfer is over");
    drop(read);
}

#[test]
fn a_command_is_complete_when_it_has_read_everything_and_succeeded() {
    let end = |line: &str, bytes: usize| {
        let part = command(line);
        part.write_next(&vec![9; bytes]).and_then(|()| part.commit())
    };
    assert_eq!(end("test $(wc -c) = 100000", 100_000).unwrap(), Path::new("-"));
    assert_eq!(end("cat >/dev/null", 0).unwrap(), Path::new("-"), "an empty object");
    assert_eq!(says(end("cat >/dev/null; exit 3", 100_000)), "the --pipe command exited with 3");
    assert_eq!(says(end("cat >/dev/null; kill -9 $$", 10)), "the --pipe command was ended by signal 9");
    // What the pipe could hold was not read.
    let early = "the --pipe command ended before it had read everything";
    assert_eq!(says(end("exit 0", 100)), early);
    assert_eq!(says(end("head -c 1000 >/dev/null", 1 << 20)), early);
    assert_eq!(says(end("exec <&-; exit 4", 1 << 20)), "the --pipe command exited with 4");
    let closed = "the --pipe command closed its standard input before it had read everything";
    // It does not outlive the object.
    assert_eq!(says(end("exec <&-; sleep 1000", 1 << 20)), closed);
}

#[test]
fn a_command_that_is_given_up_does_not_see_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    for how in 0..2 {
        let part = command(&format!("cat >/dev/null; echo >{}", whole.display()));
        part.write_next(&[1; 100_000]).unwrap();
        if how == 0 {
            part.discard();
        }
        drop(part);
        assert!(!whole.exists(), "{how}");
    }
}

#[test]
fn what_is_ahead_waits_in_a_file_that_nobody_sees() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = PipeSink::new(Reader::Command("test $(wc -c) = 300".into()), Some(dir.path().to_owned()));
    assert_eq!(sink.intake(), Intake::Spooled);
    let part = sink.create("x", Extent::sealed(300)).unwrap();
    part.write_at(200, &[2; 100]).unwrap();
    part.write_at(0, &[1; 200]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut back = [0; 300];
    part.read_at(0, &mut back).unwrap();
    assert_eq!((back[199], back[200]), (1, 2));
    part.write_next(&back).unwrap();
    part.commit().unwrap();
    let gone = dir.path().join("none");
    let refusal =
        PipeSink::new(Reader::Stdout, Some(gone.clone())).create("x", Extent::sealed(1)).err().unwrap();
    assert!(refusal.to_string().contains(&shown(&gone)), "{refusal}");
}
