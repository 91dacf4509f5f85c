//! A log that is replicated: its leader epochs, its batches as a follower gets them, and a follower
//! that stores them.
//!
//! Method: a [`Leader`] appends under changing epochs and remembers where each began; whatever was
//! rolled, reopened, retained or compacted since, its history has to agree. A follower has to hold
//! the same portable bytes.

use super::compaction::{Shared, TERMS};
use super::*;
use crate::format::{BatchHeader, BatchView, SparseIndex};
use crate::log::locate::whole_index_of;
use crate::log::replica::append::{Terms, admit, append as append_received, set_epoch};
use crate::log::replica::cut::{Cut, apply, plan, plan_anew};
use crate::log::replica::feed::{FeedLimits, Portion, read};
use crate::log::replica::history::{EpochEnd, History};
use crate::log::replica::received::Received;
use crate::log::replica::refusal::{Failure, Refusal};
use crate::log::replica::under::Under;
use crate::log::segment::Segment;

mod cut;
mod feed;
mod follower;
mod history;

/// Appends in an epoch, which is not below the one before.
fn append_in(log: &mut Log, epoch: u32, count: u64, size: usize) {
    let last = last_epoch(log);
    set_epoch(log, epoch, last).unwrap();
    append(log, count, size);
}

fn with_history<R>(log: &Log, ask: impl FnOnce(&History<'_>) -> R) -> R {
    let index_of = |segment: &Segment| -> Option<SparseIndex> { whole_index_of(log, segment) };
    ask(&History::new(log.segments(), log.log_start(), &index_of))
}

fn last_epoch(log: &Log) -> Option<u32> {
    try_last_epoch(log).unwrap()
}

pub(super) fn try_last_epoch(log: &Log) -> Result<Option<u32>> {
    Ok(with_history(log, |history| history.end_of(u32::MAX))?.map(|last| last.epoch))
}

fn feed(log: &Log, offset: u64, bytes: usize) -> Result<Vec<Portion>> {
    let limits = FeedLimits { bytes, end: log.log_end() };
    let index_of = |segment: &Segment| index_of(log, segment).map(|index| floor(index, offset));
    read(log.segments(), offset, limits, &index_of)
}

/// What a follower does with what it received.
fn store(log: &mut Log, bytes: &[u8], under: Under, sparse_below: u64) -> Result<(), Refusal> {
    let received = Received::check(bytes, under)?;
    let terms = Terms { last_epoch: last_epoch(log), sparse_below };
    admit(log, &received, &terms)?;
    append_received(log, &received).unwrap();
    assert_eq!(log.log_end(), received.next_offset);
    Ok(())
}

/// What a follower does with batches that continue its log, on a disk that may fail.
pub(super) fn try_store(log: &mut Log, bytes: &[u8], under: Under) -> Result<()> {
    let received = Received::check(bytes, under).unwrap();
    let terms = Terms { last_epoch: try_last_epoch(log)?, sparse_below: 0 };
    admit(log, &received, &terms).unwrap();
    append_received(log, &received)
}

/// What the partition does to truncate.
pub(super) fn truncate(log: &mut Log, offset: u64, bound: u64) -> Result<u64, Failure> {
    sync(log)?;
    let ends = *log.ends();
    let cut = with_history(log, |history| plan(history, ends, offset, bound))?;
    if let Some(cut) = cut {
        carry_out(log, cut)?;
    }
    Ok(log.log_end())
}

/// What the partition does to begin anew. The caller has noted the log start.
pub(super) fn begin_anew(log: &mut Log, offset: u64) -> Result<(), Failure> {
    sync(log)?;
    let cut = plan_anew(*log.ends(), offset, None)?;
    Ok(carry_out(log, cut)?)
}

fn carry_out(log: &mut Log, cut: Cut) -> Result<()> {
    let task = cut.begin(log)?;
    let made = task.run(&mut false)?;
    let cut_off = apply(log, cut, made);
    for segment in &cut_off.segments {
        let failed = |source| Error::io("remove", &segment.path, source);
        segment.remove_file().map_err(failed)?;
    }
    for unused in cut_off.prepared {
        unused.discard(&*log.env().disk);
    }
    cut_off.segments.first().map_or(Ok(()), |segment| segment.sync_dir())
}

/// Fetches from one log and stores in the other until both end alike.
fn catch_up(leader: &Log, follower: &mut Log, bytes: usize) {
    while follower.log_end() < leader.log_end() {
        let portions = feed(leader, follower.log_end(), bytes).unwrap();
        assert!(!portions.is_empty());
        for portion in portions {
            store(follower, portion.bytes(), portion.under, leader.log_end()).unwrap();
        }
    }
}

/// All batches: the headers without their local part, and the bytes after them.
fn portable(log: &Log) -> Vec<(BatchHeader, Vec<u8>)> {
    let portions = feed(log, log.log_start(), usize::MAX).unwrap();
    let mut batches = Vec::new();
    for portion in portions {
        let mut rest = portion.bytes();
        while let Some(view) = BatchView::check(rest, &portion.under.key().unwrap()).unwrap() {
            let header = view.header();
            let bytes = &rest[12..header.size as usize];
            batches
                .push((BatchHeader { checksum: 0, durable_distance: 0, ..header }, bytes.to_vec()));
            rest = &rest[header.size as usize..];
        }
    }
    batches
}
