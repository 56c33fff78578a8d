//! Inputs of streams: this program's standard input, or the output of a command.

use crate::command::Producer;
use crate::storage::Input;
use std::io;

/// This program's standard input. Its end is the end of the stream, whatever was the reason.
#[derive(Debug)]
pub struct StandardInput;

impl Input for StandardInput {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buf)?)
    }
    fn finish(&self) -> Result<(), String> {
        Ok(())
    }
    fn stop(&self) {}
}

impl Input for Producer {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Self::read(self, buf)
    }
    fn finish(&self) -> Result<(), String> {
        Self::finish(self)
    }
    fn stop(&self) {
        Self::stop(self);
    }
}
