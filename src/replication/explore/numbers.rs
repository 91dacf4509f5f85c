//! Numbers for values: the search handles each member, message and step once, and by its number.
//!
//! Owns: the values and their numbers, and fast hashes of both. Must not know: what the values are.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A fast hasher for keys that nobody chooses to collide.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mix(u64);

impl Mix {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u128(&mut self, word: u128) {
        let [low, high] = [word & u128::from(u64::MAX), word >> 64].map(u64::try_from);
        self.write_u64(low.unwrap_or(0));
        self.write_u64(high.unwrap_or(0));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word) + 1);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word) + 2);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// 128 bits that stand for a value.
pub(super) fn fingerprint(value: &impl Hash) -> u128 {
    let half = |seed: u64| {
        let mut hasher = Mix::new(seed);
        value.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(0xA5A5_5A5A_1234_4321))
}

/// Numbers values. Each is kept once, and compared with those of the same hash.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    all: Vec<T>,
    of: Map<u64, u32>,
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), of: Map::default() }
    }

    pub(super) fn of(&mut self, value: &T) -> u32 {
        let mut hasher = Mix::new(7);
        value.hash(&mut hasher);
        let mut hash = hasher.finish();
        while let Some(number) = self.of.get(&hash) {
            if self.get(*number) == value {
                return *number;
            }
            hash = hash.wrapping_add(1);
        }
        let number = u32::try_from(self.all.len()).unwrap();
        self.all.push(value.clone());
        self.of.insert(hash, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.all[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
