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
    let Body::Fetched(Fetched { asked, .. }) = &envelope.body else { return false };
    let is_followed = role
        .follows()
        .is_some_and(|known| known.leader == envelope.from && known.epoch == envelope.epoch);
    asked.log == LogKey::Meta
        && member.state().logs().get(LogKey::Meta).map(Log::end) == Some(asked.from)
        && (is_followed || role.stands_for() == Some(envelope.epoch))
}
