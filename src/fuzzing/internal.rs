//! The records of the internal logs.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::broker::catalog::{CatalogState, Stage};
use crate::broker::local::LocalState;
use crate::codec::{Bincode, Codec};
use crate::config::PARTITIONS_MAX;
use crate::group::offsets::OffsetsState;
use crate::partition::state_log::LoggedState;
use crate::partition::state_log::entries::RecordedAt;

/// A log of changes: for each, a byte that says of which state, a length, and that many bytes. The
/// upper bits of the first byte say where a clean-up cuts each log.
///
/// # Panics
///
/// When a change that is decoded is not written as it was read, a snapshot holds what a replay of
/// it would refuse, or rebuilds another state than the one it was taken of, a log that was cleaned
/// up adds up to another state, or a state holds what must not be done with.
pub fn internal(data: &[u8]) {
    let mut catalog = History::<CatalogState>::default();
    let mut offsets = History::<OffsetsState>::default();
    let mut local = History::<LocalState>::default();
    let mut rest = data;
    while let Some((&[kind, length], after)) = rest.split_first_chunk::<2>() {
        let (bytes, left) = after.split_at(usize::from(length).min(after.len()));
        match kind % 3 {
            0 => catalog.apply(bytes),
            1 => offsets.apply(bytes),
            _ => local.apply(bytes),
        }
        rest = left;
    }
    let share = data.first().map_or(0, |first| usize::from(first >> 2));
    snapshot_rebuilds(&catalog.state);
    snapshot_rebuilds(&offsets.state);
    snapshot_rebuilds(&local.state);
    can_be_carried_out(&catalog.state);
    catalog.stays_the_same_when_cleaned_up(share);
    offsets.stays_the_same_when_cleaned_up(share);
    local.stays_the_same_when_cleaned_up(share);
}

/// What an opening does with the catalog: names become paths, partitions are counted through, and
/// live topics are looked up by their names.
fn can_be_carried_out(catalog: &CatalogState) {
    let mut names = BTreeSet::new();
    for (entry, stage) in catalog.topics.values() {
        let mut parts = Path::new(&*entry.name).components();
        let is_name = matches!(parts.next(), Some(Component::Normal(part)) if part == &*entry.name);
        assert!(is_name && parts.next().is_none(), "{:?} leads elsewhere", entry.name);
        assert!(!entry.name.starts_with("__"), "{:?} is one of the engine's own", entry.name);
        let partitions = match stage {
            Stage::Growing(total) => *total,
            Stage::Creating | Stage::Live | Stage::Deleting => entry.config.partitions,
        };
        assert!(partitions <= PARTITIONS_MAX && entry.config.partitions <= PARTITIONS_MAX);
        let is_free = !stage.is_live() || names.insert(entry.name.to_ascii_lowercase());
        assert!(is_free, "{:?} is live twice", entry.name);
    }
    let ids: BTreeSet<u64> = catalog.producers.values().map(|producer| producer.id).collect();
    assert!(ids.len() == catalog.producers.keys().count(), "two producers have one id");
}

/// A state, and the records that it is the sum of.
struct History<S> {
    state: S,
    records: Vec<(Vec<u8>, RecordedAt)>,
}

impl<S: Default> Default for History<S> {
    fn default() -> Self {
        Self { state: S::default(), records: Vec::new() }
    }
}

impl<S: LoggedState> History<S> {
    fn apply(&mut self, bytes: &[u8]) {
        let Ok(change) = Bincode.decode(bytes) else { return };
        let once = written::<S>(&change);
        let Ok(again) = Bincode.decode(&once) else { panic!("what was written is refused") };
        assert!(written::<S>(&again) == once, "one meaning, two encodings");
        if self.state.check(&change).is_ok() {
            self.append(change, false);
        }
    }

    fn append(&mut self, change: S::Change, is_copy: bool) {
        let value = written::<S>(&change);
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let at = RecordedAt { offset: self.records.len() as u64, bytes, time: 0, is_copy };
        self.state.apply(change, at);
        self.records.push((value, at));
    }

    /// Cuts off a part of the log, in 63rds, once its live entries were appended again.
    fn stays_the_same_when_cleaned_up(mut self, share: usize) {
        let before: Vec<_> = self.state.snapshot().iter().map(written::<S>).collect();
        let live = self.state.live_bytes();
        let cut = self.records.len().saturating_mul(share) / 63;
        for index in 0..cut {
            let Some((value, at)) = self.records.get(index) else { break };
            let Ok(change) = Bincode.decode(value) else { panic!("what was written is refused") };
            if self.state.is_live(&change, at.offset) {
                let checked = self.state.check(&change);
                assert!(checked.is_ok(), "a copy that would be refused: {checked:?}");
                self.append(change, true);
            }
        }
        assert!(self.state.live_bytes() == live, "{live}, {}", self.state.live_bytes());
        let mut rebuilt = S::default();
        for (value, at) in self.records.iter().skip(cut) {
            let Ok(change) = Bincode.decode(value) else { panic!("what was written is refused") };
            let checked = rebuilt.check(&change);
            assert!(checked.is_ok(), "a record that is refused without those before: {checked:?}");
            rebuilt.apply(change, *at);
        }
        let after: Vec<_> = rebuilt.snapshot().iter().map(written::<S>).collect();
        assert!(after == before, "another state without the first {cut} records");
        assert!(rebuilt.live_bytes() == live, "{live}, {}", rebuilt.live_bytes());
    }
}

fn written<S: LoggedState>(change: &S::Change) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = Bincode.encode(change, &mut bytes);
    assert!(encoded.is_ok(), "what was read cannot be written: {encoded:?}");
    bytes
}

fn snapshot_rebuilds<S: LoggedState>(state: &S) {
    let snapshot: Vec<_> = state.snapshot().iter().map(written::<S>).collect();
    let mut rebuilt = S::default();
    for change in state.snapshot() {
        let checked = rebuilt.check(&change);
        assert!(checked.is_ok(), "a snapshot that would be refused: {checked:?}");
        rebuilt.apply(change, RecordedAt::default());
    }
    let again: Vec<_> = rebuilt.snapshot().iter().map(written::<S>).collect();
    assert!(again == snapshot, "a snapshot of a snapshot is another one");
}
