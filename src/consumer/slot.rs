//! One partition as a consumer reads it: its start, the offsets that it skips, its errors.
//!
//! Owns: the partition's parts: its [`Progress`], its [`CommitMark`], its [`Failure`] and its
//! [`Arming`], of which only the first three are seen by others. Must not know: other partitions,
//! and when a commit is made.

use std::ops::Range;
use std::sync::Arc;

use super::arming::Arming;
use super::commit_mark::CommitMark;
use super::failure::Failure;
use super::gaps::{Gap, Gaps};
use super::progress::Progress;
use super::settings::Settings;
use crate::config::{StartAt, Visibility};
use crate::error::{Corruption, Error, Result};
use crate::group::offsets::Committed;
use crate::group::owners::OwnershipEpoch;
use crate::log::cursor::{FetchLimits, Fetched};
use crate::message::Message;
use crate::partition::PartitionCore;
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::topic::TopicShared;
use crate::trace::note;

pub(super) struct Slot {
    topic: Arc<TopicShared>,
    core: Arc<PartitionCore>,
    /// The origin of its messages. Each ownership has its own, so that a message also identifies
    /// the ownership under which it was read; without a group it is the partition's.
    origin: Arc<TopicPartition>,
    pub(super) progress: Progress,
    pub(super) commits: CommitMark,
    pub(super) failure: Failure,
    is_paused: bool,
    /// It is to begin where the settings say, and was unavailable until now.
    awaits_start: bool,
    /// The ownership of the partition, in a group.
    epoch: Option<OwnershipEpoch>,
    arming: Arming,
}

impl Slot {
    pub(super) fn new(
        topic: Arc<TopicShared>,
        core: Arc<PartitionCore>,
        notifier: &Arc<Notifier>,
        token: usize,
    ) -> Self {
        let (arming, origin) = (Arming::new(&core, notifier, token), Arc::clone(&core.origin));
        Self {
            topic,
            core,
            origin,
            progress: Progress::default(),
            commits: CommitMark::default(),
            failure: Failure::default(),
            is_paused: false,
            awaits_start: false,
            epoch: None,
            arming,
        }
    }

    pub(super) fn origin(&self) -> &TopicPartition {
        &self.origin
    }

    pub(super) fn topic(&self) -> &TopicShared {
        &self.topic
    }

    #[inline]
    pub(super) fn core(&self) -> &Arc<PartitionCore> {
        &self.core
    }

