//! What stays of one batch. Pure: a checked batch and the latest offsets in, a verdict and, where
//! something of it goes, the new batch out.

use super::Tally;
use super::keys::KeyMap;
use crate::format::{BatchEncoder, BatchHeader, BatchView, Placement, TooLarge};

/// Where a pass stands in time and in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The keys of all records below this offset were gathered.
    pub(super) pass_end: u64,
    /// Retention's time, in milliseconds.
    pub(super) now: u64,
    /// The delete horizon of tombstones that have none yet.
    pub(super) horizon: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Same,
    /// Some of its records go, or its tombstones get their horizon.
    Changed,
    /// Nothing of it stays.
    Gone,
}

#[derive(Debug)]
pub(super) struct Sieve {
    pub(super) rules: Rules,
    encoder: BatchEncoder,
    /// Which records of the batch judged last stay.
    stays: Vec<bool>,
    horizon: Option<u64>,
    /// The earliest horizon of all that stays.
    pub(super) next_horizon: Option<u64>,
}

impl Sieve {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            encoder: BatchEncoder::new(),
            stays: Vec::new(),
            horizon: None,
            next_horizon: None,
        }
    }

    /// Says what stays of a batch, and counts it.
    pub(super) fn judge(
        &mut self,
        view: &BatchView<'_>,
        keys: &KeyMap,
        tally: &mut Tally,
    ) -> Verdict {
        let header = view.header();
        let is_over = header.delete_horizon.is_some_and(|horizon| horizon <= self.rules.now);
        let mut has_tombstones = false;
        self.stays.clear();
        for record in view.records() {
            let is_tombstone = record.key.is_some() && record.value.is_none();
            let latest = record.key.and_then(|key| keys.latest(key));
            let is_superseded = latest.is_some_and(|latest| latest > record.offset);
            let has_expired = is_tombstone && is_over && !is_superseded;
            let stays = !is_superseded && !has_expired;
            self.stays.push(stays);
            has_tombstones |= stays && is_tombstone;
            let expired = u64::from(has_expired);
            tally.tombstones_removed = tally.tombstones_removed.saturating_add(expired);
        }
        let kept = self.stays.iter().filter(|stays| **stays).count();
        let removed = self.stays.len().saturating_sub(kept);
        tally.records_kept = tally.records_kept.saturating_add(kept as u64);
        tally.records_removed = tally.records_removed.saturating_add(removed as u64);
        self.horizon = self.horizon_of(&header, has_tombstones);
        if let Some(horizon) = self.horizon {
            self.next_horizon = Some(self.next_horizon.map_or(horizon, |next| next.min(horizon)));
        }
        match (kept, removed) {
            (0, _) => Verdict::Gone,
            (_, 0) if self.horizon == header.delete_horizon => Verdict::Same,
            _ => Verdict::Changed,
        }
    }

    /// The delete horizon of what stays. A batch that reaches beyond the pass gets none: what its
    /// tombstones delete may still be there.
    fn horizon_of(&self, header: &BatchHeader, has_tombstones: bool) -> Option<u64> {
        if !has_tombstones {
            return None;
        }
        let is_covered = header.next_offset() <= self.rules.pass_end;
        header.delete_horizon.or(is_covered.then_some(self.rules.horizon))
    }

    /// Appends to `out` the batch that stays of the one judged last. It keeps its base and last
    /// offset, its leader epoch and its producer's stamp.
    pub(super) fn encode(
        &mut self,
        view: &BatchView<'_>,
        salt: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        let header = view.header();
        self.encoder.clear();
        let staying = view.records().zip(&self.stays).filter(|(_, stays)| **stays);
        for (record, _) in staying {
            let delta = record.offset.saturating_sub(header.base_offset);
            let delta = u32::try_from(delta).unwrap_or(u32::MAX);
            let (key, value) = (record.key, record.value);
            self.encoder.push_at(delta, record.timestamp, key, value, record.headers)?;
        }
        self.encoder.set_last_offset_delta(header.last_offset_delta);
        self.encoder.set_delete_horizon(self.horizon);
        let placement = Placement {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            // All that is rewritten was durable.
            durable_end: header.base_offset,
            salt,
            producer: header.producer,
        };
        out.extend_from_slice(self.encoder.finish().seal(&placement));
        Ok(())
    }
}
