//! The partitions that a consumer reads, and which one is next.
//!
//! Owns: the slots in the order of their partitions, the turns, and which slots may have returned
//! records since the last auto-commit. Must not know: groups beyond whether this is a member, and
//! why a position is committed.
//!
//! Invariant: the slots are in strictly ascending order of their partitions.

use std::collections::BTreeSet;

use super::failure::lasts;
use super::gaps::Gaps;
use super::settings::Settings;
use super::slot::Slot;
use crate::config::Visibility;
use crate::error::{Error, Result};
use crate::log::cursor::Fetched;
use crate::message::{Batch, Message};
use crate::record::TopicPartition;
use crate::steps;

pub(super) struct Slots {
    list: Vec<Slot>,
    /// The slot that the next fetch reads first, so that none starves.
    turn: usize,
    /// The slot of the last message that `recv` handed out: the next one is mostly of the same.
    last: usize,
    /// Whether messages of other slots than `last` may have been returned since auto mode last
    /// passed them.
    passes_all: bool,
    /// Whether a lasting error was returned for at least one slot, and no record since.
    has_returned_failure: bool,
    /// Whether slots that are added are paused.
    pauses_all: bool,
}

/// Which slots a fetch reads, beside those that may have records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Armed slots: as far as the consumer was notified, they have no records.
    pub(super) armed: bool,
    /// Slots that have failed.
    pub(super) failed: bool,
}

impl Slots {
    pub(super) fn new() -> Self {
        let list = Vec::new();
        Self {
            list,
            turn: 0,
            last: 0,
            passes_all: true,
            has_returned_failure: false,
            pauses_all: false,
        }
    }

    // ---- which they are ----------------------------------------------------------------------

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.list.iter_mut()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Slot> {
        self.list.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.list.get_mut(index)
    }

    /// # Errors
    ///
    /// [`Error::UnknownPartition`].
    pub(super) fn index_of(&self, partition: &TopicPartition) -> Result<usize> {
        self.list
            .binary_search_by(|slot| slot.origin().cmp(partition))
            .map_err(|_| Error::UnknownPartition(partition.clone()))
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.list.iter().map(|slot| slot.origin().clone()).collect()
    }

    pub(super) fn add(&mut self, slots: impl IntoIterator<Item = Slot>) {
        let pauses_all = self.pauses_all;
        self.list.extend(slots.into_iter().map(|mut slot| {
            if pauses_all {
                slot.set_paused(true);
            }
            slot
        }));
        self.list.sort_by(|a, b| a.origin().cmp(b.origin()));
        self.check();
    }

    pub(super) fn remove(&mut self, gone: &BTreeSet<&TopicPartition>) {
        self.list.retain(|slot| !gone.contains(slot.origin()));
    }

    // ---- pausing -----------------------------------------------------------------------------