    pub(super) fn epoch(&self) -> Option<OwnershipEpoch> {
        self.epoch
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// A group gives the partition, under this ownership.
    pub(super) fn begin_ownership(&mut self, epoch: Option<OwnershipEpoch>) {
        self.epoch = epoch;
        self.origin = Arc::new(TopicPartition::clone(&self.core.origin));
    }

    /// Whether the message was read here. A partition that was lost and regained has another slot.
    pub(super) fn has_read(&self, message: &Message) -> bool {
        Arc::ptr_eq(message.origin(), &self.origin)
    }

    /// What slots are ordered by.
    #[inline]
    pub(super) fn key(&self) -> (&str, u32) {
        (&self.core.origin.topic, self.core.origin.partition)
    }

    /// Moves the slot to `offset`, and discards what was read ahead and its error.
    pub(super) fn move_to(&mut self, offset: u64) {
        self.progress.move_to(offset);
        self.restart();
    }

    /// Continues after missing records, as [`Progress::skip_to`].
    fn skip_to(&mut self, offset: u64) {
        self.progress.skip_to(offset);
        self.restart();
    }

    fn restart(&mut self) {
        self.arming.disarm();
        self.failure = Failure::default();
    }

    /// Discards what was read ahead and not returned.
    pub(super) fn rewind(&mut self) {
        if self.progress.rewind() {
            self.arming.disarm();
        }
    }

    /// Resumes at the committed offset, if it still refers to the same records.
    pub(super) fn resume_at(
        &mut self,
        committed: Committed,
        settings: &Settings,
    ) -> Result<Option<Gap>> {
        let Committed { offset, incarnation, .. } = committed;
        // In a replicated log an offset is committed only below the high watermark, where nothing is
        // cut; this member may not have the records yet.
        let is_replicated = self.core.log().ends().is_replicated();
        // Not the visible end: in a poisoned partition that is the durable one, and nothing was
        // cut.
        let end = if is_replicated { u64::MAX } else { self.core.log_end() };
        let cut = self.core.log().lineage().cut_below(offset, incarnation);
        // A read-only broker knows only the cuts that it has noticed itself.
        let cut = cut.filter(|_| !is_replicated && self.topic.read_only.is_none());
        if let Some(cut_to) = cut.or_else(|| (offset > end).then_some(end)) {
            // A recovery cut the log: new records must not be skipped unnoticed because they have
            // the offsets of the lost ones. Reading continues at the cut, where they begin.
            // The committed offset refers to lost records, so any commit is a change.
            let start = self.core.log_start();
            self.move_to(cut_to.max(start));
            self.commits.take_from(self.progress.handed_out());
            let partition = self.origin().clone();
            let error = Error::Truncated { partition, committed: offset, end: cut_to };
            self.failure.keep(error);
            let partition = self.origin().clone();
            return Ok((cut_to < start).then_some(Gap { partition, missed: cut_to..start }));
        }
        self.move_to(offset);
        self.commits.resume(offset);
        if offset < self.core.log_start() {
            let gap = self.leave_gap(offset, settings)?;
            // A commit inside the gap would make the next owner report the rest of it again.
            self.commits.take_from(self.progress.handed_out());
            return Ok(Some(gap));
        }
        Ok(None)
    }

    /// In a read-only broker, a partition was opened again, because its files can be read again, or
    /// because a recovery by the broker that writes has cut it: then the position may be beyond the
    /// cut.
    pub(super) fn continue_in(
        &mut self,
        topic: Arc<TopicShared>,
        core: Arc<PartitionCore>,
        (notifier, token): (&Arc<Notifier>, usize),
        settings: &Settings,
    ) {
        let position = self.progress.handed_out();
        let known = self.core.log().lineage().current().unwrap_or(0);
        self.arming = Arming::new(&core, notifier, token);
        (self.topic, self.core) = (topic, core);
        if self.awaits_start {
            // Now, not with the first records. If it fails, the next fetch tries again.
            self.restart();
            let _ = self.start_at(settings.start, settings);
            return;
        }
        let cut = self.core.log().lineage().cut_below(position, known);
        self.move_to(cut.unwrap_or(position));
        if let Some(end) = cut {
            let partition = self.origin().clone();
            self.failure.keep(Error::Truncated { partition, committed: position, end });
        }
    }

    /// Begins in a partition that is unavailable: the next poll returns its error. `awaits_start`: when
    /// it can be read, it begins where the settings say.
    pub(super) fn stand_by(&mut self, committed: Option<Committed>, awaits_start: bool) {
        let committed = committed.map(|committed| committed.offset);
        self.move_to(committed.unwrap_or_else(|| self.core.log_start()));
        self.awaits_start = awaits_start;
        self.commits.stand_by(committed);
    }

    /// Begins in a partition without a commit of a topic to which the group has subscribed: where
    /// the log was made to begin, as if that were committed. The first segment of a log has the
    /// number 0 and says where that is; without it records were removed, and the log is taken for
    /// one that was made at 0, as nearly all are.
    pub(super) fn begin(&mut self, settings: &Settings) -> Result<Option<Gap>> {
        let first = self.core.log().segments().first();
        let made_at = first.filter(|it| it.number == 0).map_or(0, |it| it.base_offset);
        self.move_to(made_at);
        let is_whole = self.core.log_start() <= made_at;
        if is_whole { Ok(None) } else { self.leave_gap(made_at, settings).map(Some) }
    }

    /// Puts the slot where `start` says.
    pub(super) fn start_at(&mut self, start: StartAt, settings: &Settings) -> Result<()> {
        self.core.log().status().check_available()?;
        let first = self.core.log_start();
        let offset = match start {
            // Other members may have records there already.
            StartAt::Offset(offset) if self.core.log().ends().is_replicated() => offset.max(first),
            start => offset_of(&self.core, start, first, settings.visibility)?,
        };
        self.move_to(offset);
        self.awaits_start = false;
        Ok(())
    }

    /// Retention has removed records that this consumer did not read: the policy says where it
    /// continues.
    fn leave_gap(&mut self, position: u64, settings: &Settings) -> Result<Gap> {
        let (start, end) = (self.core.log_start(), self.core.visible_end(settings.visibility));
        if settings.out_of_range == StartAt::Error {
            return Err(Error::out_of_range(self.origin(), position, start, end));
        }
        // Retention may continue meanwhile: what it removes behind `next` is the next gap. Records
        // that the policy skips are missed too, so the gap ends where reading continues.
        let to = settings.out_of_range;
        let next = offset_of(&self.core, to, start, settings.visibility)?.max(start);
        self.skip_to(next);
        let partition = self.origin().clone();
        Ok(Gap { partition, missed: position..next })
    }

    /// The gap will be reported to the consumer.
    pub(super) fn count_gap(&self, gap: &Gap) {
        self.core.reader().note_gap(gap.missed.end.saturating_sub(gap.missed.start));
        self.trace_gap(&gap.missed);
    }

    fn trace_gap(&self, missed: &Range<u64>) {
        let (partition, missed) = (Arc::clone(&self.origin), missed.clone());
        note!(self.core.log().trace(), Missed { partition, missed });
        self.core.log().trace().deliver();
    }

    fn meet_gap(&mut self, settings: &Settings, gaps: &mut Gaps) -> Result<()> {
        let gap = self.leave_gap(self.progress.fetched(), settings)?;
        self.count_gap(&gap);
        gaps.push(gap);
        Ok(())
    }

    /// Adds what can be read now. Positions move by what was read.
    pub(super) fn fetch(
        &mut self,
        settings: &Settings,
        fetched: &mut Fetched,
        gaps: &mut Gaps,
    ) -> Result<()> {
        if let Some(error) = self.failure.take_pending() {
            return Err(error);
        }
        if self.core.is_closed() {
            // The broker is open, so this topic alone has ended.
            return Err(Error::UnknownTopic(self.topic.name.as_ref().to_owned()));
        }
        self.core.log().status().check_available()?;
        if self.awaits_start {
            self.start_at(settings.start, settings)?;
        }
        let visible_end = self.core.visible_end(settings.visibility);
        if self.progress.fetched() >= visible_end {
            return Ok(());
        }
        if self.progress.fetched() < self.core.log_start() {
            self.meet_gap(settings, gaps)?;
        }
        let limits =
            FetchLimits { records: settings.poll_records, bytes: settings.poll_bytes, visible_end };
        match self.read_on(&limits, fetched) {
            Err(Error::Corrupt(damage)) if settings.reads_around_damage => {
                self.pass_damage(damage, gaps)
            }
            // Retention has removed more meanwhile: the next pass continues where the policy says.
            Err(Error::OffsetOutOfRange { .. })
                if self.progress.fetched() < self.core.log_start() =>
            {
                self.meet_gap(settings, gaps)
            }
            other => other,
        }
    }

    fn read_on(&mut self, limits: &FetchLimits, fetched: &mut Fetched) -> Result<()> {
        let had = fetched.ranges.len();
        let result = self.progress.read(&self.core, limits, fetched);
        for range in fetched.ranges.iter_mut().skip(had) {
            range.origin = Arc::clone(&self.origin);
        }
        result
    }

    /// Continues after damage, whose offsets become a gap. The next pass reads there.
    fn pass_damage(&mut self, damage: Corruption, gaps: &mut Gaps) -> Result<()> {
        let Some(missed) =
            damage.offsets.clone().filter(|missed| missed.end > self.progress.fetched())
        else {
            return Err(damage.into());
        };
        self.skip_to(missed.end);
        self.core.reader().note_damage_passed(missed.end.saturating_sub(missed.start));
        self.trace_gap(&missed);
        gaps.push(Gap { partition: self.origin().clone(), missed });
        Ok(())
    }

    /// Pauses or resumes reading. A failed fetch is tried again.
    pub(super) fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        self.arming.disarm();
        self.failure.retry();
    }

