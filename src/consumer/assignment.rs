//! The partitions of a consumer with their positions: how it takes them over and gives them up.
//!
//! Owns: the consumer's role in its group, its slots, the partitions that wait for a position, the
//! gaps, and the rebalance callback. Must not know: how a poll waits, and what was read ahead.
//!
//! Invariant: a consumer stops reading a revoked partition before it reports the revocation to the
//! group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::auto::AutoCommit;
use super::commit::Commits;
use super::followed::Followed;
use super::gaps::{Gap, Gaps};
use super::pending::Pending;
use super::rebalance::{Callback, Failed, Listener, Rebalance};
use super::role::Role;
#[cfg(feature = "testing")]
use super::seen;
use super::settings::Settings;
use super::slot::Slot;
use super::slot_maker::{SlotMaker, committed_of};
use super::slots::{Look, Slots};
use super::subscription::FirstSubscription;
use crate::broker::Run;
use crate::error::{Error, Result};
use crate::group::commit::Wait;
use crate::group::interest::Interest;
use crate::group::members::JoinRequest;
use crate::group::membership::Membership;
use crate::message::Batch;
use crate::partition::PartitionCore;
use crate::partition::waiters::Notifier;
use crate::record::{Offsets, TopicPartition};
#[cfg(feature = "testing")]
use crate::seams::RebalanceKind;

pub(super) struct Assigned {
    run: Arc<Run>,
    settings: Settings,
    role: Role,
    auto: AutoCommit,
    listener: Listener,
    pending: Pending,
    slots: Slots,
    gaps: Gaps,
    maker: SlotMaker,
    /// Without a group: the topics whose changes it follows.
    followed: Option<Followed>,
}

impl Assigned {
    pub(super) fn new(
        run: &Arc<Run>,
        group: Option<Arc<str>>,
        settings: Settings,
        callback: Option<Callback>,
        notifier: &Arc<Notifier>,
    ) -> Self {
        Self {
            run: Arc::clone(run),
            auto: AutoCommit::new(settings.commit, run.clock().monotonic()),
            settings,
            role: group.map_or(Role::Reader, Role::Standalone),
            listener: Listener::new(callback),
            pending: Pending::default(),
            slots: Slots::new(),
            gaps: Gaps::default(),
            maker: SlotMaker::new(notifier),
            followed: None,
        }
    }

