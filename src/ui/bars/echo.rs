//! Switches off the terminal's echo while bars are drawn. The echo of a key (Enter, Ctrl-C) would move
//! the cursor, and the bars would then be drawn one line too low.

use crate::engine::run::in_foreground;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Keeps the terminal's echo off until it is dropped. Signals and line input still work.
pub struct NoEcho {
    before: Termios,
}

impl NoEcho {
    /// Switches the echo off. `None` if standard input is no terminal, or is the terminal of another
    /// foreground process: the system stops a background job that changes its terminal.
    #[must_use]
    pub fn start() -> Option<Self> {
        let before = tcgetattr(stdin()).ok().filter(|_| in_foreground())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self { before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if in_foreground() {
            // A closed terminal needs no echo.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        }
    }
}