    /// Pauses or resumes these partitions, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`].
    pub(super) fn set_paused<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
        is_paused: bool,
    ) -> Result<()> {
        let indexes = partitions.into_iter().map(|partition| self.index_of(&partition.into()));
        for index in indexes.collect::<Result<Vec<_>>>()? {
            if let Some(slot) = self.list.get_mut(index) {
                slot.set_paused(is_paused);
            }
        }
        Ok(())
    }

    /// Pauses or resumes all partitions, and those that are added from now on.
    pub(super) fn set_all_paused(&mut self, is_paused: bool) {
        self.pauses_all = is_paused;
        self.list.iter_mut().for_each(|slot| slot.set_paused(is_paused));
    }

    pub(super) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.list.iter().filter(|slot| slot.is_paused());
        paused.map(|slot| slot.origin().clone()).collect()
    }

    fn check(&self) {
        debug_assert!(self.list.is_sorted_by(|a, b| a.origin() < b.origin()), "slots out of order");
    }

    // ---- what was handed out -----------------------------------------------------------------

    /// Marks a message as returned. False if its partition was given up after it was read.
    #[inline]
    pub(super) fn hand_out(&mut self, message: &Message) -> bool {
        let key = (message.topic(), message.partition());
        if self.list.get(self.last).is_none_or(|slot| slot.key() != key) {
            let Ok(index) = self.list.binary_search_by(|slot| slot.key().cmp(&key)) else {
                return false;
            };
            self.last = index;
        }
        let Some(slot) = self.list.get_mut(self.last) else { return false };
        slot.progress.hand_out(message.next_offset());
        true
    }

    /// Marks all fetched messages as returned, with the following offsets that have no records.
    pub(super) fn hand_out_all(&mut self) {
        self.list.iter_mut().for_each(|slot| slot.progress.hand_out_all());
    }

    /// Discards what was read ahead and not returned, to be read again.
    pub(super) fn rewind(&mut self) {
        self.list.iter_mut().for_each(Slot::rewind);
    }

    /// From now on messages of any slot may be returned or skipped.
    pub(super) fn expect_all(&mut self) {
        self.passes_all = true;
    }

    /// Marks returned messages as passed: the caller asks for more. Between two messages of one
    /// poll that is only the last one, however many partitions there are.
    #[inline]
    pub(super) fn pass_handed_out(&mut self) {
        let last = self.last..=self.last;
        let slots = if std::mem::take(&mut self.passes_all) {
            self.list.as_mut_slice()
        } else {
            self.list.get_mut(last).unwrap_or_default()
        };
        for slot in slots {
            steps::take(1);
            slot.progress.pass();
        }
    }

    // ---- fetching ----------------------------------------------------------------------------

    /// One pass over the slots, beginning with another one each time. `check_open` fails when the
    /// broker, and not only a topic, is closed.
    pub(super) fn fetch(
        &mut self,
        look: Look,
        is_member: bool,
        settings: &Settings,
        gaps: &mut Gaps,
        check_open: impl Fn() -> Result<()>,
    ) -> Result<Batch> {
        let mut fetched = Fetched::default();
        let count = self.list.len();
        let has_none_available = look.failed && self.has_none_available();
        for step in 0..count {
            let index = (self.turn + step) % count.max(1);
            let Some(slot) = self.list.get_mut(index) else { break };
            if slot.failure.lasts() {
                if !look.failed || !(has_none_available || slot.core().is_available()) {
                    continue;
                }
                slot.failure.retry();
            }
            if !slot.may_have_data(look.armed, settings.visibility) {
                continue;
            }
            if slot.core().is_closed() {
                check_open()?;
                if is_member {
                    // The topic was deleted; the group's plan takes it away.
                    continue;
                }
            }
            let before = fetched.records;
            if let Err(error) = slot.fetch(settings, &mut fetched, gaps) {
                if slot.core().is_closed() && is_member {
                    // Deleted while this read it.
                    check_open()?;
                    continue;
                }
                if fetched.records == 0 {
                    slot.failure.note_returned(lasts(&error));
                    self.has_returned_failure |= slot.failure.lasts() && slot.core().is_available();
                    // The others have their turn before the error is met again.
                    self.turn = index + 1;
                    return Err(error);
                }
                self.turn = index;
                slot.failure.keep(error);
                break;
            }
            // A batch that does not fit ends the poll below the byte limit.
            let is_full = fetched.is_cut
                || fetched.records >= settings.poll_records
                || fetched.bytes >= settings.poll_bytes;
            if is_full && fetched.records > 0 {
                // A slot whose first batch did not fit has had no turn yet.
                self.turn = if fetched.records > before { index + 1 } else { index };
                break;
            }
        }
        Ok(Batch::new(fetched.ranges))
    }

    /// Records were returned, so lasting errors are returned again.
    pub(super) fn retry_failed(&mut self) {
        if std::mem::take(&mut self.has_returned_failure) {
            let damaged = self.list.iter_mut().filter(|slot| slot.core().is_available());
            damaged.for_each(|slot| slot.failure.retry());
        }
    }

    // ---- waiting -----------------------------------------------------------------------------

    /// Arms every slot. False when one of them has something to read already.
    pub(super) fn arm_all(&mut self, visibility: Visibility, is_member: bool) -> bool {
        // A member expects nothing of a deleted topic: the plan that takes it away calls the
        // member, and so does the close of the broker.
        let is_over = |slot: &Slot| is_member && slot.core().is_closed();
        let mut slots = self.list.iter_mut();
        slots.all(|slot| slot.failure.lasts() || slot.arm(visibility) || is_over(slot))
    }

    /// These have fired. `tokens` are sorted.
    pub(super) fn disarm(&mut self, tokens: &[usize]) {
        for slot in &mut self.list {
            slot.disarm_if_among(tokens);
        }
    }

    /// Whether an error of a slot is to be returned again.
    pub(super) fn has_failure(&self) -> bool {
        // Not what was returned: since then the partition may have been removed, paused or moved by
        // a seek.
        let has_failed = |slot: &Slot| slot.failure.lasts() && slot.core().is_available();
        self.list.iter().any(has_failed) || self.has_none_available()
    }

    /// Whether all partitions that are read are unavailable. If only some are, their errors are
    /// returned once.
    fn has_none_available(&self) -> bool {
        let mut slots = self.list.iter().filter(|slot| !slot.is_paused()).peekable();
        slots.peek().is_some() && slots.all(|slot| !slot.core().is_available())
    }

    /// Whether no slot can have a record later.
    pub(super) fn expects_nothing(&self) -> bool {
        self.list.iter().all(|slot| slot.failure.lasts() || slot.is_paused())
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Broker;
    use crate::config::TopicConfig;
    use crate::partition::waiters::Notifier;

    #[test]
    #[should_panic(expected = "slots out of order")]
    fn slots_out_of_order_are_found() {
        let broker = Broker::builder().in_memory().background(false).open().unwrap();
        broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
        let topic = broker.run().topic("t").unwrap();
        let notifier = Notifier::new();
        let slot = |number: u32| {
            let core = Arc::clone(topic.partition(number).unwrap());
            Slot::new(Arc::clone(&topic), core, &notifier, number as usize)
        };
        let mut slots = Slots::new();
        slots.list = vec![slot(1), slot(0)];
        slots.check();
    }
}
