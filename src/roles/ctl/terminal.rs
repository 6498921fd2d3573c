//! The terminal: raw while a remote one is shown in it, and its size.
//!
//! Why a guard: whatever ends the session, the user's shell must get its terminal back.

use std::io::IsTerminal;

use rustix::termios::{self, OptionalActions, Termios};

/// Standard input as a raw terminal, until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes it raw.
    pub fn new() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether standard input is a terminal.
pub fn is_input() -> bool {
    std::io::stdin().is_terminal()
}

/// (columns, rows) of the terminal that standard output or input is.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| termios::tcgetwinsize(std::io::stdin()))
        .ok()?;
    Some((size.ws_col, size.ws_row))
}
