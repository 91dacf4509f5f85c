//! Work that sealed segments still need: first a sync, then a footer.
//!
//! Owns: the files that wait for a sync, the tails that are not proved to be on stable storage, and
//! the segments without a footer, each with the contents of its footer. Must not know: the active
//! segment, the ends of the log, the disk. Work leaves as [`tasks`](super::tasks), runs without the
//! partition's lock, and comes back here.
//!
//! Invariants; [`check`](Backlog::check) holds the first:
//! 1. Each list is in the order of the log, and has no segment twice.
//! 2. A segment gets its footer only after it and all before it were synced.
//! 3. A task whose segment was removed or replaced meanwhile changes nothing when it comes back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::segment::{Segment, SegmentList};
use super::tasks::{FooterTask, SyncFile, SyncTask, Unproved};
use crate::format::{Footer, ProducerState, SparseIndex};
use crate::rules::Rule;

/// A sealed segment that has no footer yet.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) segment: Arc<Segment>,
    /// Whether it existed before this log was opened: then another program may write to it too.
    pub(crate) is_found: bool,
    pub(crate) index: SparseIndex,
    pub(crate) index_is_whole: bool,
    pub(crate) producers: Vec<ProducerState>,
    pub(crate) leader_epoch: u32,
    pub(crate) incarnation: u64,
    /// How many bytes had been sealed when this was, its own included: set by the backlog.
    pub(super) sealed_to: u64,
}

/// LIMIT: how much is synced at once if no caller waits for it, but may wait for what comes after it,
/// or for its end: a segment of the default size. Tests have small segments.
const PIECE_BYTES: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Tails that an opening found, and of which no sync of this run is known.
    unproved: Vec<Unproved>,
    /// The files of sealed segments for which no sync has begun.
    to_sync: VecDeque<SyncFile>,
    /// The rank of the last sealed segment that is durable with all before it.
    synced_to: Option<u64>,
    /// The segments that get a footer.
    unfinished: VecDeque<Unfinished>,
    /// Segments that get no footer while this log is open.
    footerless: Vec<Unfinished>,
    /// How many bytes were sealed in this run.
    sealed_bytes: u64,
    /// Whether the last of `unfinished` was requested to be finished.
    is_requested: bool,
}

impl Backlog {
    // ---- what comes in -------------------------------------------------------------------------

    /// Adds a sealed segment. `is_synced` if a sync has covered all of it.
    pub(crate) fn seal(&mut self, sealed: Unfinished, file: SyncFile, is_synced: bool) {
        let rank = sealed.segment.ranks.1;
        if is_synced && self.last_rank() <= self.synced_to {
            self.synced_to = Some(rank);
        } else {
            // The descriptor is kept until a sync has returned, so that no error is missed.
            self.to_sync.push_back(file);
        }
        self.add_unfinished(sealed);
        self.is_requested = false;
        self.assert_valid();
    }

    /// Adds a segment without a footer that an opening found. `unproved` is the part that may not
    /// be on stable storage.
    pub(crate) fn add_found(&mut self, found: Unfinished, unproved: Option<Range<u32>>) {
        if let Some(range) = unproved {
            self.unproved.push(Unproved { segment: Arc::clone(&found.segment), range });
        } else if self.unproved.is_empty() {
            self.synced_to = Some(found.segment.ranks.1);
        }
        self.add_unfinished(found);
        self.assert_valid();
    }

    fn add_unfinished(&mut self, mut sealed: Unfinished) {
        self.sealed_bytes = self.sealed_bytes.saturating_add(sealed.segment.end() as u64);
        sealed.sealed_to = self.sealed_bytes;
        self.unfinished.push_back(sealed);
    }

    /// Takes out the last segment, which becomes active again.
    pub(crate) fn take_last(&mut self) -> Option<Unfinished> {
        let last = self.unfinished.pop_back();
        let bytes = last.as_ref().map_or(0, |last| last.segment.end() as u64);
        self.sealed_bytes = self.sealed_bytes.saturating_sub(bytes);
        self.synced_to = self.synced_to.min(self.last_rank());
        last
    }

    /// Whether a tail of this segment is not proved to be on stable storage.
    pub(crate) fn is_unproved(&self, segment: &Arc<Segment>) -> bool {
        self.unproved.iter().any(|unproved| Arc::ptr_eq(&unproved.segment, segment))
    }

    /// Sets the producers that the footer of the last segment will have, as long as none follows
    /// it.
    pub(crate) fn set_last_producers(&mut self, producers: Vec<ProducerState>) {
        if let Some(last) = self.unfinished.back_mut() {
            last.producers = producers;
        }
    }

    // ---- syncs ---------------------------------------------------------------------------------

