//! The loop of a poll: follows the group's plan, fetches, and parks until there are records.
//!
//! Owns: what was read ahead for `recv`, and which errors were returned to the caller. Must not
//! know: where a position comes from, and what is committed.
//!
//! Invariant: nothing is read ahead while the consumer follows its group's plan or is moved.

use std::time::Duration;

use super::assignment::{Assigned, awaits_callback};
use super::failure::lasts;
use super::handle::ConsumerHandle;
#[cfg(feature = "testing")]
use super::seen;
use super::slots::Look;
use super::wait::{self, Wait};
use crate::error::{Error, Result};
#[cfg(feature = "testing")]
use crate::message::MessageRef;
use crate::message::{Batch, IntoMessages, Message};
#[cfg(feature = "testing")]
use crate::seams::Seams;

pub(super) struct Poller {
    assigned: Assigned,
    /// Messages that were read for `recv` and not returned yet.
    ahead: IntoMessages,
    returned: Returned,
    handle: ConsumerHandle,
    /// Whether the last call was ended by [`ConsumerHandle::wake`].
    was_woken: bool,
    #[cfg(feature = "testing")]
    seams: Seams,
}

/// Which lasting errors were returned since the last message. Errors of single partitions are kept
/// in their slots.
#[derive(Debug, Default)]
struct Returned {
    /// That a partition has no position; the others are read in between.
    no_position: bool,
    /// That the member was fenced, and no message follows; or that another broker leads.
    no_membership: bool,
    /// That the callback of an assignment has failed, which the next call runs again.
    callback: bool,
}

impl Poller {
    pub(super) fn new(
        assigned: Assigned,
        handle: ConsumerHandle,
        #[cfg(feature = "testing")] seams: &Seams,
    ) -> Self {
        Self {
            assigned,
            ahead: Batch::default().into_iter(),
            returned: Returned::default(),
            handle,
            was_woken: false,
            #[cfg(feature = "testing")]
            seams: seams.clone(),
        }
    }

    pub(super) fn handle(&self) -> &ConsumerHandle {
        &self.handle
    }

    /// Whether the last call was ended by [`ConsumerHandle::wake`].
    pub(super) fn was_woken(&self) -> bool {
        self.was_woken
    }

    pub(super) fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    /// For changes of commits. For changes of positions use [`settled`](Self::settled).
    pub(super) fn assigned_mut(&mut self) -> &mut Assigned {
        &mut self.assigned
    }

    /// The assignment, after everything that was read ahead is discarded.
    pub(super) fn settled(&mut self) -> &mut Assigned {
        self.give_back_ahead();
        &mut self.assigned
    }

