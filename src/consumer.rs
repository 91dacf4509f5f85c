//! Consumers: records out, by position, alone or as a member of a group.
//!
//! Owns: positions, what was handed out, parking until there is something to read, following the
//! group's plan at each poll, commits. Must not know: segments and files; a partition hands it
//! checked batches.
//!
//! Invariants:
//! 1. `position` is what was handed out, not what was read ahead.
//! 2. Auto-commit covers only what a LATER poll has passed.
//! 3. A partition that the group takes away is read no more before the group hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::ConsumerBuilder;
use self::gaps::Gaps;
use self::rebalance::Callback;
pub use self::rebalance::{Commits, Rebalance};
use self::slot::Slot;
#[cfg(feature = "async")]
pub use self::stream::MessageStream;
use self::wait::Wait;
use crate::broker::Run;
use crate::config::{CommitMode, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::group::membership::Membership;
use crate::group::owners::OwnershipEpoch;
use crate::log::cursor::Fetched;
use crate::message::{Batch, IntoMessages, Message};
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::sync::{AtomicBool, Ordering};

mod assignment;
mod builder;
mod commit;
mod gaps;
mod position;
mod rebalance;
mod slot;
#[cfg(feature = "async")]
mod stream;
mod subscription;
mod wait;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    start: StartAt,
    out_of_range: StartAt,
    commit: CommitMode,
    visibility: Visibility,
    poll_records: usize,
    poll_bytes: usize,
    /// Damage is skipped, and noted as a gap, instead of returned.
    reads_around_damage: bool,
}

/// Offsets that a consumer missed: retention removed the records before it read them, its
/// [`out_of_range`](ConsumerBuilder::out_of_range) passed over them, or it skipped them as damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The partition.
    pub partition: TopicPartition,
    /// The offsets that were missed.
    pub missed: Range<u64>,
}

/// Who commits where.
enum Role {
    /// No group: nothing to commit to.
    Reader,
    /// Commits for a group, with partitions chosen by hand.
    Standalone(Arc<str>),
    Member(Membership),
}

/// Reads records, alone or as a member of a group. It belongs to one thread at a time, which `&mut
/// self` checks; give other threads a [`ConsumerHandle`]. Keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(4))?;
/// # broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
/// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// for message in inbox.poll(Duration::from_secs(1))?.iter() {
///     println!("{:?}: {:?}", message.key(), message.value());
/// }
/// inbox.commit()?; // the work is done: these messages are not handed out again
/// inbox.close()?;
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// A consumer that is dropped leaves its group at once, without a commit and without a callback.
/// [`close`](Self::close) commits in auto mode and calls back.
#[doc(alias = "KafkaConsumer")]
pub struct Consumer {
    run: Arc<Run>,
    role: Role,
    settings: Settings,
    /// In the order of their partitions.
    slots: Vec<Slot>,
    /// The slot that the next poll looks at first, so that none starves.
    turn: usize,
    notifier: Arc<Notifier>,
    last_token: usize,
    control: Arc<Control>,
    /// What was read for `recv` and not handed out yet.
    ahead: IntoMessages,
    gaps: Gaps,
    /// Partitions that the group gave to this consumer and that have no slot yet, since their
    /// position could not be found, with the ownership under which they were given. Each poll tries
    /// again.
    unplaced: BTreeMap<TopicPartition, Option<OwnershipEpoch>>,
    /// Why the last of them has no position.
    place_failure: Option<Error>,
    returned: Returned,
    callback: Option<Callback>,
    /// Partitions that the group gave to this consumer and that the callback has not heard of.
    untold: BTreeSet<TopicPartition>,
    /// Not before `open` has returned does the callback run.
    is_open: bool,
    /// The slot of the last message that `recv` handed out: the next one is mostly of the same.
    last_slot: usize,
    /// Whether more than that slot may have been handed out since auto mode last passed what was.
    passes_all: bool,
    /// When auto-commit is due, on the broker's clock.
    commit_due: Duration,
}

/// Which errors that last the caller has got since it was last handed a message.
#[derive(Debug, Default)]
struct Returned {
    /// That a partition has no position: the others are read in between.
    no_position: bool,
    /// An error of at least one slot, which says so itself.
    from_slot: bool,
    /// That the membership has ended for good. No message comes after it.
    fenced: bool,
}