    /// A task that makes all of these segments durable. The lists are moved into it, not copied,
    /// however many segments wait: appends wait for this, and for
    /// [`finish_sync`](Self::finish_sync).
    pub(crate) fn begin_sync(&mut self, segments: Arc<SegmentList>, target: u64) -> SyncTask {
        let unproved = std::mem::take(&mut self.unproved);
        let files = Vec::from(std::mem::take(&mut self.to_sync));
        let sealed_to = self.last_rank();
        SyncTask { unproved, files, segments, sealed_to, target, is_paced: false }
    }

    /// How many files the next piece has: as many as have [`PIECE_BYTES`], or one.
    fn piece_files(&self) -> usize {
        let mut bytes: usize = 0;
        let is_within = |file: &&SyncFile| {
            let is_within = bytes < PIECE_BYTES;
            bytes = bytes.saturating_add(file.end);
            is_within
        };
        self.to_sync.iter().take_while(is_within).count()
    }

    /// Where the segments of the next piece end; `None` where none waits.
    pub(crate) fn piece_end(&self) -> Option<u64> {
        let last = self.piece_files().checked_sub(1)?;
        self.to_sync.get(last)?.segment.next_offset()
    }

    /// A task that makes the next piece of these segments durable, the oldest first. `end` is what is durable after it if none waits.
    pub(crate) fn begin_piece(&mut self, segments: Arc<SegmentList>, end: u64) -> SyncTask {
        let unproved = std::mem::take(&mut self.unproved);
        let files: Vec<SyncFile> = self.to_sync.drain(..self.piece_files()).collect();
        let last = files.last().filter(|_| !self.to_sync.is_empty());
        let sealed_to = last.map_or(self.last_rank(), |last| Some(last.segment.ranks.1));
        let target = last.and_then(|last| last.segment.next_offset()).unwrap_or(end);
        SyncTask { unproved, files, segments, sealed_to, target, is_paced: true }
    }

    /// Takes back a task that did not succeed: none of its segments counts as durable.
    pub(crate) fn give_back_sync(&mut self, task: SyncTask) {
        let before = std::mem::replace(&mut self.unproved, task.unproved);
        self.unproved.extend(before);
        let next = self.to_sync.front().map(|next| next.segment.number);
        // Without the active one: it still is active, or was sealed meanwhile and waits already.
        let was_sealed =
            |file: &SyncFile| file.segment.sealed().is_some() && Some(file.segment.number) != next;
        for file in task.files.into_iter().filter(was_sealed).rev() {
            self.to_sync.push_front(file);
        }
        self.assert_valid();
    }

    /// A sync has succeeded.
    pub(crate) fn finish_sync(&mut self, task: &SyncTask) {
        self.synced_to = self.synced_to.max(task.sealed_to);
        let Some(last) = task.files.last() else { return };
        // A segment that was sealed while the sync ran is the first of those that wait for the
        // next. It may end after what this one covered.
        let is_covered =
            |next: &SyncFile| Arc::ptr_eq(&next.segment, &last.segment) && last.end >= next.end;
        if self.to_sync.front().is_some_and(is_covered) {
            self.to_sync.pop_front();
            self.synced_to = self.synced_to.max(Some(last.segment.ranks.1));
        }
    }

    /// The end of what the sealed segments hold; `None` where each has its footer.
    pub(crate) fn sealed_end(&self) -> Option<u64> {
        self.unfinished.back()?.segment.next_offset()
    }

    /// Where the sealed segments end that must become durable so that at most `most` bytes are not;
    /// `None` if no more are.
    pub(crate) fn end_beyond(&self, most: u64) -> Option<u64> {
        let is_beyond = |unfinished: &Unfinished| {
            crate::steps::take(1);
            self.sealed_bytes.saturating_sub(unfinished.sealed_to) > most
        };
        // Asked at each seal, under the lock that appends take: there may be thousands.
        let beyond = self.unfinished.partition_point(is_beyond);
        let last = self.unfinished.get(beyond.checked_sub(1)?)?;
        let is_synced = Some(last.segment.ranks.1) <= self.synced_to;
        if is_synced { None } else { last.segment.next_offset() }
    }

    // ---- footers -------------------------------------------------------------------------------

    /// Whether a segment waits for its footer, synced or not.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Whether a segment was sealed since this was last asked. To ask for the work after each append
    /// until it is done kept a processor busy, and with it the lock that appends take.
    #[inline]
    pub(crate) fn take_request(&mut self) -> bool {
        !std::mem::replace(&mut self.is_requested, true) && self.has_unfinished()
    }

