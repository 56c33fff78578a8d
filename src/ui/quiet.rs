//! `--quiet`: no output. `cli::report` prints errors.

use super::{Exit, Notes, ReceiverView, SenderView};
use mcp_transfer::protocol::event::{
    ReceiverEvent, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot,
};
use mcp_transfer::time::Time;

/// Shows nothing.
pub struct Quiet;

impl Notes for Quiet {
    fn note(&mut self, _: Time, _: &str) {}
    fn warn(&mut self, _: Time, _: &str) {}
}

impl SenderView for Quiet {
    fn event(&mut self, _: Time, _: &SenderEvent, _: &SenderOverview) {}
    fn tick(&mut self, _: Time, _: &SenderSnapshot) {}
    fn finish(&mut self, _: Time, _: &SenderSnapshot, _: Exit) {}
}

impl ReceiverView for Quiet {
    fn event(&mut self, _: Time, _: &ReceiverEvent, _: &ReceiverSnapshot) {}
    fn tick(&mut self, _: Time, _: &ReceiverSnapshot) {}
    fn finish(&mut self, _: Time, _: &ReceiverSnapshot, _: Exit) {}
}
