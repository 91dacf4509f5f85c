//! Progress of long work, on a line of standard error that is overwritten; only if standard error
//! is a terminal.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::Duration;

use logpond::{Clock, SystemClock};

/// How often the line may change: as fast as people read.
const EVERY: Duration = Duration::from_millis(100);

/// Return to the beginning of the line, and erase it.
const CLEAR: &str = "\r\u{1b}[2K";

/// A line of progress, which is erased at the end.
pub(crate) struct Progress<W: Write = Stderr> {
    /// `None` if nobody would see it.
    terminal: Option<W>,
    shown_at: Option<Duration>,
}

impl Progress {
    pub(crate) fn on_terminal() -> Self {
        let error = io::stderr();
        Self::new(error.is_terminal().then_some(error))
    }
}

impl<W: Write> Progress<W> {
    fn new(terminal: Option<W>) -> Self {
        Self { terminal, shown_at: None }
    }

    /// Shows a line, unless the last one is too young. A failure is nothing to stop for.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        let now = SystemClock::new().monotonic();
        let is_young = self.shown_at.is_some_and(|shown| now.saturating_sub(shown) < EVERY);
        let Some(terminal) = self.terminal.as_mut().filter(|_| !is_young) else { return };
        let _ = write!(terminal, "{CLEAR}{}", line()).and_then(|()| terminal.flush());
        self.shown_at = Some(now);
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        if let Some(terminal) = self.terminal.as_mut().filter(|_| self.shown_at.is_some()) {
            let _ = write!(terminal, "{CLEAR}").and_then(|()| terminal.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_a_line_that_is_erased() {
        let mut terminal = Vec::new();
        let mut progress = Progress::new(Some(&mut terminal));
        progress.show(|| "1 of 2".to_owned());
        progress.show(|| panic!("too early for another line"));
        drop(progress);
        assert_eq!(String::from_utf8(terminal).unwrap(), format!("{CLEAR}1 of 2{CLEAR}"));
    }

    #[test]
    fn nobody_else_gets_anything() {
        let mut progress = Progress::<Vec<u8>>::new(None);
        progress.show(|| panic!("nobody would see it"));
    }
}
