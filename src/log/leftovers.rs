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
use crate::error::{Error, Result};
use crate::format::{KEEPS_SPACE, Rewrite};
use crate::rules::Rule;

#[derive(Debug)]
pub(super) struct Leftovers {
    temporary: Vec<PathBuf>,
    unused: Vec<PathBuf>,
    /// Those of them that are of the reserve.
    spare: Vec<PathBuf>,
    /// Whether some of them were cut off, so that their successor must say so.
    cuts_segments: bool,
}

impl Leftovers {
    pub(super) fn of(inventory: Inventory, decision: &Decision) -> Self {
        let actions = inventory.found.into_iter().zip(&decision.actions);
        let unused =
            actions.filter(|(_, action)| **action == Action::Remove).map(|(found, _)| found);
        let unused: Vec<_> = unused.collect();
        let is_spare = |found: &&Found| found.header.compatible & KEEPS_SPACE != 0;
        let spare = unused.iter().filter(is_spare).map(|found| found.path.clone()).collect();
        Self {
            unused: unused.into_iter().map(|found| found.path).collect(),
            spare,
            temporary: inventory.temporary,
            cuts_segments: decision.cuts_segments,
        }
    }

    /// Removes the files: prepared segments that were never used, and whole segments after a torn
    /// tail at `log_end`, once a successor says durably that they are cut off. Returns that one.
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
                        // Without space the newest is removed: the rest then is a torn tail
                        // with fewer segments after it, of which the next opening says the same,
                        // whichever of them a power cut brings back: all of them begin after the
                        // gap that ends the log. Before anything closes that gap, the directory is
                        // synced: by the creation of the next segment, since this run does not append
                        // to the last one, or by the opening that does (`Rule::TailNames`).
                        let (Error::StorageFull { .. }, Some((newest, rest))) =
                            (&error, unused.split_last())
                        else {
                            return Err(error);
                        };
                        self.remove_one(newest, factory)?;
                        unused = rest;
                        if !unused.is_empty() {
                            continue;
                        }
                        // None is left of which a successor had to say that it is cut off.
                    }
                }
                break;
            }
        }
        let mut removed = false;
        for path in temporary.iter().chain(unused) {
            removed |= self.remove_one(path, factory)?;
        }
        if removed {
            // DURABILITY: what is cut off is removed for good before anything is appended. The
            // making of the next segment syncs the directory too, and a truncating one knows what
            // it cut; with this, neither has to be argued.
            factory.sync_dir()?;
        }
        Ok(successor)
    }

    /// Removes a file, or makes a spare of it. False if it is not there any more.
    fn remove_one(&self, path: &Path, factory: &mut SegmentFactory) -> Result<bool> {
        if self.spare.iter().any(|it| it == path) && factory.take_back_file(path)? {
            return Ok(true);
        }
        match factory.env().disk.remove_file(path) {
            // The truncating segment was made under the same temporary name.
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true).map_err(|source| Error::io("remove", path, source)),
        }
    }
}

/// Makes the segment that says durably that everything from `log_end` on is cut off.
fn prepare_truncating(factory: &mut SegmentFactory, log_end: u64) -> Result<Prepared> {
    let rewrite = Rule::CutRecorded.holds().then_some(Rewrite::Truncates(log_end));
    let new = factory.new_segment(0, rewrite)?;
    factory.make(new)
}
