//! Keys typed while bars are drawn (Enter, Ctrl-C) are not shown: their echo would move the cursor,
//! and the bars would be drawn anew one line too low.

use crate::cli::console::in_foreground;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal does not echo while this lives. What signals and lines do stays as it is.
pub struct NoEcho {
    before: Termios,
}

impl NoEcho {
    /// Stops the echo; none if standard input is no terminal, or one that is not ours now: the
    /// system stops a background job that changes its terminal.
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
            // A terminal that is gone needs no echo.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        }
    }
}
