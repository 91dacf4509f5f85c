//! Random numbers: for the engine's salts and ids, and for the crate's own tests.
//!
//! Owns: the one generator of the crate, `SplitMix64`: every state gives another number, and every
//! seed is a good one. Must not know: what the numbers are for.

use std::hash::{BuildHasher, RandomState};

use crate::sync::{AtomicU64, Ordering};

/// What is added to the state for each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn splitmix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The engine's numbers: of the process's own entropy, or of a sequence that a seed decides.
pub(crate) struct EngineRandom {
    entropy: Option<RandomState>,
    /// What the next number is made of.
    ///
    /// ORDERING: Relaxed: each caller takes another value by one addition, and a value publishes
    /// nothing. `mix` stores while the broker is opened, when one thread has it.
    state: AtomicU64,
}

impl EngineRandom {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let entropy = seed.is_none().then(RandomState::new);
        Self { entropy, state: AtomicU64::new(seed.unwrap_or(0)) }
    }

    /// Makes the sequence of each run of a directory another one: salts must never repeat.
    pub(crate) fn mix(&self, opens: u64) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state ^ splitmix(opens), Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> u64 {
        let count = self.state.fetch_add(STEP, Ordering::Relaxed);
        match &self.entropy {
            // The standard library's hasher is keyed with the operating system's randomness.
            Some(entropy) => entropy.hash_one(count),
            None => splitmix(count),
        }
    }
}

/// The numbers of a test, from a seed that its failure prints.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

#[cfg(any(test, feature = "testing"))]
impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        splitmix(self.0)
    }
}

#[cfg(test)]
impl Random {
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// An index into so many.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}
