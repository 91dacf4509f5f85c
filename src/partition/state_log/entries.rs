//! The entries of a state, each with the offset of the record that defines it.
//!
//! Owns: the offset of each entry's record, and how many bytes all these records take. So a record
//! is live exactly if its entry names its offset, and a clean-up needs no second index.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// The record of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RecordedAt {
    pub(crate) offset: u64,
    /// The approximate size of the record.
    pub(crate) bytes: u32,
    /// When the change was made, in milliseconds and in the time of this run; 0 where that is not
    /// known.
    pub(crate) time: u64,
    /// Whether the record is the copy of a live entry, and not a change.
    pub(crate) is_copy: bool,
}

/// A map that knows where each entry is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Entries<K, V> {
    by_key: BTreeMap<K, (V, RecordedAt)>,
    bytes: u64,
    newest: u64,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), bytes: 0, newest: 0 }
    }
}

impl<K: Ord, V> Entries<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V, mut at: RecordedAt) {
        match self.by_key.entry(key) {
            Entry::Occupied(mut entry) => {
                let before = entry.get().1;
                if at.is_copy {
                    // A copy has the time of the change that it repeats.
                    at.time = at.time.max(before.time);
                }
                entry.insert((value, at));
                self.forget(before);
            }
            Entry::Vacant(entry) => {
                entry.insert((value, at));
            }
        }
        self.newest = self.newest.max(at.time);
        self.bytes = self.bytes.saturating_add(u64::from(at.bytes));
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, at) = self.by_key.remove(key)?;
        self.forget(at);
        Some(value)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let mut removed: u64 = 0;
        self.by_key.retain(|key, (value, at)| {
            let is_kept = keep(key, value);
            if !is_kept {
                removed = removed.saturating_add(u64::from(at.bytes));
            }
            is_kept
        });
        self.bytes = self.bytes.saturating_sub(removed);
    }

    fn forget(&mut self, at: RecordedAt) {
        self.bytes = self.bytes.saturating_sub(u64::from(at.bytes));
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).map(|(value, _)| value)
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.by_key.contains_key(key)
    }

    /// The offset of the record that defines the entry.
    pub(crate) fn offset_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<u64>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).map(|(_, at)| at.offset)
    }

    /// Whether the entry is recorded at this offset.
    pub(crate) fn is_at<Q: Ord + ?Sized>(&self, key: &Q, offset: u64) -> bool
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).is_some_and(|(_, at)| at.offset == offset)
    }

    /// When the change that defines the entry was made; 0 if that is not known.
    pub(crate) fn time_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<u64>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).map(|(_, at)| at.time)
    }

    /// When the last change was made; 0 if that is not known.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The entries after a key, in their order.
    pub(crate) fn after(&self, key: Option<&K>) -> impl Iterator<Item = (&K, &V)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.by_key.range::<K, _>((from, Bound::Unbounded));
        entries.map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.by_key.iter().map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.by_key.values().map(|(value, _)| value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What the records of the entries take of the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl<K, V> IntoIterator for Entries<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        let entries = self.by_key.into_iter().map(|(key, (value, _))| (key, value));
        entries.collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, bytes: u32) -> RecordedAt {
        RecordedAt { offset, bytes, time: offset, is_copy: false }
    }

    /// A copy says when the change was made that it repeats, or nothing of it.
    #[test]
    fn a_copy_is_no_newer_than_what_it_repeats() {
        let copy = |offset, time| RecordedAt { offset, bytes: 1, time, is_copy: true };
        let mut entries = Entries::default();
        entries.insert(1, 'a', at(7, 1));
        entries.insert(1, 'a', copy(8, 0));
        assert_eq!((entries.time_of(&1), entries.newest()), (Some(7), 7));
        assert!(entries.is_at(&1, 8));
        entries.insert(2, 'b', copy(9, 3));
        assert_eq!((entries.time_of(&2), entries.newest()), (Some(3), 7));
        let after: Vec<_> = entries.after(Some(&1)).collect();
        assert_eq!(after, [(&2, &'b')]);
        assert_eq!(entries.after(None).count(), 2);
    }

    #[test]
    fn the_bytes_are_those_of_the_records_in_force() {
        let mut entries = Entries::default();
        entries.insert(1, 'a', at(7, 10));
        entries.insert(2, 'b', at(8, 20));
        entries.insert(1, 'c', at(9, 5));
        assert_eq!((entries.bytes(), entries.get(&1)), (25, Some(&'c')));
        assert!(entries.is_at(&1, 9) && !entries.is_at(&1, 7) && !entries.is_at(&3, 0));
        entries.retain(|key, _| *key != 2);
        assert_eq!(entries.bytes(), 5);
        assert_eq!((entries.remove(&1), entries.remove(&1), entries.bytes()), (Some('c'), None, 0));
    }
}