    /// Whether a fetch may find something; `looks_at_armed`: also where the partition has not
    /// called.
    #[inline]
    pub(super) fn may_have_data(&self, looks_at_armed: bool, visibility: Visibility) -> bool {
        (looks_at_armed || !self.arming.is_armed())
            && !self.is_paused
            && (self.failure.is_pending()
                || self.awaits_start
                || self.core.visible_end(visibility) > self.progress.fetched()
                || !self.core.is_available()
                || self.core.is_closed())
    }

    /// Arms the slot. False when there is something to read already.
    pub(super) fn arm(&mut self, visibility: Visibility) -> bool {
        // A paused slot waits for nothing, not even for the deletion of its topic. The close of the
        // broker calls the consumer itself.
        if self.arming.is_armed() || self.is_paused {
            return true;
        }
        self.arming.arm(self.progress.fetched(), visibility)
    }

    /// These have fired. `tokens` are sorted.
    pub(super) fn disarm_if_among(&mut self, tokens: &[usize]) {
        self.arming.disarm_if_among(tokens);
    }

    /// Visible records that were not handed out.
    pub(super) fn lag(&self, visibility: Visibility) -> u64 {
        self.core.visible_end(visibility).saturating_sub(self.progress.handed_out())
    }
}

/// The offset that `start` means in a partition. `first` is the log start as the caller has seen
/// it.
pub(super) fn offset_of(
    core: &PartitionCore,
    start: StartAt,
    first: u64,
    visibility: Visibility,
) -> Result<u64> {
    let end = core.visible_end(visibility);
    Ok(match start {
        StartAt::Earliest => first,
        StartAt::Latest => end,
        // Out of range: the nearest end. In a replicated log, also of what a new leader does not know yet
        // that a majority has: a group may have got further under the one before.
        StartAt::Offset(offset) => {
            let is_replicated = core.log().ends().is_replicated();
            let end = if is_replicated { core.log_end() } else { end };
            offset.clamp(first, end.max(first))
        }
        StartAt::Time(time) => core.reader().offset_at(time)?.map_or(end, |offset| offset.min(end)),
        StartAt::Error => return Err(Error::NoOffset(TopicPartition::clone(&core.origin))),
    })
}