    // ---- its parts ---------------------------------------------------------------------------

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    #[inline]
    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    #[inline]
    pub(super) fn slots_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }

    /// Commits for this consumer.
    pub(super) fn commits(&mut self) -> Commits<'_> {
        self.parts().0
    }

    /// The callback and its second argument.
    fn parts(&mut self) -> (Commits<'_>, &mut Listener) {
        let Self { run, role, settings, slots, gaps, pending, maker, listener, .. } = self;
        (Commits::new((run, role, settings), slots, gaps, pending, maker), listener)
    }

    pub(super) fn take_gaps(&mut self) -> Vec<Gap> {
        self.gaps.take()
    }

    #[inline]
    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// What the group has committed for a partition; `None` also without a group.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub(super) fn committed(&self, partition: &TopicPartition) -> Result<Option<u64>> {
        let topic = self.run.topic(&partition.topic)?;
        let Some(group) = self.role.group() else { return Ok(None) };
        let offsets = self.run.coordinator().offsets();
        let committed = offsets.committed(group, topic.id, partition.partition);
        Ok(committed.map(|committed| committed.offset))
    }

    // ---- reading -----------------------------------------------------------------------------

    pub(super) fn fetch(&mut self, look: Look) -> Result<Batch> {
        if self.run.context().settings.read_only {
            follow_reopened(&self.run, &mut self.slots, &mut self.maker, &self.settings);
        }
        let Self { run, settings, role, slots, gaps, .. } = self;
        slots.fetch(look, role.is_member(), settings, gaps, || run.gate().check_open())
    }

    /// Why a partition has no position.
    pub(super) fn position_failure(&self) -> Option<&Error> {
        self.pending.failure()
    }

    // ---- auto mode ---------------------------------------------------------------------------

    #[inline]
    pub(super) fn pass_handed_out(&mut self) {
        if self.auto.is_on() {
            self.slots.pass_handed_out();
        }
    }

    /// How long a wait may be before auto mode has something to commit.
    pub(super) fn time_to_commit(&mut self) -> Option<Duration> {
        let has_news = self.auto.is_on() && may_commit(&self.run) && self.commits().has_passed();
        has_news.then(|| self.auto.time_left(self.run.clock().monotonic()))
    }

    #[inline]
    pub(super) fn commit_if_due(&mut self) -> Result<()> {
        if self.auto.is_on()
            && may_commit(&self.run)
            && self.auto.take_due(self.run.clock().monotonic())
        {
            return self.commits().commit_passed(Wait::No);
        }
        Ok(())
    }

    // ---- opening -----------------------------------------------------------------------------

    /// Becomes a member of the group, and takes over the free partitions of its share. The first
    /// poll reports them to the callback.
    pub(super) fn join(&mut self, group: &Arc<str>, request: &JoinRequest) -> Result<()> {
        let notifier = self.maker.notifier();
        let member = Membership::join(self.run.coordinator(), group, request, notifier)?;
        self.role = Role::Member(member);
        // Before it has any partition: the start of the group depends on this.
        FirstSubscription::new(&self.run, group, &self.settings).store(&request.interest)?;
        let taken = self.follow_plan();
        self.listener.open();
        taken.and(self.pending.take_failure().map_or(Ok(()), Err))
    }

    /// Takes whole topics, or partitions chosen by hand.
    pub(super) fn take_by_hand(
        &mut self,
        interest: Interest,
        partitions: Vec<TopicPartition>,
    ) -> Result<()> {
        let seen = self.run.live().changes();
        let mut all = partitions;
        let counts = self.run.live().all();
        let counts = counts.iter().map(|it| (Arc::clone(&it.name), it.config.partitions)).collect();
        for topic in interest.resolve(&counts).topics() {
            let count = self.run.topic(topic)?.config.partitions;
            let partition = |partition| TopicPartition { topic: Arc::clone(topic), partition };
            all.extend((0..count).map(partition));
        }
        self.assign(all)?;
        if interest.each().next().is_some() {
            self.run.live().follow(self.maker.notifier());
            self.followed = Some(Followed::new(interest, seen));
        }
        self.listener.open();
        Ok(())
    }

    /// Reads exactly these partitions from now on. Those that it has read before keep their
    /// positions. If one of the others has no position, nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a member of a group; [`Error::UnknownTopic`],
    /// [`Error::UnknownPartition`]; those of a position.
    pub(super) fn assign(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        if self.role.is_member() {
            let reason = "the group assigns this consumer's partitions; open one with `assign`";
            return Err(Error::config("assign", reason));
        }
        let all: BTreeSet<_> = partitions.into_iter().collect();
        let is_new = |partition: &&TopicPartition| self.slots.index_of(partition).is_err();
        let new: Vec<_> = all.iter().filter(is_new).cloned().collect();
        let slots = new.iter().map(|partition| self.positioned_slot(partition));
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let before = self.slots.partitions();
        self.forget(before.iter().filter(|partition| !all.contains(*partition)));
        self.slots.add(slots);
        self.followed = None;
        Ok(())
    }

    /// Follows the topics of a reader: what was added is read from its beginning.
    fn follow_topics(&mut self) {
        let Some(followed) = &mut self.followed else { return };
        let Some(changes) = followed.changes(&self.run, &self.slots) else { return };
        self.forget(&changes.drop);
        for partition in &changes.add {
            // Deleted meanwhile: the next call finds that.
            let Ok(mut slot) = self.maker.make(&self.run, &self.role, partition) else { continue };
            slot.move_to(0);
            self.slots.add([slot]);
        }
    }

    // ---- rebalances --------------------------------------------------------------------------

    /// Follows the group's plan: gives up partitions first, then takes over. The caller has
    /// discarded what was read ahead.
    pub(super) fn follow_plan(&mut self) -> Result<()> {
        loop {
            let Role::Member(member) = &self.role else {
                self.follow_topics();
                return Ok(());
            };
            if !member.needs_attention() {
                self.report_assigned()?;
                self.take_over();
                return Ok(());
            }
            if member.is_dismissed() {
                // The broker has lost the leadership of its replicated group, and with it all members.
                let all = self.owned();
                self.lose(&all).map_err(Failed::raise)?;
                if let Role::Member(member) = &self.role {
                    let again =
                        join_again(member, &self.run, &self.settings, self.maker.notifier())?;
                    self.role = Role::Member(again);
                }
                continue;
            }
            let change = match member.poll() {
                Err(fenced @ Error::Fenced { .. }) => {
                    let all = self.owned();
                    // The next poll returns that it was fenced.
                    self.lose(&all).map_err(Failed::raise)?;
                    return Err(fenced);
                }
                change => change?,
            };
            let heard = self.lose(&change.lost);
            let Role::Member(member) = &self.role else { return Ok(()) };
            // An eviction and a revocation are reported again to the next poll; an assignment is not.
            if change.is_evicted || !change.revoke.is_empty() {
                heard.map_err(Failed::raise)?;
                if change.is_evicted {
                    member.rejoin()?;
                } else {
                    self.give_up(&change.revoke)?;
                }
                continue;
            }
            for partition in &change.assign {
                self.pending.add(partition.clone(), member.epoch_of(partition));
            }
            #[cfg(feature = "testing")]
            seen::rebalance(
                &self.run.context().env.seams,
                &self.role,
                RebalanceKind::Assigned,
                &change.assign,
            );
            self.listener.add(change.assign);
            self.take_over();
            heard.map_err(Failed::raise)?;
            // Changes that the callback causes are for the next poll, so that this one ends.
            return self.report_assigned();
        }
    }

    fn report_assigned(&mut self) -> Result<()> {
        let assigned = self.listener.take_unreported();
        let heard = self.notify(Rebalance::Assigned, &assigned);
        if matches!(heard, Err(Failed::Error(_))) {
            self.listener.put_back(assigned);
        }
        heard.map_err(Failed::raise)
    }

    fn notify<'p>(
        &mut self,
        event: impl FnOnce(&'p [TopicPartition]) -> Rebalance<'p>,
        partitions: &'p [TopicPartition],
    ) -> Result<(), Failed> {
        let (mut commits, listener) = self.parts();
        listener.notify(event, partitions, &mut commits)
    }

    /// The partitions that the group assigned, with a position or without, in order.
    fn owned(&self) -> Vec<TopicPartition> {
        let all = self.slots.iter().map(Slot::origin).chain(self.pending.iter().map(|it| it.0));
        all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// Partitions were taken away.
    fn lose(&mut self, lost: &[TopicPartition]) -> Result<(), Failed> {
        if lost.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "testing")]
        seen::rebalance(&self.run.context().env.seams, &self.role, RebalanceKind::Lost, lost);
        let reported = self.listener.reported(lost);
        let heard = self.notify(Rebalance::Lost, &reported);
        self.forget(lost);
        heard
    }

    /// Gives partitions up: the new owners continue where this one stopped.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let committed =
            if self.auto.is_on() { self.commits().commit_passed(Wait::No) } else { Ok(()) };
        #[cfg(feature = "testing")]
        seen::rebalance(
            &self.run.context().env.seams,
            &self.role,
            RebalanceKind::Revoked,
            partitions,
        );
        let reported = self.listener.reported(partitions);
        let heard = self.notify(Rebalance::Revoked, &reported);
        self.forget(partitions);
        let revoked = match &self.role {
            Role::Member(member) => member.revoked(partitions),
            _ => Ok(()),
        };
        heard.map_err(Failed::raise)?;
        revoked?;
        // A failed commit does not stop the hand-over: the new owners read the records again.
        committed
    }

    /// Commits, in auto mode, and reports the revocation of all partitions. The drop of the role
    /// leaves the group.
    pub(super) fn give_up_everything(&mut self) -> Result<()> {
        let mut heard = Ok(());
        if self.role.is_member() {
            let slots = self.slots.iter().map(|slot| (slot.origin(), slot.epoch()));
            let lost = slots.chain(self.pending.iter());
            let lost = lost.filter(|(partition, epoch)| self.role.epoch_of(partition) != *epoch);
            let lost: Vec<_> = lost.map(|(partition, _)| partition.clone()).collect();
            heard = self.lose(&lost);
        }
        let level = self.commits().level();
        let committed =
            if self.auto.is_on() { self.commits().commit_passed(level) } else { Ok(()) };
        if self.role.is_member() {
            #[cfg(feature = "testing")]
            seen::rebalance(
                &self.run.context().env.seams,
                &self.role,
                RebalanceKind::Revoked,
                &self.owned(),
            );
            let left = self.listener.reported(&self.owned());
            heard = heard.and(self.notify(Rebalance::Revoked, &left));
        }
        heard.map_err(Failed::raise)?;
        committed
    }

    /// Takes over the assigned partitions that have a position. One without a position does not
    /// prevent the others from being read.
    fn take_over(&mut self) {
        let mut positioned = Vec::new();
        for (partition, epoch) in self.pending.take() {
            match self.positioned_slot(&partition) {
                Ok(slot) => positioned.push(slot),
                // Deleted meanwhile; the plan will say so.
                Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => {}
                Err(error) => self.pending.put_back(partition, epoch, error),
            }
        }
        self.slots.add(positioned);
    }

    /// These partitions are another's now.
    fn forget<'p>(&mut self, partitions: impl IntoIterator<Item = &'p TopicPartition>) {
        let gone: BTreeSet<&TopicPartition> = partitions.into_iter().collect();
        self.slots.remove(&gone);
        self.pending.forget(&gone);
        self.listener.forget(&gone);
        self.gaps.forget_taken_over(&gone);
    }

    // ---- positions ---------------------------------------------------------------------------

    /// A slot for a partition that is taken over: at the committed offset, or at the start of a
    /// partition without a commit.
    fn positioned_slot(&mut self, partition: &TopicPartition) -> Result<Slot> {
        let mut slot = self.maker.make(&self.run, &self.role, partition)?;
        let committed = committed_of(&self.run, &self.role, &slot);
        if !slot.core().is_available() {
            // Its ends are not certain, so the group is not moved by them.
            let has_begun = has_begun(&self.run, &self.role, &partition.topic);
            slot.stand_by(committed, committed.is_none() && !has_begun);
            return Ok(slot);
        }
        let gap = match committed {
            Some(committed) => slot.resume_at(committed, &self.settings)?,
            None if has_begun(&self.run, &self.role, &partition.topic) => {
                slot.begin(&self.settings)?
            }
            None => {
                slot.start_at(self.settings.start, &self.settings)?;
                None
            }
        };
        if let Some(gap) = gap {
            self.gaps.push_taken_over(gap);
        }
        Ok(slot)
    }

    /// Gaps that were found when partitions were taken over count from the first poll that reads
    /// them.
    #[inline]
    pub(super) fn keep_gaps(&mut self) {
        for gap in self.gaps.take_taken_over() {
            let index = self.slots.index_of(&gap.partition);
            if let Some(slot) = index.ok().and_then(|index| self.slots.get(index)) {
                slot.count_gap(&gap);
            }
            self.gaps.push(gap);
        }
    }
}