    /// The footer to be written next: of the oldest segment without one, once it is synced. A file
    /// of `spare_bytes` stays as it is, since it may become a spare.
    pub(crate) fn begin_footer(&self, spare_bytes: Option<u64>) -> Option<FooterTask> {
        let is_synced = |oldest: &Unfinished| Some(oldest.segment.ranks.1) <= self.synced_to;
        let is_due = |oldest: &&Unfinished| is_synced(oldest) || !Rule::FooterAfterSync.holds();
        let oldest = self.unfinished.front().filter(is_due)?;
        let sealed = *oldest.segment.sealed()?;
        let footer = Footer {
            base_offset: oldest.segment.base_offset,
            next_offset: sealed.next_offset,
            data_end: sealed.data_end,
            times: sealed.times,
            leader_epoch: oldest.leader_epoch,
            incarnation: oldest.incarnation,
            index: oldest.index.clone(),
            producers: oldest.producers.clone(),
            next_horizon: None,
        };
        Some(FooterTask {
            segment: Arc::clone(&oldest.segment),
            sealed,
            footer,
            is_found: oldest.is_found,
            index_is_whole: oldest.index_is_whole,
            spare_bytes,
            is_shared: false,
        })
    }

    /// The segment needs no more work. One that is shared must not delay those after it; its index
    /// is in memory only.
    pub(crate) fn finish_footer(&mut self, task: &FooterTask) {
        let done = |front: &mut Unfinished| Arc::ptr_eq(&front.segment, &task.segment);
        if self.unfinished.front_mut().is_some_and(done) {
            let done = self.unfinished.pop_front();
            self.footerless.extend(done.filter(|_| task.is_shared));
        }
        self.assert_valid();
    }

    /// What is known of a segment without a footer.
    pub(crate) fn without_footer(&self, number: u64) -> Option<&Unfinished> {
        let mut all = self.unfinished.iter().chain(&self.footerless);
        all.find(|unfinished| unfinished.segment.number == number)
    }

    /// Whether this segment has no footer, because it is not written yet or never will be.
    pub(crate) fn lacks_footer(&self, number: u64) -> bool {
        self.without_footer(number).is_some()
    }

    /// Whether this segment, and all before it, are durable and wait for no footer.
    pub(crate) fn is_finished(&self, segment: &Segment) -> bool {
        let first = self.unfinished.front();
        first.is_none_or(|first| segment.ranks.1 < first.segment.ranks.0)
    }

    // ---- what leaves ---------------------------------------------------------------------------

    /// Retention has removed the segments up to this rank.
    pub(crate) fn remove_up_to(&mut self, rank: u64) {
        let stays = |segment: &Segment| segment.ranks.0 > rank;
        self.unfinished.retain(|unfinished| stays(&unfinished.segment));
        self.to_sync.retain(|file| stays(&file.segment));
        self.footerless.retain(|footerless| stays(&footerless.segment));
        self.unproved.retain(|unproved| stays(&unproved.segment));
    }

    /// Compaction has replaced these segments.
    pub(crate) fn remove_replaced(&mut self, replaced: &[Arc<Segment>]) {
        let is_replaced =
            |segment: &Arc<Segment>| replaced.iter().any(|it| Arc::ptr_eq(it, segment));
        self.footerless.retain(|footerless| !is_replaced(&footerless.segment));
    }

    /// The segments that begin at or above `offset` were cut off, and `shortened` ends there. It gets
    /// no footer in this run: readers may have its map, so what was cut off must not be released.
    #[cfg(feature = "replication")]
    pub(super) fn cut(&mut self, offset: u64, shortened: Option<Unfinished>) {
        let number = shortened.as_ref().map(|shortened| shortened.segment.number);
        let stays =
            |segment: &Segment| segment.base_offset < offset && Some(segment.number) != number;
        self.unfinished.retain(|unfinished| stays(&unfinished.segment));
        self.to_sync.retain(|file| stays(&file.segment));
        self.footerless.retain(|footerless| stays(&footerless.segment));
        self.unproved.retain(|unproved| stays(&unproved.segment));
        self.footerless.extend(shortened);
        self.sealed_bytes = self.unfinished.back().map_or(self.sealed_bytes, |last| last.sealed_to);
        self.assert_valid();
    }

    /// The files were removed with their topic: there is no more work.
    pub(crate) fn clear(&mut self) {
        self.unfinished.clear();
        self.to_sync.clear();
        self.footerless.clear();
        self.unproved.clear();
    }

    /// The rank of the last segment without a footer.
    fn last_rank(&self) -> Option<u64> {
        self.unfinished.back().map(|last| last.segment.ranks.1)
    }

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// What is wrong, if anything: invariant 1.
    fn check(&self) -> Result<(), &'static str> {
        let in_order = |ranks: &mut dyn Iterator<Item = u64>| ranks.is_sorted_by(|a, b| a < b);
        if !in_order(&mut self.to_sync.iter().map(|it| it.segment.ranks.1)) {
            return Err("the files to sync are out of order");
        }
        if !in_order(&mut self.unfinished.iter().map(|it| it.segment.ranks.1)) {
            return Err("the segments without a footer are out of order");
        }
        if !in_order(&mut self.unproved.iter().map(|it| it.segment.ranks.1)) {
            return Err("the unproved tails are out of order");
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
