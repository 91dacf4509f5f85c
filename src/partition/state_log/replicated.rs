//! The log of a state as a member of a replicated group has it.
//!
//! It is replicated as any other log: batch by batch, byte for byte, so its offsets, epochs, high
//! watermark and reads are those of its partition ([`Replica`]). What differs is here: the state in
//! memory follows the log. A follower checks each record in the state before it stores it. After a
//! truncation, and when a log begins anew, the log is read again.
//!
//! A leader cleans up: its copies and trims are records like others, and followers have them at the
//! same offsets. So the log from any trim on is a copy of the whole state, and a member that is
//! behind the log start of its leader needs nothing but the log from there.
//!
//! Uses the parts of the log, and owns nothing itself. Must not know: members, leadership, frames,
//! and how the watermark is computed.

use std::sync::Arc;

use super::draft::Drafts;
use super::replay::{Evidence, replay};
use super::writer::has_reserve_for;
use super::{LoggedState, SYNCED, StateLog};
use crate::error::{Error, Result};
use crate::log::replica::received::Received;
use crate::log::replica::refusal::{Failure, Refusal};
use crate::partition::PartitionCore;
use crate::partition::quorum::Quorum;
use crate::partition::replica::Replica;
use crate::rules::Rule;

/// The log of a state in a replicated group, whatever the state is. What is not here is asked of its
/// partition: [`Replica`] reads, and knows the epochs; [`Quorum`] has the calls that wait.
pub(crate) trait ReplicatedState: Send + Sync {
    fn partition(&self) -> &Arc<PartitionCore>;

    /// Begins the replication, as a follower: nothing is removed before its trim is below the
    /// watermark, which begins at the log start. To be called before the log is
    /// [started](StateLog::start), which then writes nothing.
    fn join(&self);

    /// Takes changes from now on, and gives them this epoch.
    ///
    /// # Errors
    ///
    /// The state is not whole; and as of [`Replica::set_epoch`].
    fn lead(&self, epoch: u32) -> Result<(), Failure>;

    /// Refuses all changes from now on, with [`Error::NotLeader`]. None is in progress on return.
    fn follow(&self);

    /// Appends what the leader has appended, and applies it. Returns the log end. Waits for no sync.
    ///
    /// # Errors
    ///
    /// A refusal changes nothing. After an error of the disk some batches may be appended: the log
    /// end says which.
    fn append_received(&self, received: &Received<'_>) -> Result<u64, Failure>;

    /// Cuts off everything at and above `offset`, durably. The state is what it was there.
    ///
    /// # Errors
    ///
    /// As of [`Replica::truncate`]. If the log cannot be read again, the partition is poisoned.
    fn truncate(&self, offset: u64, bound: u64) -> Result<u64, Failure>;

    /// Drops all there is, and continues at `offset`, where the leader's log begins. The caller has
    /// noted the offset durably before, and gives it to later openings as [`Evidence`].
    ///
    /// # Errors
    ///
    /// As of [`truncate`](Self::truncate).
    fn begin_anew(&self, offset: u64) -> Result<u64, Failure>;

    /// Whether the state has all its entries. If not, because the log has begun anew, it has them
    /// when the log has all that was below the watermark then.
    fn is_whole(&self) -> bool;

    /// Records that a majority has everything below `offset`, and has what may be removed then
    /// removed. Returns the watermark.
    fn advance(&self, offset: u64) -> u64;
}

/// As [`ReplicatedState::lead`], with a change that is the first one of the epoch, and durable on return.
/// `begin` makes that others take the broker for one that leads: it is called when their changes can only
/// come after this one.
///
/// # Errors
///
/// As there, and those of the append and its sync.
pub(crate) fn lead_with<S: LoggedState>(
    log: &StateLog<S>,
    epoch: u32,
    first: S::Change,
    begin: impl FnOnce(),
) -> Result<(), Failure> {
    check_whole(log)?;
    log.partition.log().status().check_process()?;
    let mut first = Drafts::of(log.made_now(vec![first]))?;
    Replica::of(&log.partition).set_epoch(epoch)?;
    let mut writer = log.writer.lock();
    writer.set_follows(false);
    begin();
    // The lock is kept until the change is in the log, also on a full disk: copies of older entries,
    // which make a spare, and what does not grow would come before it.
    let mut appended = writer.append(&mut first, SYNCED);
    let uses_reserve =
        appended.as_ref().err().is_some_and(|it| has_reserve_for(&log.partition, it));
    if uses_reserve {
        let rolled = log.reserve().roll(&writer, first.size());
        appended = rolled.and_then(|()| writer.append(&mut first, SYNCED));
    }
    if let Err(error) = appended {
        // Until the caller has ended what `begin` began, nobody appends.
        writer.set_follows(true);
        return Err(error.into());
    }
    drop(writer);
    // DURABILITY: before anything rests on it.
    Rule::StateSync.keep(|| log.partition.wait_durable(log.partition.log_end()))?;
    if uses_reserve {
        // The next change that finds no space tries again.
        let _ = log.reserve().free();
    }
    log.tidy();
    Ok(())
}

fn check_whole<S: LoggedState>(log: &StateLog<S>) -> Result<()> {
    if log.is_whole() {
        return Ok(());
    }
    let reason = "entries are missing of a state whose log has begun anew".to_owned();
    Err(Error::config("lead", reason))
}

impl<S: LoggedState + Send> ReplicatedState for StateLog<S> {
    fn partition(&self) -> &Arc<PartitionCore> {
        &self.partition
    }

