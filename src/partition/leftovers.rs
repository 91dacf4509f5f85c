//! Segments that were removed from the log but whose files could not be unlinked.
//!
//! Owns: the list, so that the unlink is tried again and their bytes are still counted. Must not
//! know: why a segment was removed. Its lock is the last one taken, and is never held over the
//! disk.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::log::segment::Segment;
use crate::sync::{LockLevel, Mutex};

#[derive(Debug)]
pub(crate) struct Leftovers {
    segments: Mutex<Vec<Arc<Segment>>>,
}

impl Leftovers {
    pub(super) fn new() -> Self {
        Self { segments: Mutex::at_level(LockLevel::Leftovers, Vec::new()) }
    }

    /// Removes the files, and keeps the segments whose files could not be removed. Acts by path:
    /// only while the partition's disk work has not ended.
    pub(super) fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        for segment in segments {
            match segment.remove_file() {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    self.segments.lock().push(segment);
                }
                _ => {}
            }
        }
    }

    pub(super) fn take(&self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut *self.segments.lock())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.lock().is_empty()
    }

    /// What their files take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.lock().iter().map(|segment| segment.claim.bytes()).sum()
    }
}
