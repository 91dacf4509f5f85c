//! The latest offset of each key, in bounded memory.
//!
//! Keys are compared in full: the hash only finds where to compare. It is keyed by a random number,
//! so keys cannot be chosen to collide.
//!
//! Invariants: 1. [`memory`](KeyMap::memory) never exceeds the limit, except by one key where the
//! map would else hold none; 2. a map that is full is as it was before the key that did not fit.

use std::hash::{DefaultHasher, Hasher};

/// The latest record of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) offset: u64,
    /// The input that holds it.
    pub(super) input: u32,
    /// How many bytes it takes in a rewrite, at most.
    pub(super) bytes: u32,
}

/// There is no memory for another key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

struct Entry {
    /// The half of the hash that does not choose the slot. It distinguishes most different keys
    /// without reading them.
    check: u32,
    block: u32,
    start: u32,
    length: u32,
    latest: Latest,
}

pub(super) struct KeyMap {
    seed: u64,
    limit: usize,
    block_bytes: usize,
    /// Open addressing: the number of an entry plus one, or 0. A power of two, or empty.
    slots: Vec<u32>,
    entries: Vec<Entry>,
    /// The keys, one after the other; each is in one block.
    blocks: Vec<Vec<u8>>,
    key_bytes: usize,
}

/// LIMIT: keys are kept in blocks of at most this size, so that growing never copies them: small
/// enough that the unused end of the last block is nothing beside the limit of 64 MiB.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// LIMIT: the first size of the table, 256 bytes; it doubles when it fills.
const SLOTS_MIN: usize = 64;

impl KeyMap {
    pub(super) fn new(limit: usize, seed: u64) -> Self {
        Self {
            seed,
            limit,
            block_bytes: (limit / 16).clamp(64, BLOCK_BYTES_MAX),
            slots: Vec::new(),
            entries: Vec::new(),
            blocks: Vec::new(),
            key_bytes: 0,
        }
    }

    /// What the map takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.slots.len() * size_of::<u32>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.key_bytes
    }

    /// Notes a record that is later than all earlier ones of its key, and returns the latest so
    /// far.
    pub(super) fn note(&mut self, key: &[u8], latest: Latest) -> Result<Option<Latest>, Full> {
        let hash = self.hash(key);
        if let Some(entry) = self.find(key, hash).and_then(|at| self.entries.get_mut(at)) {
            return Ok(Some(std::mem::replace(&mut entry.latest, latest)));
        }
        self.make_room(key.len())?;
        let (block, start) = self.keep(key);
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let check = high_half(hash);
        self.entries.push(Entry { check, block, start, length, latest });
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        put(&mut self.slots, hash, number);
        Ok(None)
    }

    /// The latest record of a key, as far as the map knows.
    pub(super) fn latest(&self, key: &[u8]) -> Option<u64> {
        if self.entries.is_empty() {
            return None;
        }
        let at = self.find(key, self.hash(key))?;
        self.entries.get(at).map(|entry| entry.latest.offset)
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        hasher.finish()
    }

    fn find(&self, key: &[u8], hash: u64) -> Option<usize> {
        let check = high_half(hash);
        for slot in probe(hash, self.slots.len()) {
            let number = *self.slots.get(slot)?;
            let at = (number as usize).checked_sub(1)?;
            let entry = self.entries.get(at)?;
            if entry.check == check && self.key_of(entry) == Some(key) {
                return Some(at);
            }
        }
        None
    }

    fn key_of(&self, entry: &Entry) -> Option<&[u8]> {
        let (start, length) = (entry.start as usize, entry.length as usize);
        self.blocks.get(entry.block as usize)?.get(start..start.checked_add(length)?)
    }

    /// Makes sure that a key of this length can be added, without exceeding the limit on the way.
    fn make_room(&mut self, key: usize) -> Result<(), Full> {
        let count = self.entries.len();
        // At most three quarters of the slots are used.
        let slots = match self.slots.len() {
            0 => SLOTS_MIN,
            slots if count.saturating_add(1) > slots / 4 * 3 => slots.saturating_mul(2),
            slots => slots,
        };
        let more_entries = if count < self.entries.capacity() { 0 } else { (count / 8).max(16) };
        let fits = |block: &Vec<u8>| block.capacity() - block.len() >= key;
        let block =
            if self.blocks.last().is_some_and(fits) { 0 } else { key.max(self.block_bytes) };
        let grows = slots != self.slots.len();
        // While the table grows, there are two of them.
        let more = if grows { slots * size_of::<u32>() } else { 0 }
            + more_entries * size_of::<Entry>()
            + block;
        let exceeds = self.memory().saturating_add(more) > self.limit || slots > u32::MAX as usize;
        if exceeds && count > 0 {
            return Err(Full);
        }
        self.entries.reserve_exact(more_entries);
        if block > 0 {
            self.blocks.push(Vec::with_capacity(block));
            self.key_bytes = self.key_bytes.saturating_add(block);
        }
        if grows {
            self.fill_slots(slots);
        }
        Ok(())
    }

    fn fill_slots(&mut self, count: usize) {
        let mut slots = vec![0; count];
        for (entry, number) in self.entries.iter().zip(1..) {
            let hash = self.key_of(entry).map_or(0, |key| self.hash(key));
            put(&mut slots, hash, number);
        }
        self.slots = slots;
    }

    /// Copies a key after the others; there is room.
    fn keep(&mut self, key: &[u8]) -> (u32, u32) {
        let number = u32::try_from(self.blocks.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let Some(block) = self.blocks.last_mut() else {
            return (number, 0);
        };
        let start = u32::try_from(block.len()).unwrap_or(u32::MAX);
        block.extend_from_slice(key);
        (number, start)
    }
}

