//! Writes what a command has found: as a table for people, as JSON for programs.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::text::{escape, escape_json};

/// Plain data that a command returns. As JSON it is itself; the fields and their names are part of
/// the interface.
pub(crate) trait Report: Serialize {
    /// The same for people, in lines that are complete and escaped.
    fn text(&self) -> String;

    /// Whether it shows damage, which is exit code 3.
    fn has_damage(&self) -> bool {
        false
    }
}

/// Standard output.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json }
    }

    pub(crate) fn report(&mut self, report: &impl Report) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(report).map_err(io::Error::from);
            self.line(&escape_json(&json.map_err(Failure::output)?))
        } else {
            self.write(&report.text())
        }
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(line)?;
        self.write("\n")
    }

    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).map_err(Failure::output)
    }

    /// Everything is written when this returns.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }
}

/// Says something beside the output, on standard error. If nobody reads that, nobody misses it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "logpond: {}", escape(text));
}

/// The same of text that is escaped.
pub(crate) fn note_escaped(text: &str) {
    let _ = writeln!(io::stderr(), "logpond: {text}");
}
