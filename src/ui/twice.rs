//! Two views of one run: what the user sees, and the events for a program (`--json=FILE`).

use super::{Exit, Notes, ReceiverView, SenderView};
use mcp_transfer::protocol::event::{
    ReceiverEvent, ReceiverSnapshot, SenderEvent, SenderOverview, SenderSnapshot,
};
use mcp_transfer::time::Time;

/// Shows everything in both views, in this order.
pub struct Twice<V: ?Sized>(pub Box<V>, pub Box<V>);

impl<V: Notes + ?Sized> Notes for Twice<V> {
    fn note(&mut self, now: Time, text: &str) {
        self.0.note(now, text);
        self.1.note(now, text);
    }
    fn warn(&mut self, now: Time, text: &str) {
        self.0.warn(now, text);
        self.1.warn(now, text);
    }
}

impl SenderView for Twice<dyn SenderView> {
    fn event(&mut self, now: Time, event: &SenderEvent, overview: &SenderOverview) {
        self.0.event(now, event, overview);
        self.1.event(now, event, overview);
    }
    fn tick(&mut self, now: Time, snapshot: &SenderSnapshot) {
        self.0.tick(now, snapshot);
        self.1.tick(now, snapshot);
    }
    fn finish(&mut self, now: Time, snapshot: &SenderSnapshot, exit: Exit) {
        self.0.finish(now, snapshot, exit);
        self.1.finish(now, snapshot, exit);
    }
}

impl ReceiverView for Twice<dyn ReceiverView> {
    fn event(&mut self, now: Time, event: &ReceiverEvent, snapshot: &ReceiverSnapshot) {
        self.0.event(now, event, snapshot);
        self.1.event(now, event, snapshot);
    }
    fn tick(&mut self, now: Time, snapshot: &ReceiverSnapshot) {
        self.0.tick(now, snapshot);
        self.1.tick(now, snapshot);
    }
    fn finish(&mut self, now: Time, snapshot: &ReceiverSnapshot, exit: Exit) {
        self.0.finish(now, snapshot, exit);
        self.1.finish(now, snapshot, exit);
    }
}
