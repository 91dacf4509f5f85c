//! The records of the engine's own logs.

use crate::broker::catalog::CatalogState;
use crate::broker::local::LocalState;
use crate::codec::{Bincode, Codec};
use crate::group::offsets::OffsetsState;
use crate::partition::state_log::LoggedState;

/// A log of changes: for each, a byte that says of which state, a length, and that many bytes.
///
/// # Panics
///
/// When a change that is accepted is not written as it was read, or a snapshot rebuilds another
/// state than the one it was taken of.
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
}

fn apply<S: LoggedState>(state: &mut S, bytes: &[u8]) {
    let Ok(change) = Bincode.decode(bytes) else { return };
    let once = written::<S>(&change);
    let Ok(again) = Bincode.decode(&once) else { panic!("what was written is refused") };
    assert!(written::<S>(&again) == once, "one meaning, two encodings");
    state.apply(change);
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
        rebuilt.apply(change);
    }
    let again: Vec<_> = rebuilt.snapshot().iter().map(written::<S>).collect();
    assert!(again == snapshot, "a snapshot of a snapshot is another one");
}
