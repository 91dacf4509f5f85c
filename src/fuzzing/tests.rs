//! Goal: what the fuzz targets have found stays found, without a fuzzer.
//!
//! Method: every file of the corpus and of the regressions in `tests/fuzz` goes through its
//! target's function, then seeded mutations of it: bits, bytes, words, cuts, doublings.
//!
//! Not covered: coverage. That is the fuzzer's (`tests/fuzz/Cargo.toml` says how to run it).
#![expect(clippy::cast_possible_truncation, reason = "random numbers are cut on purpose")]

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("batch", super::batch),
    ("footer", super::footer),
    ("recovery", super::recovery),
    ("internal", super::internal),
    ("codec", super::codec),
];

/// splitmix64, as everywhere in the tests.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const WORDS: [u32; 6] = [0, 1, 4, 0x7FFF_FFFF, u32::MAX - 3, u32::MAX];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next() as u8),
                4 => {
                    let word = WORDS[self.below(WORDS.len())].to_le_bytes();
                    let end = (at + word.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
                _ => {
                    let piece = bytes[at..(at + 64).min(bytes.len())].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
    }
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let mut inputs: Vec<PathBuf> = ["corpus", "regressions"]
        .iter()
        .filter_map(|kind| fs::read_dir(root.join(kind).join(target)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn row_e12_the_fuzz_targets_hold_over_their_corpus_and_mutations_of_it() {
    // Fixed unless another one, or `fresh`, is asked for.
    let seed: u64 = match std::env::var("LOGPOND_SEED").as_deref() {
        Ok("fresh") => RandomState::new().hash_one(1),
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => 20_261_129,
    };
    eprintln!("corpus: LOGPOND_SEED={seed}");
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        if inputs.is_empty() {
            eprintln!("skipped: no corpus of {target} in this copy of the sources");
        }
        for path in inputs {
            let input = fs::read(&path).unwrap();
            run(&input);
            let mut random = Random(seed);
            for _ in 0..500 {
                let mut bytes = input.clone();
                random.mutate(&mut bytes);
                run(&bytes);
            }
        }
    }
}
