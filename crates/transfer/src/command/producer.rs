//! A command whose output is a stream (`send --pipe`).

use super::PipedCommand;
use crate::text::ended;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

/// A running shell command, and its standard output. Dropping it ends it.
#[derive(Debug)]
pub struct Producer {
    output: OwnedFd,
    command: PipedCommand,
}

impl Producer {
    /// Starts `command` with `/bin/sh -c` and this standard input. Its standard error is that of this program.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub fn start(command: &OsStr, input: Stdio) -> io::Result<Self> {
        let (command, output) = PipedCommand::writer(command, input)?;
        Ok(Self { output, command })
    }

    /// Reads some of its output. Returns 0 once it and all that it has started have closed it.
    ///
    /// # Errors
    /// If the system cannot read it.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.output, buf)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it did not succeed: one clause for people.
    pub fn finish(&self) -> Result<(), String> {
        match self.command.wait() {
            0 => Ok(()),
            status => Err(format!(
                "the --pipe command {}, so the stream is not whole; send it again",
                ended(status)
            )),
        }
    }

    /// Ends it and all that it has started, unless it has ended by itself.
    pub fn stop(&self) {
        self.command.end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::GRACE;
    use super::*;
    use std::time::Instant;

    fn start(command: &str) -> Producer {
        Producer::start(command.as_ref(), Stdio::null()).unwrap()
    }

    fn output(producer: &Producer) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 100]);
        while let n @ 1.. = producer.read(&mut buf).unwrap() {
            all.extend_from_slice(&buf[..n]);
        }
        all
    }

    #[test]
    fn only_a_command_that_succeeds_has_said_all() {
        let producer = start("echo abc; cat");
        assert_eq!((output(&producer), producer.finish()), (b"abc\n".to_vec(), Ok(())));
        for (command, why) in [("echo abc; exit 3", "exited with 3"), ("kill -9 $$", "was ended by signal 9")]
        {
            let producer = start(command);
            output(&producer);
            let error = producer.finish().unwrap_err();
            assert!(error.contains(why) && error.starts_with("the --pipe command"), "{error}");
        }
    }

    #[test]
    fn stopping_ends_all_of_a_pipeline() {
        let producer = start("sleep 1000 | sleep 1000");
        producer.stop();
        // Nobody has its output open any more.
        assert_eq!(output(&producer), b"");
        assert!(producer.finish().unwrap_err().contains("signal 15"));
        let stubborn = start("trap '' TERM; echo; while :; do sleep 0.01; done");
        assert_eq!(stubborn.read(&mut [0; 10]).unwrap(), 1);
        let started = Instant::now();
        drop(stubborn);
        assert!(started.elapsed() >= GRACE);
    }
}
