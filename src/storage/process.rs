//! The process of a broker: recognises a forked child.
//!
//! Owns the answer to one question: is this the process that opened the broker, or a forked child
//! of it? A child has copies of all locks, none of the threads, and shares the maps of the files:
//! its stores there would appear in the parent, between the parent's own. So a child must not
//! write, and the append path checks this without a system call. Must not know: the callers. Called
//! from any thread without a lock: in a child, the thread that held one does not exist.

use crate::error::{Error, Result};

#[cfg(target_os = "linux")]
use super::region::ForkMark;

/// The process in which this was made.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` where the kernel has no such page; there the number is asked for each time.
    #[cfg(target_os = "linux")]
    mark: Option<ForkMark>,
    id: u32,
}

impl Process {
    pub(crate) fn current() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            mark: ForkMark::new().ok(),
            id: std::process::id(),
        }
    }

    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(mark) = &self.mark {
            return mark.is_set();
        }
        self.id == std::process::id()
    }

    /// # Errors
    ///
    /// [`Error::Forked`] in a child of the process.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(Error::Forked) }
    }
}
