//! `Aside`: records of `__meta` that wait until the files are made that they need.
//!
//! Owns: the answer that was put aside. To make the files of hundreds of partitions takes long, and
//! meanwhile the member has to answer beats: so they are made bit by bit. To the state machine this
//! is an answer that arrives late, and a crash in between leaves files that belong to no topic, as a
//! crash right before the records are stored does. Must not know: notes, effects.

use super::super::frame::{Checked, Frame};
use super::super::log_key::LogKey;
use super::super::logs::Log;
use super::super::member::Member;
use super::super::message::{Body, Fetched};
use super::super::role::Role;
use super::Catalog;
use crate::log::replica::refusal::Failure;

#[derive(Debug, Default)]
pub(super) struct Aside {
    frame: Option<Frame>,
}

impl Aside {
    /// Whether an answer can be taken now. Makes some of the files that it needs; if more are missing,
    /// it is put aside.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(super) fn admits<C: Catalog>(
        &mut self,
        frame: &Frame,
        checked: &Checked<'_>,
        (member, catalog): (&Member, &C),
    ) -> Result<bool, Failure> {
        if !is_answer_of_meta(member, frame) {
            return Ok(true);
        }
        if self.frame.is_some() {
            // It is asked for again when the one before is done.
            return Ok(false);
        }
        let is_ready = catalog.prepare(&checked.received)?;
        if !is_ready {
            self.frame = Some(frame.clone());
        }
        Ok(is_ready)
    }

    pub(super) fn take(&mut self) -> Option<Frame> {
        self.frame.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frame.is_none()
    }
}

/// Whether this member asked for it, of the one that it follows or as a candidate, and `__meta` has not
/// changed since.
fn is_answer_of_meta(member: &Member, frame: &Frame) -> bool {
    let (envelope, role) = (&frame.envelope, member.role());
    let Body::Fetched(Fetched { to, asked, .. }) = &envelope.body else { return false };
    let (from, epoch) = (envelope.from, envelope.epoch);
    let is_asked = match role {
        Role::Follower(known) => known.is_some_and(|it| it.leader == from && it.epoch == epoch),
        Role::Candidate(candidate) => {
            candidate.epoch() == epoch && candidate.to_fetch(LogKey::Meta) == Some(from)
        }
        Role::Leader(_) => false,
    };
    is_asked
        && asked.log == LogKey::Meta
        && *to == member.state().me()
        && member.state().logs().get(LogKey::Meta).map(Log::end) == Some(asked.from)
}

#[cfg(test)]
mod tests {
    use super::super::super::history::EpochRange;
    use super::super::super::logs::{Logs, MetaChange};
    use super::super::super::membership::{DirectoryId, GroupId, MemberRun, Membership};
    use super::super::super::message::{Envelope, Found, Promised, Summary};
    use super::super::super::notes::Notes;
    use super::*;
    use crate::record::{LeaderEpoch, NodeId};

    fn run(node: u64) -> MemberRun {
        MemberRun { node: NodeId(node), directory: DirectoryId(node.into()), session: 1 }
    }

    /// An answer of a member that the candidate has not asked kept the one that it needs waiting.
    // RED: src/replication/shell/aside.rs
    //   - candidate.epoch() == epoch && candidate.to_fetch(LogKey::Meta) == Some(from)
    //   + candidate.epoch() == epoch
    // RED: src/replication/shell/aside.rs
    //   - && *to == member.state().me()
    #[test]
    fn a_candidate_takes_answers_of_the_member_that_it_asked() {
        let directories = (0..3).map(|node| (NodeId(node), run(node).directory));
        let membership = Membership::new(GroupId(1), directories);
        let mut logs = Logs::default();
        let first = EpochRange { epoch: LeaderEpoch(0), records: 1 };
        assert!(logs.append(LogKey::Meta, &[first], &[(0, MetaChange::Members(membership))]));
        let mut member = Member::new(Notes::new(run(0)), logs, (0..3).map(NodeId).collect());
        let epoch = LeaderEpoch(2);
        member.lead(epoch).unwrap();
        let said = |from: u64, body: Body| {
            let (group, to) = (Some(GroupId(1)), NodeId(0));
            Envelope { group, from: run(from), to, epoch, body }
        };
        for (node, end) in [(1, 5), (2, 1)] {
            let summary = Summary { adopted: LeaderEpoch(0), end, start: 0 };
            let logs = [(LogKey::Meta, summary)].into();
            let promised = Promised { to: run(0), logs, has_membership: true };
            member.receive(&said(node, Body::Promised(promised)));
        }
        let asked = member.state().question(epoch, LogKey::Meta).unwrap();
        let answer = |from: u64, to: MemberRun| {
            let found = Found::Records { ranges: Vec::new(), changes: Vec::new() };
            let fetched = Fetched { to, asked, start: 0, led: None, found };
            Frame { envelope: said(from, Body::Fetched(fetched)), batches: Vec::new() }
        };
        assert!(is_answer_of_meta(&member, &answer(1, run(0))));
        assert!(!is_answer_of_meta(&member, &answer(2, run(0))));
        let before = MemberRun { session: 9, ..run(0) };
        assert!(!is_answer_of_meta(&member, &answer(1, before)));
    }
}
