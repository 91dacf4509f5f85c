//! Rot in the files of a whole broker.
//!
//! Goal: whatever bit of whatever file of a store is not what was written, and at whatever length a
//! file ends, what is read is what was written, or a typed error and a loss that is reported and no
//! larger than the part that was hit; no file is removed or shortened for it, and a verification
//! finds it. Method: [`store`] makes a small store that has every kind of file and knows what is
//! where in it; [`check`] holds one damaged copy of it against what it may be, over two openings.
//! Not covered: damage at two positions, other than by chance (`log::tests::hostile`).
//!
//! `LOGPOND_EVERY_BIT=1` tries each bit and each length instead of some, chosen by a fixed seed;
//! `LOGPOND_SEED=n` gives another, and `LOGPOND_SEED=fresh` draws one and prints it.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use self::check::{Harm, Tally, Trial};
use self::store::{End, Store};
use super::variable;
use crate::random::Random;

mod check;
mod internal;
mod store;

/// How many harms a test tries of those there are.
const SOME: usize = 300;

/// All of them, or some, from a random one on.
fn some<T>(all: Vec<T>, random: &mut Random) -> impl Iterator<Item = T> {
    let is_all = std::env::var_os("LOGPOND_EVERY_BIT").is_some();
    let step = if is_all { 1 } else { all.len() / SOME + 1 };
    let first = random.below(step as u64);
    all.into_iter().skip(usize::try_from(first).unwrap()).step_by(step)
}

fn seed() -> u64 {
    let is_fresh = std::env::var("LOGPOND_SEED").is_ok_and(|seed| seed == "fresh");
    let fixed = if is_fresh { RandomState::new().hash_one(0) } else { 20_261_129 };
    let seed = variable("LOGPOND_SEED").unwrap_or(fixed);
    eprintln!("LOGPOND_SEED={seed}");
    seed
}

fn trial(store: &Store, path: &Path, harm: Harm, tally: &mut Tally) {
    let trial = AssertUnwindSafe(|| Trial { store, path, harm }.run(tally));
    if let Err(panic) = catch_unwind(trial) {
        let what = panic.downcast_ref::<String>().map_or("", String::as_str);
        tally.failures.push(format!("{:?} {path:?} {harm:?}: {what}", store.end));
    }
}

/// Every bit of every byte, but of long runs of zeros, which are space that nobody uses, one in
/// each 509 bytes.
fn flips(bytes: &[u8]) -> Vec<Harm> {
    const RUN: usize = 64;
    let (mut harms, mut zeros) = (Vec::new(), 0);
    for (at, byte) in (0..).zip(bytes) {
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        let masks = match zeros {
            0..RUN => (0..8).map(|bit| 1 << bit).collect(),
            _ if at % 509 == 0 => vec![1],
            _ => Vec::new(),
        };
        harms.extend(masks.into_iter().map(|mask| Harm::Flip { at, mask }));
    }
    harms
}

/// Every length, but within long runs of zeros one in 509.
fn lengths(bytes: &[u8]) -> Vec<Harm> {
    let of_flip = |harm| match harm {
        Harm::Flip { at, mask: 1 } => Some(Harm::Length(at)),
        _ => None,
    };
    flips(bytes).into_iter().filter_map(of_flip).collect()
}

fn try_all(end: End, harms_of: impl Fn(&[u8]) -> Vec<Harm>) {
    let (store, mut random) = (Store::new(end), Random::new(seed()));
    let mut tally = Tally::default();
    let harms = |path: PathBuf| {
        let harms = harms_of(&store.disk.read(&path).unwrap());
        harms.into_iter().map(move |harm| (path.clone(), harm))
    };
    let all: Vec<_> = store.disk.paths().into_iter().flat_map(harms).collect();
    for (path, harm) in some(all, &mut random) {
        trial(&store, &path, harm, &mut tally);
    }
    eprintln!("{end:?}: {tally:?}");
    let failures = &tally.failures;
    let some = &failures[..failures.len().min(20)];
    assert!(failures.is_empty(), "{} failures: {some:#?}", failures.len());
}

#[test]
fn row_e01_a_flipped_bit_in_any_file_of_a_closed_store_is_reported_or_harmless() {
    try_all(End::Closed, flips);
}

#[test]
fn row_e01_a_flipped_bit_in_any_file_of_a_killed_store_is_reported_or_harmless() {
    try_all(End::Killed, flips);
}

#[test]
fn row_e01_a_flipped_bit_in_any_file_of_an_idle_store_is_reported_or_harmless() {
    try_all(End::Idle, flips);
}

#[test]
fn row_e05_a_file_of_any_length_in_a_closed_store_is_reported_or_harmless() {
    try_all(End::Closed, lengths);
}

#[test]
fn row_e05_a_file_of_any_length_in_a_killed_store_is_reported_or_harmless() {
    try_all(End::Killed, lengths);
}

#[test]
fn row_e05_a_file_of_any_length_in_an_idle_store_is_reported_or_harmless() {
    try_all(End::Idle, lengths);
}