impl std::fmt::Debug for KeyMap {
    /// No keys: payloads do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMap").field("keys", &self.entries.len()).finish_non_exhaustive()
    }
}

fn high_half(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// The slots in which a key of this hash may be, each once.
fn probe(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    let mask = slots.wrapping_sub(1);
    let first = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
    (0..slots).map(move |step| first.wrapping_add(step) & mask)
}

/// Puts an entry into its first free slot; at least a quarter of them is free.
fn put(slots: &mut [u32], hash: u64, number: u32) {
    for slot in probe(hash, slots.len()) {
        if let Some(free) = slots.get_mut(slot).filter(|slot| **slot == 0) {
            *free = number;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn latest(offset: u64) -> Latest {
        Latest { offset, input: 0, bytes: 10 }
    }

    #[test]
    fn each_key_has_its_latest_offset() {
        let mut map = KeyMap::new(1 << 20, 7);
        assert_eq!(map.latest(b"a"), None);
        assert_eq!(map.note(b"a", latest(1)), Ok(None));
        assert_eq!(map.note(b"", latest(2)), Ok(None));
        assert_eq!(map.note(b"a", latest(3)), Ok(Some(latest(1))));
        assert_eq!((map.latest(b"a"), map.latest(b""), map.latest(b"b")), (Some(3), Some(2), None));
    }

    #[test]
    fn many_keys_of_all_lengths_agree_with_a_plain_map() {
        let mut map = KeyMap::new(64 << 20, 9);
        let mut plain = HashMap::new();
        for offset in 0..60_000_u64 {
            let number = offset.wrapping_mul(0x9E37_79B9) % 9_000;
            let length = usize::try_from(number % 300).unwrap();
            let key = [number.to_le_bytes().as_slice(), &vec![b'k'; length]].concat();
            let before = map.note(&key, latest(offset)).unwrap();
            assert_eq!(before.map(|it| it.offset), plain.insert(key, offset));
        }
        for (key, offset) in &plain {
            assert_eq!(map.latest(key), Some(*offset));
        }
        assert_eq!(map.entries.len(), plain.len());
    }

    /// Two keys with the same hash are two keys: here all of them meet.
    #[test]
    fn equal_hashes_do_not_make_keys_equal() {
        let mut map = KeyMap::new(1 << 20, 7);
        map.note(b"one", latest(1)).unwrap();
        let hash = map.hash(b"one");
        assert_eq!(map.find(b"one", hash), Some(0));
        assert_eq!(map.find(b"two", hash), None);
    }

    #[test]
    fn memory_stays_within_the_limit_and_a_full_map_still_answers() {
        for limit in [1 << 10, 4 << 10, 64 << 10, 1 << 20] {
            let mut map = KeyMap::new(limit, 3);
            let mut count = 0_u64;
            let full = loop {
                match map.note(&count.to_le_bytes(), latest(count)) {
                    Ok(_) => assert!(count == 0 || map.memory() <= limit, "{limit}: {count}"),
                    Err(full) => break full,
                }
                count += 1;
            };
            assert_eq!(full, Full);
            assert_eq!(map.latest(&count.to_le_bytes()), None);
            assert!((0..count).all(|key| map.latest(&key.to_le_bytes()) == Some(key)), "{limit}");
            // A key that is known needs no room.
            assert!(map.note(&0_u64.to_le_bytes(), latest(99)).unwrap().is_some());
        }
    }

    #[test]
    fn one_key_always_fits() {
        let mut map = KeyMap::new(0, 3);
        let large = vec![7; 100_000];
        assert_eq!(map.note(&large, latest(1)), Ok(None));
        assert_eq!(map.note(b"x", latest(2)), Err(Full));
        assert_eq!(map.latest(&large), Some(1));
    }
}
