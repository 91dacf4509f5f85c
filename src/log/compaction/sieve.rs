//! Decides which records of one batch remain. Pure: takes a checked batch and the latest offsets,
//! and returns the effect and, if only some records remain, the new batch.

use super::Tally;
use super::keys::KeyMap;
use crate::format::{BatchEncoder, BatchHeader, BatchView, Placement, SegmentKey, TooLarge};

/// The times and the end of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The keys of all records below this offset were gathered.
    pub(super) pass_end: u64,
    /// The time of retention, in milliseconds.
    pub(super) now: u64,
    /// The delete horizon of tombstones that have none yet.
    pub(super) horizon: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// All of its records remain, unchanged.
    Unchanged,
    /// Some of its records are removed, or its tombstones get their horizon.
    Changed,
    /// None of its records remains.
    Removed,
}

#[derive(Debug)]
pub(super) struct Sieve {
    pub(super) rules: Rules,
    encoder: BatchEncoder,
    /// Which records of the batch that was judged last remain.
    stays: Vec<bool>,
    horizon: Option<u64>,
    /// The earliest horizon of the batches that were judged since it was taken.
    next_horizon: Option<u64>,
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

    /// Takes the earliest horizon of the batches that were judged since the last call.
    pub(super) fn take_horizon(&mut self) -> Option<u64> {
        self.next_horizon.take()
    }

    /// Decides which records of a batch remain, and counts them.
    pub(super) fn judge(
        &mut self,
        view: &BatchView<'_>,
        keys: &KeyMap,
        tally: &mut Tally,
    ) -> Effect {
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
            (0, _) => Effect::Removed,
            (_, 0) if self.horizon == header.delete_horizon => Effect::Unchanged,
            _ => Effect::Changed,
        }
    }

    /// The delete horizon of the remaining records. A batch that reaches beyond the pass gets none:
    /// records that its tombstones delete may still exist.
    fn horizon_of(&self, header: &BatchHeader, has_tombstones: bool) -> Option<u64> {
        if !has_tombstones {
            return None;
        }
        let is_covered = header.next_offset() <= self.rules.pass_end;
        header.delete_horizon.or(is_covered.then_some(self.rules.horizon))
    }

    /// Appends the remaining records of the batch that was judged last to `out`, as a batch. It
    /// keeps base and last offset, leader epoch and producer stamp.
    pub(super) fn encode(
        &mut self,
        view: &BatchView<'_>,
        key: &SegmentKey,
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
            key,
            producer: header.producer,
        };
        out.extend_from_slice(self.encoder.finish().seal(&placement));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Latest;
    use super::*;
    use crate::format::HeaderFields;

    const RULES: Rules = Rules { pass_end: 100, now: 50, horizon: 70 };

    /// A batch at offset 90 of records with these keys and values.
    fn batch(records: &[(&str, Option<&str>)], horizon: Option<u64>) -> Vec<u8> {
        let mut encoder = BatchEncoder::new();
        for ((key, value), time) in records.iter().zip(1_000..) {
            let value = value.map(str::as_bytes);
            encoder.push(time, Some(key.as_bytes()), value, HeaderFields::default()).unwrap();
        }
        encoder.set_delete_horizon(horizon);
        let key = &SegmentKey::new(7, 0);
        let placement =
            Placement { base_offset: 90, leader_epoch: 3, durable_end: 0, key, producer: None };
        encoder.finish().seal(&placement).to_vec()
    }

    fn keys(latest: &[(&str, u64)]) -> KeyMap {
        let mut keys = KeyMap::new(1 << 20, 1);
        for (key, offset) in latest {
            let latest = Latest { offset: *offset, input: 0, bytes: 0 };
            keys.note(key.as_bytes(), latest).unwrap();
        }
        keys
    }

    /// The effect, and the offsets and horizon of what stays.
    fn sift(rules: Rules, batch: &[u8], keys: &KeyMap) -> (Effect, Vec<u64>, Option<u64>, Tally) {
        let view = BatchView::check(batch, &SegmentKey::new(7, 0)).unwrap().unwrap();
        let (mut sieve, mut tally, mut out) = (Sieve::new(rules), Tally::default(), Vec::new());
        let effect = sieve.judge(&view, keys, &mut tally);
        if effect == Effect::Removed {
            return (effect, Vec::new(), None, tally);
        }
        let key = SegmentKey::new(9, 0);
        sieve.encode(&view, &key, &mut out).unwrap();
        let stays = BatchView::check(&out, &key).unwrap().unwrap();
        let (before, after) = (view.header(), stays.header());
        assert_eq!((before.base_offset, before.next_offset()), (90, after.next_offset()));
        assert_eq!((after.base_offset, after.leader_epoch), (90, 3));
        let offsets = stays.records().map(|record| record.offset).collect();
        (effect, offsets, after.delete_horizon, tally)
    }

    #[test]
    fn what_a_later_record_supersedes_goes_and_the_rest_stays() {
        let three = batch(&[("a", Some("1")), ("b", Some("2")), ("c", None)], Some(60));
        let none = keys(&[]);
        assert_eq!(sift(RULES, &three, &none).0, Effect::Unchanged);
        let (effect, offsets, horizon, tally) =
            sift(RULES, &three, &keys(&[("a", 95), ("b", 91), ("c", 92)]));
        assert_eq!((effect, offsets, horizon), (Effect::Changed, vec![91, 92], Some(60)));
        assert_eq!((tally.records_kept, tally.records_removed), (2, 1));
        let all = keys(&[("a", 95), ("b", 96), ("c", 200)]);
        assert_eq!(sift(RULES, &three, &all).0, Effect::Removed);
        // Without a tombstone there is no horizon.
        let (_, _, horizon, _) = sift(RULES, &three, &keys(&[("c", 95)]));
        assert_eq!(horizon, None);
    }

    #[test]
    fn a_tombstone_goes_from_its_horizon_on_and_gets_one_where_it_is_covered() {
        let two = [("a", Some("1")), ("b", None)];
        let none = keys(&[]);
        for (horizon, expected, removed) in
            [(Some(50), vec![90], 1), (Some(51), vec![90, 91], 0), (None, vec![90, 91], 0)]
        {
            let (_, offsets, _, tally) = sift(RULES, &batch(&two, horizon), &none);
            assert_eq!((offsets, tally.tombstones_removed), (expected, removed), "{horizon:?}");
        }
        let fresh = batch(&two, None);
        assert_eq!(sift(Rules { pass_end: 92, ..RULES }, &fresh, &none).2, Some(70));
        // What it deletes may still be there: its keys were not gathered to the end.
        let beyond = sift(Rules { pass_end: 91, ..RULES }, &fresh, &none);
        assert_eq!((beyond.0, beyond.2), (Effect::Unchanged, None));
        // The first one counts.
        assert_eq!(sift(RULES, &batch(&two, Some(60)), &none).2, Some(60));
    }
}