#[derive(Debug)]
struct Control {
    /// Whether `ConsumerHandle::wake` was called since the last poll that ended by it.
    ///
    /// ORDERING: stored with Release by any thread that has a handle; taken with `AcqRel` by the
    /// consumer's own, which then sees what was done before the call. With Relaxed it could return
    /// from a poll and miss that. The call of the notifier that follows the store ends a wait that
    /// began before it.
    is_woken: AtomicBool,
    /// Whether `ConsumerHandle::shutdown` was called.
    ///
    /// ORDERING: as `is_woken`; stored once, and loaded with Acquire by each pass.
    is_shut_down: AtomicBool,
}

impl Control {
    fn new() -> Arc<Self> {
        let (is_woken, is_shut_down) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { is_woken, is_shut_down })
    }

    /// Whether somebody called [`ConsumerHandle::wake`] since this was asked last.
    #[inline]
    fn take_woken(&self) -> bool {
        // Read first: it is nearly always false, and a load costs a twentieth of a swap.
        self.is_woken.load(Ordering::Relaxed) && self.is_woken.swap(false, Ordering::AcqRel)
    }
}

impl Consumer {
    fn new(
        run: &Arc<Run>,
        group: Option<Arc<str>>,
        settings: Settings,
        callback: Option<Callback>,
    ) -> Self {
        let commit_due = match settings.commit {
            CommitMode::Manual => Duration::MAX,
            CommitMode::Auto { every } => run.clock().monotonic().saturating_add(every),
        };
        Self {
            run: Arc::clone(run),
            role: group.map_or(Role::Reader, Role::Standalone),
            settings,
            slots: Vec::new(),
            turn: 0,
            notifier: run.gate().consumers().add_new(),
            last_token: 0,
            control: Control::new(),
            ahead: Batch::default().into_iter(),
            gaps: Gaps::default(),
            unplaced: BTreeMap::new(),
            place_failure: None,
            returned: Returned::default(),
            callback,
            untold: BTreeSet::new(),
            is_open: false,
            last_slot: 0,
            passes_all: true,
            commit_due,
        }
    }

