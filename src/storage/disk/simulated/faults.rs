//! The faults that a test injects.
//!
//! Owns: which calls are to fail, and whether any has. Must not know: what a call does to the disk.

use std::io::{self, ErrorKind};
use std::path::Path;

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateDir,
    SyncDir,
    Rename,
    Remove,
    Create,
    Open,
    Read,
    Write,
    Allocate,
    Release,
    Shorten,
    Sync,
    WriteBack,
    Map,
}

impl Operation {
    /// Whether the call changes something, and so is a store point.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::WriteBack | Self::Map)
    }
}

/// A fault to come.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) operation: Operation,
    /// Only calls that concern a path which contains this; all if empty.
    pub(crate) path_contains: String,
    /// How many such calls succeed first.
    pub(crate) after: u64,
    /// Whether all later ones fail, or one.
    pub(crate) forever: bool,
    pub(crate) error: ErrorKind,
}

#[cfg(test)]
impl Fault {
    /// The next call fails, once.
    pub(crate) fn once(operation: Operation, error: ErrorKind) -> Self {
        Self { operation, path_contains: String::new(), after: 0, forever: false, error }
    }

    /// All calls fail from now on.
    pub(crate) fn always(operation: Operation, error: ErrorKind) -> Self {
        Self { forever: true, ..Self::once(operation, error) }
    }

    /// The first `calls` succeed.
    pub(crate) fn after(self, calls: u64) -> Self {
        Self { after: calls, ..self }
    }

    /// Only for paths that contain `part`.
    pub(crate) fn on(self, part: &str) -> Self {
        Self { path_contains: part.to_owned(), ..self }
    }
}

/// Those that are still to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    to_come: Vec<Fault>,
    /// Whether any of them has made a call fail.
    has_fired: bool,
}

#[cfg(test)]
impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.to_come.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.to_come.clear();
    }

    pub(super) fn has_fired(&self) -> bool {
        self.has_fired
    }

    pub(super) fn to_come(&self) -> usize {
        self.to_come.len()
    }
}

impl Faults {
    /// Counts a call for each fault that concerns it, and lets it fail if one of them says so.
    pub(super) fn meet(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.to_come.is_empty() {
            return Ok(());
        }
        let named = path.to_string_lossy();
        let mut failed = None;
        self.to_come.retain_mut(|fault| {
            let concerns =
                fault.operation == operation && named.contains(fault.path_contains.as_str());
            if !concerns || failed.is_some() {
                return true;
            }
            if let Some(left) = fault.after.checked_sub(1) {
                fault.after = left;
                return true;
            }
            failed = Some(fault.error);
            self.has_fired = true;
            fault.forever
        });
        failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}