    fn join(&self) {
        self.follow();
        Quorum::of(&self.partition).begin();
    }

    fn lead(&self, epoch: u32) -> Result<(), Failure> {
        check_whole(self)?;
        // Until the lock is held again, nothing is appended.
        Replica::of(&self.partition).set_epoch(epoch)?;
        self.writer.lock().set_follows(false);
        Ok(())
    }

    fn follow(&self) {
        self.writer.lock().set_follows(true);
    }

    fn append_received(&self, received: &Received<'_>) -> Result<u64, Failure> {
        self.check_writable()?;
        let mut writer = self.writer.lock();
        let end = self.partition.log_end();
        if received.base_offset != end {
            let found = received.base_offset;
            return Err(Refusal::Offset { expected: end, found }.into());
        }
        // Before the state has any of the records.
        Replica::of(&self.partition).admits(received, 0)?;
        let appended = writer.append_received(received);
        drop(writer);
        if appended.is_err() {
            read_again(self, None)?;
        }
        appended
    }

    fn truncate(&self, offset: u64, bound: u64) -> Result<u64, Failure> {
        change(self, None, |replica| replica.truncate(offset, bound))
    }

    fn begin_anew(&self, offset: u64) -> Result<u64, Failure> {
        change(self, Some(offset), |replica| replica.begin_anew(offset, None))
    }

    fn is_whole(&self) -> bool {
        StateLog::is_whole(self)
    }

    fn advance(&self, offset: u64) -> u64 {
        let watermark = Quorum::of(&self.partition).advance(offset);
        self.tidy();
        watermark
    }
}

/// Changes the log of a follower otherwise than by an append, while nothing is cleaned up.
fn change<S: LoggedState>(
    log: &StateLog<S>,
    anew_at: Option<u64>,
    change: impl FnOnce(Replica<'_>) -> Result<u64, Failure>,
) -> Result<u64, Failure> {
    let mut cleaning = log.cleaning.lock();
    let before = log.partition.log_end();
    let changed = change(Replica::of(&log.partition));
    if log.partition.log_end() != before || (anew_at.is_some() && changed.is_ok()) {
        read_again(log, anew_at)?;
        cleaning.begin_again(log.partition.log_start());
    }
    changed
}

/// Puts the state in force that the log has now. Nobody else changes the log of a follower.
fn read_again<S: LoggedState>(log: &StateLog<S>, anew_at: Option<u64>) -> Result<()> {
    let anew_at = anew_at.unwrap_or_else(|| log.writer.lock().replay().anew_at);
    let evidence = Evidence { anew_at, ..Evidence::default() };
    match replay(&log.partition, evidence, &[]) {
        Ok(replay) => {
            log.writer.lock().put(replay);
            Ok(())
        }
        Err(error) => {
            // The state in memory is not that of the log: nothing may be based on it.
            log.partition.log().lock().poison(error.clone());
            Err(error)
        }
    }
}