    /// Returns the next messages: those that are there, or, if there are none, what arrives within
    /// `timeout`. The batch is empty if nothing has arrived by then. `Duration::ZERO` never waits.
    ///
    /// First the member follows its group's plan: it gives up partitions that are to move, takes
    /// over new ones, and runs the rebalance callback. A member that was evicted joins again.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`]: the next record of a partition is damaged. What precedes it was
    ///   returned before. Returned by every poll until the consumer [seeks](Self::seek) to the end
    ///   of the damaged offsets. For an unavailable partition beside others: returned once.
    /// - [`Error::Truncated`]: a recovery cut the log below the committed offset. Returned once per
    ///   partition; then new records are read, from the cut or the log start, whichever is higher.
    ///   Nothing is committed of the partition before this error was returned.
    /// - [`Error::OffsetOutOfRange`]: the records at the position were removed, and
    ///   [`out_of_range`](ConsumerBuilder::out_of_range) is [`StartAt::Error`].
    /// - [`Error::NoOffset`]: nothing is committed, and [`start`](ConsumerBuilder::start) is
    ///   [`StartAt::Error`].
    /// - [`Error::Fenced`]: a newer consumer has taken the instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted. Only without a group, or with
    ///   [`assign`](crate::ConsumerBuilder::assign).
    /// - [`Error::Io`]: the disk could not be read.
    /// - [`Error::Closed`]: after [`ConsumerHandle::shutdown`] or [`Broker::close`].
    ///
    /// An error that lasts until the caller acts is returned at once the first time, and again
    /// after other partitions had records; otherwise when `timeout` is over.
    ///
    /// [`Broker::close`]: crate::Broker::close
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time, without spinning; also for the disk, if the data is not in
    /// memory.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch> {
        self.give_back_ahead();
        let batch = self.poll_until(&Wait::up_to(timeout))?;
        for slot in &mut self.slots {
            slot.hand_out_all();
        }
        Ok(batch)
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll). [`Error::Timeout`] if [`ConsumerHandle::wake`] ends the wait.
    ///
    /// # Blocking
    ///
    /// Until there is a message.
    pub fn recv(&mut self) -> Result<Message> {
        match self.next_message(&Wait::Forever)? {
            Some(message) => Ok(message),
            None => Err(Error::Timeout),
        }
    }

    /// Waits for the next message, at most `timeout`. Returns `None` if the time is over first.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>> {
        self.next_message(&Wait::up_to(timeout))
    }

    /// Returns the next message if there is one now.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    ///
    /// # Blocking
    ///
    /// Never for messages; for the disk, if the data is not in memory.
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.next_message(&Wait::Never)
    }

    /// Returns an iterator over the messages from here on, which waits for each.
    ///
    /// It ends after [`ConsumerHandle::shutdown`], when the broker is closed, and after an error
    /// that lasts until the caller acts: [`Error::Fenced`], [`Error::UnknownTopic`],
    /// [`Error::Corrupt`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`]. A new iteration reads
    /// the other partitions on.
    ///
    /// # Blocking
    ///
    /// Each `next` until there is a message.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Message>> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            while !is_over {
                match self.recv() {
                    Err(Error::Closed) => is_over = true,
                    // A wake-up is for whoever polls; an iteration goes on.
                    Err(Error::Timeout) => {}
                    Err(error) => {
                        is_over = lasts(&error);
                        return Some(Err(error));
                    }
                    message => return Some(message),
                }
            }
            None
        })
    }

    fn next_message(&mut self, wait: &Wait<'_>) -> Result<Option<Message>> {
        loop {
            self.check_shutdown()?;
            if self.ahead.len() > 0 {
                self.note_poll();
                self.pass_handed_out();
                self.auto_commit_if_due()?;
                if self.control.take_woken() && wait.ends_when_woken() {
                    return Ok(None);
                }
                if matches!(&self.role, Role::Member(member) if member.needs_attention()) {
                    // Another member waits for what this one is to give up.
                    self.give_back_ahead();
                }
            }
            if let Some(message) = self.ahead.next() {
                // A partition that was given up meanwhile has no slot, and its messages go unread.
                if let Some(slot) = self.slot_of(&message) {
                    slot.handed_out = message.next_offset();
                    return Ok(Some(message));
                }
                continue;
            }
            // All that was read ahead is handed out; so are the offsets behind it that have no
            // records.
            self.slots.iter_mut().for_each(Slot::hand_out_all);
            let batch = self.poll_until(wait)?;
            if batch.is_empty() {
                return Ok(None);
            }
            self.ahead = batch.into_iter();
        }
    }

    fn slot_of(&mut self, message: &Message) -> Option<&mut Slot> {
        let place = (message.topic(), message.partition());
        let is_same = |slot: &Slot| slot.place() == place;
        if !self.slots.get(self.last_slot).is_some_and(is_same) {
            self.last_slot = self.slots.binary_search_by(|slot| slot.place().cmp(&place)).ok()?;
        }
        self.slots.get_mut(self.last_slot)
    }

    /// Says that this member is there.
    #[inline]
    fn note_poll(&self) {
        if let Role::Member(member) = &self.role {
            member.polls();
        }
    }

    /// Waits for a signal; false when there is nothing more to wait for in this call. A task that
    /// waits is there until it is woken, is polled again or its stream is dropped.
    fn park(&mut self, wait: &Wait<'_>) -> bool {
        if let Role::Member(member) = &self.role {
            member.waits();
        }
        let fired = wait.at(&self.notifier, self.auto_commit_wait());
        if fired.is_some() || wait.ends_when_woken() {
            self.note_poll();
        }
        // Without a signal and before the end of the wait, a commit of auto mode is due.
        let Some(mut fired) = fired else { return !wait.is_over() };
        fired.sort_unstable();
        for slot in &mut self.slots {
            slot.is_armed &= fired.binary_search(&slot.token).is_err();
        }
        true
    }

    fn give_back_ahead(&mut self) {
        if self.ahead.len() > 0 {
            self.ahead = Batch::default().into_iter();
            self.slots.iter_mut().for_each(Slot::rewind);
        }
    }

    fn check_shutdown(&self) -> Result<()> {
        if self.control.is_shut_down.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.run.gate().check_open()
    }

    /// Fetches, parking in between, until there is something, a wake-up or the deadline.
    fn poll_until(&mut self, wait: &Wait<'_>) -> Result<Batch> {
        self.note_poll();
        self.passes_all = true;
        self.pass_handed_out();
        // What this hands out, or skips, in whatever slots, the next call passes.
        self.passes_all = true;
        // The partitions that fired since the last wait are known only to the notifier, so the
        // first pass looks at all.
        let mut armed_too = true;
        wait::note_look();
        loop {
            wait::begin_pass();
            self.check_shutdown()?;
            if let Err(error) = self.follow_plan() {
                let is_repeated =
                    lasts(&error) && std::mem::replace(&mut self.returned.fenced, true);
                let waits = is_repeated && matches!(wait, Wait::Until(_));
                if waits && self.control.take_woken() {
                    return Ok(Batch::default());
                }
                if waits && self.park(wait) {
                    continue;
                }
                return Err(error);
            }
            self.keep_gaps();
            self.auto_commit_if_due()?;
            // Before the fetch: a wake-up is for the call, whatever there is to read.
            if self.control.take_woken() && wait.ends_when_woken() {
                return Ok(Batch::default());
            }
            let batch = self.pass(armed_too, false)?;
            armed_too = false;
            if !batch.is_empty() {
                return Ok(batch);
            }
            let ends_in_failure = match wait {
                Wait::Never => true,
                // Without a deadline it is returned again when there is nothing else to wait for.
                Wait::Forever | Wait::Task(_) => self.waits_for_nothing(),
                Wait::Until(_) => false,
            };
            // Both ways to the next pass look at the deadline.
            if !ends_in_failure {
                let goes_on = if self.arm_all() { self.park(wait) } else { wait.may_pass_again() };
                if goes_on {
                    continue;
                }
                if matches!(wait, Wait::Task(_)) {
                    return Ok(batch);
                }
            }
            if !self.has_failure() {
                return Ok(batch);
            }
            let batch = self.pass(false, true)?;
            // What had failed may have found an end meanwhile: the next pass waits for others.
            if !batch.is_empty() || !wait.may_pass_again() {
                return Ok(batch);
            }
        }
    }

    /// What a pass finds. An error that lasts is returned once at once, again after others have
    /// had records, and else when the time is over, in the pass that is `failed_too`: a caller
    /// that only notes it does not go round at full speed.
    fn pass(&mut self, armed_too: bool, failed_too: bool) -> Result<Batch> {
        let failure = self.place_failure.clone();
        if let (Some(failure), false) = (&failure, self.returned.no_position) {
            self.returned.no_position = true;
            return Err(failure.clone());
        }
        let batch = self.fetch(armed_too, failed_too)?;
        if !batch.is_empty() {
            self.returned.no_position = false;
            if std::mem::take(&mut self.returned.from_slot) {
                let damaged = self.slots.iter_mut().filter(|slot| slot.core.is_available());
                damaged.for_each(|slot| slot.has_failed = false);
            }
            return Ok(batch);
        }
        match failure {
            Some(failure) if failed_too => Err(failure),
            _ => Ok(batch),
        }
    }

    /// Whether an error is to be returned again.
    fn has_failure(&self) -> bool {
        // Not what was returned: the partition may be gone, or paused, or moved by a seek since.
        let has_failed = |slot: &Slot| slot.has_failed && slot.core.is_available();
        self.slots.iter().any(has_failed)
            || self.place_failure.is_some()
            || self.has_none_available()
    }

    /// Whether all that this consumer reads is unavailable. What it reads beside others has its
    /// error returned once.
    fn has_none_available(&self) -> bool {
        let mut slots = self.slots.iter().filter(|slot| !slot.is_paused).peekable();
        slots.peek().is_some() && slots.all(|slot| !slot.core.is_available())
    }

    /// Whether all that this consumer reads has failed, so that no record can come.
    fn waits_for_nothing(&self) -> bool {
        self.has_failure() && self.slots.iter().all(|slot| slot.has_failed || slot.is_paused)
    }

    /// One pass over the slots, beginning with another one each time. Armed ones have nothing, as
    /// far as this consumer has heard; `armed_too` looks all the same. Those that have failed are
    /// passed over, unless it is `failed_too`.
    fn fetch(&mut self, armed_too: bool, failed_too: bool) -> Result<Batch> {
        let mut fetched = Fetched::default();
        let count = self.slots.len();
        let has_none_available = failed_too && self.has_none_available();
        let settings = &self.settings;
        for step in 0..count {
            let index = (self.turn + step) % count.max(1);
            let Some(slot) = self.slots.get_mut(index) else { break };
            if slot.has_failed {
                if !failed_too || !(has_none_available || slot.core.is_available()) {
                    continue;
                }
                slot.has_failed = false;
            }
            if (slot.is_armed && !armed_too) || !slot.may_have_data(settings.visibility) {
                continue;
            }
            if slot.core.is_closed() {
                self.run.gate().check_open()?;
                if let Role::Member(_) = self.role {
                    // The topic was deleted; the group's plan takes it away.
                    continue;
                }
            }
            let before = fetched.records;
            if let Err(error) = slot.fetch(settings, &mut fetched, &mut self.gaps) {
                if slot.core.is_closed() && matches!(self.role, Role::Member(_)) {
                    // Deleted while this read it.
                    self.run.gate().check_open()?;
                    continue;
                }
                if fetched.records == 0 {
                    slot.has_failed = lasts(&error);
                    self.returned.from_slot |= slot.has_failed && slot.core.is_available();
                    // The others have their turn before the error is met again.
                    self.turn = index + 1;
                    return Err(error);
                }
                self.turn = index;
                slot.keep_error(error);
                break;
            }
            // A batch that does not fit ends the poll below the byte limit.
            let is_full = fetched.is_cut
                || fetched.records >= settings.poll_records
                || fetched.bytes >= settings.poll_bytes;
            if is_full && fetched.records > 0 {
                // A slot that had no room for its first batch has had no turn yet.
                self.turn = if fetched.records > before { index + 1 } else { index };
                break;
            }
        }
        Ok(Batch::new(fetched.runs))
    }

    /// Arms every slot. False when one of them has something to read already.
    fn arm_all(&mut self) -> bool {
        let visibility = self.settings.visibility;
        // From a topic that was deleted a member has nothing to expect: the plan that takes it away
        // calls the member, and so does the end of the broker.
        let is_member = matches!(self.role, Role::Member(_));
        let is_over = |slot: &Slot| is_member && slot.core.is_closed();
        let mut slots = self.slots.iter_mut();
        slots.all(|slot| slot.has_failed || slot.arm(visibility) || is_over(slot))
    }

    /// Returns the offsets that this consumer missed since the last call, and forgets them.
    ///
    /// Gaps are reported at least once: by the first poll that reaches them, and again after a
    /// consumer resumes from an older commit. Adjacent gaps of a partition are one range. A
    /// partition keeps at most 1,024 ranges: then its two oldest are joined, with what was read
    /// between them. Call this more often if you need each range.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.gaps.take()
    }

    /// Returns a handle by which other threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        let notifier = Arc::clone(&self.notifier);
        ConsumerHandle { notifier, control: Arc::clone(&self.control) }
    }

    /// Leaves the group. In auto mode the consumer first commits what later polls have passed; then
    /// the rebalance callback is called with [`Rebalance::Revoked`]. The partitions of a static
    /// member are kept for it.
    ///
    /// # Errors
    ///
    /// Only in auto mode, and those of [`commit`](Self::commit). The consumer leaves the group all
    /// the same.
    ///
    /// # Durability
    ///
    /// In auto mode at broker level [`Durability::Sync`](crate::Durability::Sync): on return the
    /// commit is on stable storage.
    ///
    /// # Blocking
    ///
    /// In auto mode at broker level `Sync`, for a sync of the disk. Also for the callback.
    pub fn close(mut self) -> Result<()> {
        self.give_back_ahead();
        self.give_up_everything()
    }
}

