//! Decides where a group begins to read.
//!
//! When a group subscribes to a name or a pattern for the first time, the subscribing member
//! resolves its `start` in all existing partitions and commits the offsets. Then it stores the
//! subscription. From then on a partition without a commit begins at 0: it was added later, or the
//! group began it there. So a member that takes a partition over never uses its own `start`, which
//! may mean another offset by now, and would skip records.

use std::sync::Arc;

use super::settings::Settings;
use super::slot::offset_of;
use crate::broker::Run;
use crate::config::StartAt;
use crate::error::{Error, Result};
use crate::group::commit::{Commit, Ready, Wait};
use crate::group::interest::{Interest, Wanted};
use crate::topic::TopicShared;

/// A member that joins with subscriptions that its group did not have before.
pub(super) struct FirstSubscription<'a> {
    run: &'a Run,
    group: &'a Arc<str>,
    settings: &'a Settings,
}

impl<'a> FirstSubscription<'a> {
    pub(super) fn new(run: &'a Run, group: &'a Arc<str>, settings: &'a Settings) -> Self {
        Self { run, group, settings }
    }

    /// Stores the first subscriptions of the group. If `start` finds no offset in some partition,
    /// nothing is stored: the group has not begun, and each member that takes a partition over uses
    /// its own `start`.
    pub(super) fn store(&self, interest: &Interest) -> Result<()> {
        if self.run.gate().check_writable().is_err() {
            return Ok(());
        }
        loop {
            let offsets = self.run.coordinator().offsets();
            let new = offsets.new_subscriptions(self.group, interest);
            if new.is_empty() {
                return Ok(());
            }
            let topics = self.topics(&new);
            let starts = self.starts(&topics).and_then(|starts| Ready::all(starts, self.level()));
            let Ok(starts) = starts else { return Ok(()) };
            match self.subscribe(&new, &starts) {
                // Another member was faster, or a topic is deleted: try again with what remains.
                Err(Error::Rebalanced { .. } | Error::UnknownTopic(_)) => {}
                // If it is not stored, the next member begins at the log start all the same.
                Err(_) if !self.must_keep_start() => return self.run.gate().check_open(),
                stored => return stored,
            }
        }
    }

    /// The topics that the group reads by these subscriptions and by no earlier one.
    fn topics(&self, new: &[Wanted]) -> Vec<Arc<TopicShared>> {
        let offsets = self.run.coordinator().offsets();
        let is_new = |topic: &Arc<TopicShared>| !offsets.has_subscribed_to(self.group, &topic.name);
        if let [Wanted::Name(name)] = new {
            return self.run.topic(name).into_iter().filter(is_new).collect();
        }
        let is_wanted = |topic: &Arc<TopicShared>| new.iter().any(|it| it.covers(&topic.name));
        self.run.live().all().into_iter().filter(is_wanted).filter(is_new).collect()
    }

    /// The start of the group in these topics: a commit for each partition without one, unless it
    /// begins at 0.
    fn starts<'t>(&self, topics: &'t [Arc<TopicShared>]) -> Result<Vec<Commit<'t>>> {
        let offsets = self.run.coordinator().offsets();
        let (start, visibility) = (self.settings.start, self.settings.visibility);
        let mut starts = Vec::new();
        for (topic, core) in
            topics.iter().flat_map(|it| it.partitions.iter().map(move |core| (it, core)))
        {
            let number = core.origin.partition;
            let is_committed = offsets.committed(self.group, topic.id, number).is_some();
            // The ends of an unavailable partition are not known: it is read from 0 if it becomes
            // available.
            if is_committed || !core.is_available() {
                continue;
            }
            let offset = offset_of(core, start, core.log_start(), visibility)?;
            if offset > 0 {
                starts.push(Commit::at(core, topic.id, offset));
            }
        }
        Ok(starts)
    }

    /// Stores the subscriptions and their starts. Durable on return if a power cut could otherwise
    /// move the start above records that were acknowledged since.
    fn subscribe(&self, new: &[Wanted], starts: &Ready<'_>) -> Result<()> {
        let stored = self.run.coordinator().subscribe(self.group, new, starts)?;
        stored.settle(if self.must_keep_start() { self.level() } else { Wait::No })
    }

    /// Whether `start` means another offset as the log grows.
    fn must_keep_start(&self) -> bool {
        self.settings.start != StartAt::Earliest
    }

    fn level(&self) -> Wait {
        Wait::at_level(self.run.context().settings.durability)
    }
}
