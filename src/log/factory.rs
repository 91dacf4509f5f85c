//! Creates the segment files of one log.
//!
//! Owns: the identity of the partition and the options of its files, the numbers of its next files,
//! and the reserve of an internal log. Must not know: which segments there are, what is appended to
//! them, when a new one is needed.
//!
//! Invariants:
//! 1. A number is used at most once while the log is open, and none is used that a file had when
//!    the log was opened.
//! 2. A rewrite (a cut, a replacement) has a higher generation than every file that it supersedes.

use std::path::Path;
use std::sync::Arc;

use super::budget::{Claim, SpaceBudget};
use super::create::{NewSegment, Prepared};
use super::reserve::Reserve;
use super::tasks::PrepareTask;
use super::{LogEnv, LogIdentity, LogOptions};
use crate::error::{Error, Result};
use crate::format::{ONE_PASS_CHECKSUMS, Rewrite, SegmentHeader, segment_file_name};
use crate::rules::Rule;

pub(crate) struct SegmentFactory {
    env: Arc<LogEnv>,
    identity: LogIdentity,
    options: LogOptions,
    next_number: u64,
    generation: u32,
    /// The reserve of an internal log, for a full disk.
    reserve: Option<Reserve>,
    /// Compatible feature bits of the segments that it makes.
    compatible: u64,
}

impl SegmentFactory {
    /// Of a log without any file.
    pub(crate) fn new(env: &Arc<LogEnv>, identity: LogIdentity, options: LogOptions) -> Self {
        let env = Arc::clone(env);
        Self { env, identity, options, next_number: 0, generation: 0, reserve: None, compatible: 0 }
    }

    /// Of a log whose files have numbers below `next_number`, and generations up to this one.
    pub(super) fn set_found(&mut self, next_number: u64, generation: u32) {
        (self.next_number, self.generation) = (next_number, generation);
    }

    pub(crate) fn env(&self) -> &Arc<LogEnv> {
        &self.env
    }

    pub(crate) fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    pub(crate) fn options(&self) -> LogOptions {
        self.options
    }

    /// Sets the size of segments that are not made yet.
    pub(crate) fn set_segment_bytes(&mut self, bytes: u64) {
        self.options.segment_bytes = bytes;
    }

    /// Sets the compatible feature bits of segments that are not made yet.
    #[cfg(feature = "replication")]
    pub(super) fn set_compatible(&mut self, bits: u64) {
        self.compatible = bits;
    }

    /// A segment with the next number and room for `needed` bytes, to be made.
    pub(super) fn new_segment(
        &mut self,
        needed: usize,
        rewrite: Option<Rewrite>,
    ) -> Result<NewSegment> {
        let limit = crate::config::SEGMENT_BYTES_MAX;
        if needed as u64 > limit {
            return Err(Error::RecordTooLarge { size: needed as u64, limit });
        }
        let capacity = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX);
        let header = SegmentHeader {
            topic_id: self.identity.topic_id,
            partition: self.identity.origin.partition,
            number: self.allot_number(),
            salt: self.env.salt(),
            generation: self.generation,
            rewrite,
            incompatible: self.options.features | ONE_PASS_CHECKSUMS,
            compatible: self.compatible,
        };
        Ok(NewSegment {
            dir: self.identity.dir.clone(),
            header,
            capacity: capacity.max(needed),
            writer: self.options.writer,
            claim: self.claim(0),
            exceeds_budget: false,
        })
    }

    /// The next segment, to be made before it is needed.
    pub(crate) fn begin_prepare(&mut self) -> Result<PrepareTask> {
        let new = self.new_segment(0, None)?;
        Ok(PrepareTask { env: Arc::clone(&self.env), new })
    }

    /// Makes a new segment; of a spare, where the disk is full and the reserve is open.
    pub(super) fn make(&mut self, new: NewSegment) -> Result<Prepared> {
        let again = new.clone();
        let made = new.create(&self.env);
        let is_full = matches!(made, Err(Error::StorageFull { .. }));
        let fits = |reserve: &&mut Reserve| {
            is_full && reserve.is_open() && again.capacity as u64 <= reserve.bytes()
        };
        let Some(reserve) = self.reserve.as_mut().filter(fits) else { return made };
        let path = again.dir.join(segment_file_name(again.header.number));
        reserve.use_one(&self.env, &again).map_err(|source| Error::io("create", &path, source))
    }

    /// The claim of one of this log's files on the byte budget.
    pub(super) fn claim(&self, bytes: u64) -> Arc<Claim> {
        if self.options.has_budget {
            return Claim::of_file(&self.env.space, bytes);
        }
        Claim::of_file(&SpaceBudget::unlimited(), bytes)
    }

    fn allot_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        number
    }

    /// Files that are made from now on supersede those of the present generation.
    pub(super) fn begin_generation(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }

    /// The number and generation of a segment that replaces others; `None` if all generations are
    /// used.
    pub(super) fn allot_rewrite(&mut self) -> Option<(u64, u32)> {
        let generation = self.generation.checked_add(1)?;
        self.generation = generation;
        Some((self.allot_number(), generation))
    }

    /// A segment that cuts off everything that begins at or above `offset`, to be made.
    ///
    /// # Errors
    ///
    /// All generations are used.
    #[cfg(feature = "replication")]
    pub(super) fn begin_cut(&mut self, needed: usize, offset: u64) -> Result<NewSegment> {
        let generation = self.generation.checked_add(1);
        self.generation = generation.ok_or_else(|| {
            Error::config("partition", "no rewrite number is left; create the topic anew")
        })?;
        self.new_segment(needed, Some(Rewrite::Truncates(offset)))
    }

    /// Removes a segment's file durably, before anything is appended to it.
    pub(super) fn withdraw(&self, path: &Path) -> std::io::Result<()> {
        self.env.disk.remove_file(path)?;
        Rule::WithdrawnName.keep(|| self.env.disk.sync_dir(&self.identity.dir))
    }

    /// Syncs the log's directory, so that removals in it are durable.
    pub(super) fn sync_dir(&self) -> Result<()> {
        let dir = &self.identity.dir;
        self.env.disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
    }

    // ---- the reserve ---------------------------------------------------------------------------

    /// Gives the log a reserve of spares of this size, and finds those that are there.
    pub(crate) fn keep_reserve(&mut self, bytes: u64) -> Result<()> {
        let mut reserve = Reserve::new(&self.env.disk, &self.identity.dir, bytes);
        let found = reserve.find();
        self.reserve = Some(reserve);
        found
    }

    pub(crate) fn reserve(&self) -> Option<&Reserve> {
        self.reserve.as_ref()
    }

    pub(crate) fn reserve_mut(&mut self) -> Option<&mut Reserve> {
        self.reserve.as_mut()
    }

    /// Whether a segment may be made of a spare from here on, where the disk is full.
    pub(crate) fn set_reserve_open(&mut self, is_open: bool) {
        if let Some(reserve) = &mut self.reserve {
            reserve.set_open(is_open);
        }
    }

    /// Makes a spare of a file that is no segment of the log. False if it is to be removed.
    pub(super) fn take_back_file(&mut self, path: &Path) -> Result<bool> {
        self.reserve.as_mut().map_or(Ok(false), |reserve| reserve.take_back_file(path))
    }
}

impl std::fmt::Debug for SegmentFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentFactory")
            .field("identity", &self.identity)
            .field("next_number", &self.next_number)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
