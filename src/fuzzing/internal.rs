//! The records of the engine's own logs.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::broker::catalog::{CatalogState, Stage};
use crate::broker::local::LocalState;
use crate::codec::{Bincode, Codec};
use crate::config::PARTITIONS_MAX;
use crate::group::offsets::OffsetsState;
use crate::partition::state_log::LoggedState;

/// A log of changes: for each, a byte that says of which state, a length, and that many bytes.
///
/// # Panics
///
/// When a change that is decoded is not written as it was read, a snapshot holds what a replay of
/// it would refuse, or rebuilds another state than the one it was taken of, or a state holds what
/// must not be done with.
pub fn internal(data: &[u8]) {
    let mut catalog = CatalogState::default();
    let mut offsets = OffsetsState::default();
    let mut local = LocalState::default();
    let mut rest = data;
    while let Some((&[kind, length], after)) = rest.split_first_chunk::<2>() {
        let (bytes, left) = after.split_at(usize::from(length).min(after.len()));
        match kind % 3 {
            0 => apply(&mut catalog, bytes),
            1 => apply(&mut offsets, bytes),
            _ => apply(&mut local, bytes),
        }
        rest = left;
    }
    snapshot_rebuilds(&catalog);
    snapshot_rebuilds(&offsets);
    snapshot_rebuilds(&local);
    can_be_carried_out(&catalog);
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
    assert!(ids.len() == catalog.producers.len(), "two producers have one id");
}

fn apply<S: LoggedState>(state: &mut S, bytes: &[u8]) {
    let Ok(change) = Bincode.decode(bytes) else { return };
    let once = written::<S>(&change);
    let Ok(again) = Bincode.decode(&once) else { panic!("what was written is refused") };
    assert!(written::<S>(&again) == once, "one meaning, two encodings");
    if state.check(&change).is_ok() {
        state.apply(change);
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
        rebuilt.apply(change);
    }
    let again: Vec<_> = rebuilt.snapshot().iter().map(written::<S>).collect();
    assert!(again == snapshot, "a snapshot of a snapshot is another one");
}