    /// How a call waits for messages: at most this long, or for ever.
    #[inline]
    #[cfg_attr(
        not(all(feature = "testing", feature = "replication")),
        expect(clippy::unused_self, reason = "no test lets time pass")
    )]
    fn wait_up_to(&self, timeout: Option<Duration>) -> Wait<'static> {
        #[cfg(all(feature = "testing", feature = "replication"))]
        if let Some(drive) = self.seams.drive() {
            return Wait::driven(drive, timeout);
        }
        timeout.map_or(Wait::Forever, Wait::up_to)
    }

    /// Returns all available messages, within the limits; waits for the first at most this long.
    pub(super) fn poll_up_to(&mut self, timeout: Duration) -> Result<Batch> {
        let wait = self.wait_up_to(Some(timeout));
        self.poll(&wait)
    }

    /// One message; waits for it at most this long, or for ever.
    pub(super) fn next_message_up_to(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<Message>> {
        let wait = self.wait_up_to(timeout);
        self.next_message(&wait)
    }

    /// Returns all available messages, within the limits.
    pub(super) fn poll(&mut self, wait: &Wait<'_>) -> Result<Batch> {
        let polled = self.poll_now(wait);
        // A task that finds nothing polls again.
        #[cfg(feature = "testing")]
        if !(matches!(wait, Wait::Task { .. }) && matches!(&polled, Ok(it) if it.is_empty())) {
            let read = |it: MessageRef<'_>| (it.topic_partition(), it.offset()..it.next_offset());
            seen::poll_ends(
                &self.seams,
                self.assigned.role(),
                polled.as_ref().map(|batch| batch.iter().map(read)),
            );
            if matches!(&polled, Ok(batch) if batch.is_empty()) {
                self.seams.found_nothing();
            }
        }
        polled
    }

    fn poll_now(&mut self, wait: &Wait<'_>) -> Result<Batch> {
        #[cfg(feature = "testing")]
        seen::poll_begins(&self.seams, self.assigned.role(), || {
            self.assigned.slots().partitions()
        })?;
        self.give_back_ahead();
        let batch = self.poll_until(wait)?;
        self.assigned.slots_mut().hand_out_all();
        Ok(batch)
    }

    /// One message.
    pub(super) fn next_message(&mut self, wait: &Wait<'_>) -> Result<Option<Message>> {
        let next = self.next_message_now(wait);
        #[cfg(feature = "testing")]
        if !matches!(next, Ok(None)) {
            let read = |it: &Message| (it.topic_partition(), it.offset()..it.next_offset());
            seen::poll_ends(
                &self.seams,
                self.assigned.role(),
                next.as_ref().map(|message| message.iter().map(read)),
            );
        } else if !wait.is_task() {
            self.seams.found_nothing();
        }
        next
    }

    fn next_message_now(&mut self, wait: &Wait<'_>) -> Result<Option<Message>> {
        #[cfg(feature = "testing")]
        seen::poll_begins(&self.seams, self.assigned.role(), || {
            self.assigned.slots().partitions()
        })?;
        loop {
            self.check_shutdown()?;
            if self.ahead.len() > 0 {
                self.assigned.role().note_poll();
                self.assigned.pass_handed_out();
                self.assigned.commit_if_due()?;
                if self.is_ended_by_call(wait) {
                    return Ok(None);
                }
                if self.assigned.role().needs_attention() {
                    // Another member waits for partitions that this one must give up.
                    self.give_back_ahead();
                }
            }
            if let Some(message) = self.ahead.next() {
                if self.assigned.slots_mut().hand_out(&message) {
                    return Ok(Some(message));
                }
                continue;
            }
            // All that was read ahead is handed out; so are the offsets after it that have no
            // records.
            self.assigned.slots_mut().hand_out_all();
            let batch = self.poll_until(wait)?;
            if batch.is_empty() {
                return Ok(None);
            }
            self.ahead = batch.into_iter();
        }
    }

    /// Waits for a signal; false when the wait of this call is over. A waiting task counts as
    /// polling until it is woken, is polled again or its stream is dropped.
    fn park(&mut self, wait: &Wait<'_>) -> bool {
        self.assigned.role().note_wait();
        let fired = wait.at(self.handle.notifier(), self.assigned.time_to_commit());
        if fired.is_some() || !wait.is_task() {
            self.assigned.role().note_poll();
        }
        // Without a signal and before the end of the wait, a commit of auto mode is due.
        let Some(mut fired) = fired else { return !wait.is_over() };
        fired.sort_unstable();
        self.assigned.slots_mut().disarm(&fired);
        true
    }

    /// The task that waits may have ended: it must not be kept, nor count as one that waits.
    #[cfg(feature = "async")]
    pub(super) fn end_task(&mut self) {
        self.handle.notifier().forget_waker();
        self.assigned.role().note_poll();
    }

    /// Whether [`ConsumerHandle::wake`] was called, and ends this call.
    #[inline]
    fn is_ended_by_call(&mut self, wait: &Wait<'_>) -> bool {
        self.was_woken = self.handle.take_woken() && wait.ends_when_woken();
        self.was_woken
    }

    fn give_back_ahead(&mut self) {
        if self.ahead.len() > 0 {
            self.ahead = Batch::default().into_iter();
            self.assigned.slots_mut().rewind();
        }
    }

    #[inline]
    pub(super) fn check_shutdown(&self) -> Result<()> {
        if self.handle.is_shut_down() {
            return Err(Error::Closed);
        }
        self.assigned.run().gate().check_open()
    }

    /// Fetches, and parks in between, until there are messages, a wake-up or the deadline.
    fn poll_until(&mut self, wait: &Wait<'_>) -> Result<Batch> {
        debug_assert!(self.ahead.len() == 0, "read ahead");
        self.assigned.role().note_poll();
        self.assigned.slots_mut().expect_all();
        self.assigned.pass_handed_out();
        // The next call passes what this one returns or skips, in any slot.
        self.assigned.slots_mut().expect_all();
        // Only the notifier knows the partitions that fired since the last wait, so the first pass
        // checks all.
        let mut armed = true;
        wait::note_deadline_check();
        loop {
            wait::begin_pass();
            self.check_shutdown()?;
            if let Err(error) = self.assigned.follow_plan() {
                match self.await_membership(error, wait) {
                    Some(result) => return result,
                    None => continue,
                }
            }
            self.returned.callback = false;
            if cfg!(feature = "replication") {
                self.returned.no_membership = false;
            }
            self.assigned.keep_gaps();
            self.assigned.commit_if_due()?;
            // Before the fetch: a wake-up ends the call even if there are messages.
            if self.is_ended_by_call(wait) {
                return Ok(Batch::default());
            }
            let batch = self.pass(Look { armed, failed: false })?;
            armed = false;
            if !batch.is_empty() {
                return Ok(batch);
            }
            let ends_in_failure = match wait {
                Wait::Never => true,
                wait if wait.has_deadline() => false,
                // It is returned again when there is nothing else to wait for.
                _ => self.has_failure() && self.assigned.slots().expects_nothing(),
            };
            // Both paths to the next pass check the deadline.
            if !ends_in_failure {
                let continues =
                    if self.arm_all() { self.park(wait) } else { wait.may_pass_again() };
                if continues {
                    continue;
                }
                if wait.is_task() {
                    return Ok(batch);
                }
            }
            if !self.has_failure() {
                return Ok(batch);
            }
            let batch = self.pass(Look { armed: false, failed: true })?;
            // What had failed may have found an end meanwhile: the next pass waits for others.
            if !batch.is_empty() || !wait.may_pass_again() {
                return Ok(batch);
            }
        }
    }

    /// What a call returns that finds the consumer no member; `None` if it is to look again. If the
    /// error was returned before, the call waits first: a caller that ignores it must not poll at full
    /// speed. One that was fenced stays so; but the broker may lead its replicated group again. A
    /// callback that fails is called once by each call, and again when the group's plan changes.
    fn await_membership(&mut self, error: Error, wait: &Wait<'_>) -> Option<Result<Batch>> {
        let may_end = matches!(error, Error::NotLeader { .. });
        let is_callback = matches!(error, Error::Callback { .. });
        let is_repeated = if is_callback && awaits_callback(&self.assigned) {
            std::mem::replace(&mut self.returned.callback, true)
        } else {
            (may_end || lasts(&error)) && std::mem::replace(&mut self.returned.no_membership, true)
        };
        let waits = match wait {
            Wait::Until(_) => is_repeated,
            wait if !wait.has_deadline() => is_repeated && may_end,
            wait => is_repeated && !matches!(wait, Wait::Never),
        };
        if !waits {
            return Some(Err(error));
        }
        if self.is_ended_by_call(wait) {
            return Some(Ok(Batch::default()));
        }
        if self.park(wait) {
            return None;
        }
        // A task is woken when the broker leads again.
        Some(if matches!(wait, Wait::Task { .. }) { Ok(Batch::default()) } else { Err(error) })
    }

    /// One pass over the slots. A lasting error is returned once immediately, and again after other
    /// partitions have returned records. Otherwise it is returned when the wait is over, in the
    /// pass that reads failed slots: so a caller that ignores the error does not poll at full
    /// speed.
    fn pass(&mut self, look: Look) -> Result<Batch> {
        let failure = self.assigned.position_failure().cloned();
        if let (Some(failure), false) = (&failure, self.returned.no_position) {
            self.returned.no_position = true;
            return Err(failure.clone());
        }
        let batch = self.assigned.fetch(look)?;
        if !batch.is_empty() {
            self.returned.no_position = false;
            self.assigned.slots_mut().retry_failed();
            return Ok(batch);
        }
        match failure {
            Some(failure) if look.failed => Err(failure),
            _ => Ok(batch),
        }
    }

    /// Whether an error is to be returned again.
    fn has_failure(&self) -> bool {
        self.assigned.slots().has_failure() || self.assigned.position_failure().is_some()
    }

    /// Arms every slot. False when one of them has something to read already.
    fn arm_all(&mut self) -> bool {
        let visibility = self.assigned.settings().visibility;
        let is_member = self.assigned.role().is_member();
        self.assigned.slots_mut().arm_all(visibility, is_member)
    }
}