/// Whether an error is met again until the caller does something about it. An iteration ends with
/// it, since its caller can do nothing in between.
fn lasts(error: &Error) -> bool {
    matches!(
        error,
        Error::Fenced { .. }
            | Error::Forked
            | Error::UnknownTopic(_)
            | Error::Corrupt(_)
            | Error::OffsetOutOfRange { .. }
            | Error::NoOffset(_)
    )
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group())
            .field("assignment", &self.assignment())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Wakes or shuts down a [`Consumer`] from another thread. Cheap to clone; does not keep the broker
/// open.
///
/// ```
/// # use logpond::{Broker, Error, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("jobs", TopicConfig::new(1))?;
/// let mut worker = broker.consumer("workers").subscribe(["jobs"]).open()?;
/// let handle = worker.handle();
/// let parked = std::thread::spawn(move || worker.recv().map(drop));
/// handle.shutdown();
/// assert!(matches!(parked.join().unwrap(), Err(Error::Closed)));
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerHandle {
    notifier: Arc<Notifier>,
    control: Arc<Control>,
}

impl ConsumerHandle {
    /// Ends the current wait, or else the next one: `poll` returns an empty batch, and `recv`
    /// returns [`Error::Timeout`]. Never blocks.
    #[doc(alias = "wakeup")]
    pub fn wake(&self) {
        self.control.is_woken.store(true, Ordering::Release);
        self.notifier.call();
    }

    /// Makes every later `poll` and `recv` return [`Error::Closed`], and ends iterations. The
    /// consumer stays in its group until it is dropped or closed. Never blocks.
    pub fn shutdown(&self) {
        self.control.is_shut_down.store(true, Ordering::Release);
        self.notifier.call();
    }
}
