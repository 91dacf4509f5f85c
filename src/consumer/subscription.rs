//! Where a group begins.
//!
//! When a group subscribes to a name or a pattern for the first time, the member that does it
//! commits, for all partitions that there are, where its `start` says, and stores the subscription
//! behind these commits. From then on a partition without a commit begins at 0: it came later, or
//! the group began it there. So whoever takes a partition over never asks its own `start`, which may
//! mean another place by now, and would pass over what was written before.

use std::sync::Arc;

use super::slot::place_of;
use super::{Consumer, Role};
use crate::config::StartAt;
use crate::error::{Error, Result};
use crate::group::commit::{Commit, Ready, Wait};
use crate::group::interest::{Interest, Wanted};
use crate::partition::PartitionCore;
use crate::topic::TopicShared;

impl Consumer {
    /// Stores what the group subscribes to for the first time. If there is a partition in which
    /// `start` finds no place, the group has not begun: nothing is stored, and whoever takes a
    /// partition over asks `start`.
    pub(super) fn store_subscription(&self, group: &Arc<str>, interest: &Interest) -> Result<()> {
        if self.run.gate().check_writable().is_err() {
            return Ok(());
        }
        loop {
            let new = self.run.coordinator().offsets().new_subscriptions(group, interest);
            if new.is_empty() {
                return Ok(());
            }
            let topics = self.topics_of(group, &new);
            let starts = self.starts(group, &topics).and_then(|it| Ready::all(it, self.wait()));
            let Ok(starts) = starts else { return Ok(()) };
            match self.subscribe(group, &new, &starts) {
                // Another member was quicker, or a topic is gone: what is left is looked at again.
                Err(Error::Rebalanced { .. } | Error::UnknownTopic(_)) => {}
                // Without it whoever comes next begins at the log start all the same.
                Err(_) if !self.must_keep_start() => return self.run.gate().check_open(),
                stored => return stored,
            }
        }
    }

    /// The topics that the group reads by these subscriptions and by no earlier one.
    fn topics_of(&self, group: &str, new: &[Wanted]) -> Vec<Arc<TopicShared>> {
        let offsets = self.run.coordinator().offsets();
        let is_new = |topic: &Arc<TopicShared>| !offsets.has_subscribed_to(group, &topic.name);
        if let [Wanted::Name(name)] = new {
            return self.run.topic(name).into_iter().filter(is_new).collect();
        }
        let is_wanted = |topic: &Arc<TopicShared>| new.iter().any(|it| it.covers(&topic.name));
        self.run.live().all().into_iter().filter(is_wanted).filter(is_new).collect()
    }

    /// Where the group begins in these topics: a commit for each partition that has none, unless it
    /// begins at 0.
    fn starts<'a>(&self, group: &str, topics: &'a [Arc<TopicShared>]) -> Result<Vec<Commit<'a>>> {
        let mut starts = Vec::new();
        for (topic, core) in
            topics.iter().flat_map(|it| it.partitions.iter().map(move |core| (it, core)))
        {
            let number = core.origin.partition;
            let is_committed =
                self.run.coordinator().offsets().committed(group, topic.id, number).is_some();
            // Of one that is unavailable the ends are not known: it is read from 0 if it comes back.
            if is_committed || !core.is_available() {
                continue;
            }
            let offset = self.start_of(core)?;
            if offset > 0 {
                starts.push(Commit::at(core, topic.id, offset));
            }
        }
        Ok(starts)
    }

    fn start_of(&self, core: &PartitionCore) -> Result<u64> {
        place_of(core, self.settings.start, core.log_start(), self.settings.visibility)
    }

    /// Stores the subscriptions and their starts. Durable on return where a power cut would move
    /// the start behind records that were acknowledged since.
    fn subscribe(&self, group: &Arc<str>, new: &[Wanted], starts: &Ready<'_>) -> Result<()> {
        let stored = self.run.coordinator().subscribe(group, new, starts)?;
        stored.settle(if self.must_keep_start() { self.wait() } else { Wait::No })
    }

    /// Whether `start` means another place as the log grows.
    fn must_keep_start(&self) -> bool {
        self.settings.start != StartAt::Earliest
    }

    fn wait(&self) -> Wait {
        Wait::at_level(self.run.context().settings.durability)
    }

    /// Whether the group has begun to read this topic. Only members have subscriptions.
    pub(super) fn has_subscribed_to(&self, topic: &str) -> bool {
        match &self.role {
            Role::Member(member) => {
                self.run.coordinator().offsets().has_subscribed_to(member.group(), topic)
            }
            _ => false,
        }
    }
}
