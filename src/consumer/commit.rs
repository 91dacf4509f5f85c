//! Commits: what is done, made durable in the right order.

use std::sync::Arc;

use super::{Consumer, Role};
use crate::config::{CommitMode, Durability};
use crate::error::{Error, Result};
use crate::group::coordinator::Commit;
use crate::group::offsets::Committed;
use crate::record::Offsets;

impl Consumer {
    /// What `commit` covers.
    pub(super) fn handed_out(&self) -> Offsets {
        self.slots.iter().map(|slot| (slot.origin().clone(), slot.handed_out)).collect()
    }

    /// What auto-commit covers: what a later poll has passed, as far as it is news.
    fn passed(&self) -> Offsets {
        self.slots
            .iter()
            .filter(|slot| slot.committed != Some(slot.passed))
            .map(|slot| (slot.origin().clone(), slot.passed))
            .collect()
    }

    /// Whoever asks for more has passed what was handed out before.
    pub(super) fn pass_handed_out(&mut self) {
        if let CommitMode::Auto { .. } = self.settings.commit {
            for slot in &mut self.slots {
                slot.passed = slot.handed_out;
            }
        }
    }

    pub(super) fn auto_commit_if_due(&mut self) -> Result<()> {
        let CommitMode::Auto { every } = self.settings.commit else { return Ok(()) };
        let now = self.life.clock.monotonic();
        if now < self.commit_due {
            return Ok(());
        }
        self.commit_due = now.saturating_add(every);
        match self.commit_passed() {
            // The plan has moved on; the next poll follows it, and the new owner reads again.
            Err(Error::Rebalanced) => Ok(()),
            other => other,
        }
    }

    /// Publishes a commit of what later polls have passed.
    pub(super) fn commit_passed(&mut self) -> Result<()> {
        let commits = self.passed();
        self.commit_soon(&commits)
    }

    /// Publishes commits, and asks for the sync that makes them durable.
    pub(super) fn commit_soon(&mut self, offsets: &Offsets) -> Result<()> {
        if self.publish_commits(offsets)?.is_some() {
            self.life.coordinator.offsets_partition().sync_soon();
        }
        Ok(())
    }

    pub(super) fn commit_passed_durably(&mut self) -> Result<()> {
        let commits = self.passed();
        self.commit_durably(&commits)
    }

    fn check_commits(&self) -> Result<()> {
        match self.role {
            Role::Reader => Err(no_commits()),
            _ => self.life.check_open().and_then(|()| self.life.check_writable()),
        }
    }

    /// Commits at the broker's level: the records first, then the commit.
    pub(super) fn commit_durably(&mut self, offsets: &Offsets) -> Result<()> {
        self.check_commits()?;
        let waits = self.life.settings.durability == Durability::Sync;
        if waits {
            for (partition, offset) in offsets {
                // DURABILITY: a commit that survives a power cut which its records do not would
                // make the group skip whatever gets those offsets next.
                if let Some(slot) = self.slot(partition) {
                    slot.core.wait_durable((*offset).min(slot.core.log_end()))?;
                }
            }
        }
        let end = self.publish_commits(offsets)?;
        match end.filter(|_| waits) {
            Some(end) => self.life.coordinator.offsets_partition().wait_durable(end),
            None => Ok(()),
        }
    }

    /// Stores commits, all or none. Returns the end of the offsets log behind them, if any.
    pub(super) fn publish_commits(&mut self, offsets: &Offsets) -> Result<Option<u64>> {
        self.check_commits()?;
        let mut commits = Vec::with_capacity(offsets.len());
        for (partition, &offset) in offsets {
            let Some(slot) = self.slot(partition) else {
                // Taken away by the group, or never here.
                return Err(match self.role {
                    Role::Member(_) => Error::Rebalanced,
                    _ => Error::UnknownPartition(partition.clone()),
                });
            };
            let (start, end) = (slot.core.log_start(), slot.core.log_end());
            if offset > end {
                return Err(Error::OffsetOutOfRange { requested: offset, start, end });
            }
            let (leader_epoch, incarnation) = slot.core.lineage();
            let committed = Committed { offset, leader_epoch, incarnation };
            commits.push(Commit { partition, topic: slot.topic.id, committed, epoch: slot.epoch });
        }
        if commits.is_empty() {
            return Ok(None);
        }
        let end = match &self.role {
            Role::Reader => return Err(no_commits()),
            Role::Standalone(group) => self.life.coordinator.commit(group, &commits)?,
            Role::Member(member) => member.commit(&commits)?,
        };
        for slot in &mut self.slots {
            if let Some(offset) = offsets.get(&*Arc::clone(&slot.core.origin)) {
                slot.committed = Some(*offset);
            }
        }
        Ok(Some(end))
    }
}

fn no_commits() -> Error {
    Error::config("group", "a reader has no commits")
}
