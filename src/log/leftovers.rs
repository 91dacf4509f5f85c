//! Files of a log that an opening found and that do not count, and their removal.
//!
//! Owns: the list of these files. Must not know: which segments there are, what is appended.
//!
//! The removal is idempotent: a crash in the middle leaves some of the files, and the next opening
//! finds that these do not count either.

use std::io;
use std::path::{Path, PathBuf};

use super::create::Prepared;
use super::factory::SegmentFactory;
use super::inventory::{Found, Inventory};
use super::recovery::{Action, Decision};
use super::scan::Scan;
use crate::error::{Error, Result};
use crate::format::{KEEPS_SPACE, Rewrite};
use crate::rules::Rule;

#[derive(Debug)]
pub(super) struct Leftovers {
    temporary: Vec<PathBuf>,
    unused: Vec<Unused>,
    /// Whether some of them were cut off, which their successor must record.
    cuts_segments: bool,
}

/// A segment file that does not count.
#[derive(Debug)]
struct Unused {
    path: PathBuf,
    /// Whether it is a file of the reserve.
    is_spare: bool,
    /// Whether it was made ahead and never used: it has a plain header, and then zeros.
    is_blank: bool,
}

impl Unused {
    fn of(found: Found) -> Self {
        let is_zero = |scan: &Scan| {
            scan.stretches.is_empty() && scan.damage.is_empty() && scan.garbage_end == 0
        };
        let has_plain_header = found.header.rewrite.is_none() && found.footer.is_none();
        Self {
            is_spare: found.header.compatible & KEEPS_SPACE != 0,
            is_blank: has_plain_header && found.scan.as_ref().is_some_and(is_zero),
            path: found.path,
        }
    }
}

impl Leftovers {
    pub(super) fn of(inventory: Inventory, decision: &Decision) -> Self {
        let actions = inventory.found.into_iter().zip(&decision.actions);
        let unused = actions.filter(|(_, action)| **action == Action::Remove);
        Self {
            unused: unused.map(|(found, _)| Unused::of(found)).collect(),
            temporary: inventory.temporary,
            cuts_segments: decision.cuts_segments,
        }
    }

    /// Removes the files: prepared segments that were never used, and whole segments after a torn
    /// tail at `log_end`, once a successor durably records that they are cut off. Returns that
    /// successor.
    pub(super) fn remove(
        &self,
        factory: &mut SegmentFactory,
        log_end: u64,
    ) -> Result<Option<Prepared>> {
        let Self { temporary, unused, cuts_segments, .. } = self;
        let (mut unused, mut successor) = (&unused[..], None);
        if *cuts_segments {
            factory.begin_generation();
            loop {
                match prepare_truncating(factory, log_end) {
                    Ok(prepared) => successor = Some(prepared),
                    Err(error) => {
                        // Without space for a successor, the newest file is removed. What remains
                        // is a torn tail with fewer segments after it. The next opening decides the
                        // same, whichever of them exist again after a power cut: all of them begin
                        // after the gap that ends the log. Before anything closes that gap, the
                        // directory is synced: by the creation of the next segment, because this
                        // run does not append to the last one, or by the opening that does
                        // (`Rule::TailNames`).
                        let (Error::StorageFull { .. }, Some((newest, rest))) =
                            (&error, unused.split_last())
                        else {
                            return Err(error);
                        };
                        newest.remove(factory)?;
                        unused = rest;
                        if !unused.is_empty() {
                            continue;
                        }
                        // No file remains for which a successor would have to record the cut.
                    }
                }
                break;
            }
        }
        for path in temporary {
            remove_file(path, factory)?;
        }
        let mut has_removed_contents = false;
        for file in unused {
            has_removed_contents |= file.remove(factory)? && !file.is_blank;
        }
        if has_removed_contents {
            // DURABILITY: the removal is durable before anything is appended. The creation of the
            // next segment syncs the directory too, and a truncating one records its cut; with this
            // sync, correctness depends on neither. A blank or temporary file says nothing, so it
            // may be there again after a power cut: the next opening removes it again.
            factory.sync_dir()?;
        }
        Ok(successor)
    }
}

impl Unused {
    /// Removes the file, or makes a spare of it. False if it is not there any more.
    fn remove(&self, factory: &mut SegmentFactory) -> Result<bool> {
        if self.is_spare && factory.take_back_file(&self.path)? {
            return Ok(true);
        }
        remove_file(&self.path, factory)
    }
}

/// False if it is not there any more.
fn remove_file(path: &Path, factory: &SegmentFactory) -> Result<bool> {
    match factory.env().disk.remove_file(path) {
        // The truncating segment was made under the same temporary name.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true).map_err(|source| Error::io("remove", path, source)),
    }
}

/// Creates the segment that durably records that everything from `log_end` on is cut off.
fn prepare_truncating(factory: &mut SegmentFactory, log_end: u64) -> Result<Prepared> {
    // Not what begins at the end itself: a segment without records may, and if a replicated log was
    // truncated there, only its opening batch says where the segment before it ends. What is cut
    // off begins after a gap.
    let cut = Rewrite::Truncates(log_end.saturating_add(1));
    let rewrite = Rule::CutRecorded.holds().then_some(cut);
    let new = factory.new_segment(0, rewrite)?;
    factory.make(new)
}