/// Whether the callback that ran last was that of an assignment, and has failed: it is called again.
pub(super) fn awaits_callback(assigned: &Assigned) -> bool {
    assigned.listener.has_put_back()
}

/// An end of each of these partitions, also of those that the consumer does not read.
pub(super) fn ends<P: Into<TopicPartition>>(
    run: &Run,
    partitions: impl IntoIterator<Item = P>,
    end: impl Fn(&PartitionCore) -> u64,
) -> Result<Offsets> {
    let end_of = |partition: P| {
        let partition = partition.into();
        let end = end(run.topic(&partition.topic)?.partition(partition.partition)?);
        Ok((partition, end))
    };
    partitions.into_iter().map(end_of).collect()
}

/// Continues in partitions that a refresh has opened again.
#[cold]
fn follow_reopened(run: &Run, slots: &mut Slots, maker: &mut SlotMaker, settings: &Settings) {
    for slot in slots.iter_mut().filter(|slot| slot.core().is_closed()) {
        let Some(topic) = run.live().of_id(slot.topic().id) else { continue };
        let now = topic.partition(slot.origin().partition).ok();
        if let Some(core) = now.filter(|core| !core.is_closed()).cloned() {
            let token = maker.next_token();
            slot.continue_in(topic, core, (maker.notifier(), token), settings);
        }
    }
}

/// Whether the group has begun to read this topic. Only members have subscriptions.
fn has_begun(run: &Run, role: &Role, topic: &str) -> bool {
    let Role::Member(member) = role else { return false };
    run.coordinator().offsets().has_subscribed_to(member.group(), topic)
}

/// Whether auto mode commits: where another member of a replicated group leads, it waits.
#[inline]
fn may_commit(run: &Run) -> bool {
    !run.leading().follows()
}

/// Joins the group once more, if the broker leads: the member continues at what is committed now.
fn join_again(
    member: &Membership,
    run: &Run,
    settings: &Settings,
    notifier: &Arc<Notifier>,
) -> Result<Membership> {
    let again = member.join_again(notifier)?;
    FirstSubscription::new(run, again.group(), settings).store(again.interest())?;
    Ok(again)
}
