//! `Outgoing`: the frames of a member that were not taken yet, and which adoptions have to be noted
//! before they are.
//!
//! A follower that is answered in one frame what it asked of thousands of logs adopts the epoch in all
//! of them. One note for each would be a sync for each. Nobody knows of an adoption before a frame
//! says it, so there is one note for all, when the frames are taken.
//!
//! Owns: both. Must not know: how a note is stored.

use super::super::frame::Frame;
use super::super::log_key::LogKey;
use super::super::notes::Note;
use crate::error::Result;
use crate::record::LeaderEpoch;

#[derive(Default)]
pub(super) struct Outgoing {
    frames: Vec<Frame>,
    /// Adopted, and not noted.
    adopted: Option<(LeaderEpoch, Vec<LogKey>)>,
}

impl Outgoing {
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// Takes the frames, after what they say was noted. None, and nothing is noted, if the member has
    /// failed in between.
    ///
    /// # Errors
    ///
    /// Those of `store`. The frames are dropped then.
    pub(super) fn take_frames(
        &mut self,
        has_failed: bool,
        store: impl Fn(Note) -> Result<()>,
    ) -> Result<Vec<Frame>> {
        let frames = std::mem::take(&mut self.frames);
        if has_failed && self.adopted.take().is_some() {
            return Ok(Vec::new());
        }
        self.settle(store)?;
        Ok(frames)
    }

    /// Stores a note, after those that were put off. What a follower has adopted is put off: a leader
    /// counts its own copy at once.
    ///
    /// # Errors
    ///
    /// Those of `store`.
    pub(super) fn note(
        &mut self,
        note: Note,
        follows: bool,
        store: impl Fn(Note) -> Result<()>,
    ) -> Result<()> {
        match (note, &mut self.adopted) {
            (Note::Adopted { epoch, logs }, Some((noted, all))) if follows && *noted == epoch => {
                all.extend(logs);
                Ok(())
            }
            (Note::Adopted { epoch, logs }, adopted @ None) if follows => {
                *adopted = Some((epoch, logs));
                Ok(())
            }
            (note, _) => {
                self.settle(&store)?;
                store(note)
            }
        }
    }

    fn settle(&mut self, store: impl Fn(Note) -> Result<()>) -> Result<()> {
        let note = self.adopted.take().map(|(epoch, logs)| Note::Adopted { epoch, logs });
        note.map_or(Ok(()), store)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::RefCell;

    use super::super::super::membership::{DirectoryId, MemberRun};
    use super::super::super::message::{Body, Envelope};
    use super::*;
    use crate::error::Error;
    use crate::record::NodeId;

    fn frame() -> Frame {
        let from = MemberRun { node: NodeId(1), directory: DirectoryId(1), session: 1 };
        let (to, epoch) = (NodeId(2), LeaderEpoch(1));
        let envelope = Envelope { group: None, from, to, epoch, body: Body::Beat };
        Frame { envelope, batches: Vec::new() }
    }

    fn adopted(epoch: u32, logs: &[LogKey]) -> Note {
        Note::Adopted { epoch: LeaderEpoch(epoch), logs: logs.to_vec() }
    }

    /// What a frame says is noted before it is taken, all at once, and before what is noted later.
    // RED: src/replication/shell/outgoing.rs
    //   - self.settle(store)?;
    // RED: src/replication/shell/outgoing.rs
    //   - self.settle(&store)?;
    // RED: src/replication/shell/outgoing.rs
    //   - (Note::Adopted { epoch, logs }, adopted @ None) if follows => {
    //   + (Note::Adopted { epoch, logs }, adopted @ None) if false && follows => {
    #[test]
    fn what_a_follower_adopts_is_noted_once_before_its_frames_are_taken() {
        let noted = RefCell::new(Vec::new());
        let store = |note: Note| {
            noted.borrow_mut().push(note);
            Ok(())
        };
        let mut outgoing = Outgoing::default();
        let (one, two) = (LogKey::Meta, LogKey::Offsets);
        for log in [one, two] {
            outgoing.note(adopted(3, &[log]), true, store).unwrap();
            outgoing.push(frame());
        }
        assert!(noted.borrow().is_empty());
        assert_eq!(outgoing.take_frames(false, store).unwrap().len(), 2);
        assert_eq!(noted.take(), [adopted(3, &[one, two])]);

        outgoing.note(adopted(4, &[one]), true, store).unwrap();
        outgoing.note(adopted(5, &[one]), true, store).unwrap();
        outgoing.note(Note::Whole, true, store).unwrap();
        outgoing.note(adopted(6, &[one]), false, store).unwrap();
        let all = [adopted(4, &[one]), adopted(5, &[one]), Note::Whole, adopted(6, &[one])];
        assert_eq!(noted.take(), all);
    }

    #[test]
    fn frames_that_say_what_is_not_noted_are_dropped() {
        let mut outgoing = Outgoing::default();
        outgoing.note(adopted(3, &[LogKey::Meta]), true, |_| Ok(())).unwrap();
        outgoing.push(frame());
        assert!(outgoing.take_frames(false, |_| Err(Error::Closed)).is_err());
        assert!(outgoing.take_frames(false, |_| Ok(())).unwrap().is_empty());
        // After another failure the state that they are of may be wrong.
        outgoing.note(adopted(3, &[LogKey::Meta]), true, |_| Ok(())).unwrap();
        outgoing.push(frame());
        assert!(outgoing.take_frames(true, |_| panic!("noted")).unwrap().is_empty());
        outgoing.push(frame());
        assert_eq!(outgoing.take_frames(true, |_| panic!("noted")).unwrap().len(), 1);
    }
}
