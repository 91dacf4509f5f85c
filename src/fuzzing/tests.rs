//! Goal: what the fuzz targets have found stays found, without a fuzzer.
//!
//! Method: every file of the corpus and of the regressions in `tests/fuzz` goes through its
//! target's function, then seeded mutations of it: bits, bytes, words, cuts, doublings.
//!
//! Not covered: coverage. That is the fuzzer's (`tests/fuzz/Cargo.toml` says how to run it).

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use crate::random::Random;

type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("batch", super::batch),
    ("footer", super::footer),
    ("recovery", super::recovery),
    ("internal", super::internal),
    ("codec", super::codec),
    #[cfg(feature = "replication")]
    ("frame", super::frame),
];

/// Damages an input.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const WORDS: [u32; 6] = [0, 1, 4, 0x7FFF_FFFF, u32::MAX - 3, u32::MAX];
    for _ in 0..=random.below(4) {
        let at = random.index(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.byte()),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.byte(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.byte()),
            4 => {
                let word = WORDS[random.index(WORDS.len())].to_le_bytes();
                let end = (at + word.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&word[..end - at]);
            }
            _ => {
                let piece = bytes[at..(at + 64).min(bytes.len())].to_vec();
                let to = random.index(bytes.len());
                bytes.splice(to..to, piece);
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
    for (target, run) in TARGETS.iter().copied() {
        let inputs = inputs(target);
        if inputs.is_empty() {
            eprintln!("skipped: no corpus of {target} in this copy of the sources");
        }
        for path in inputs {
            let input = fs::read(&path).unwrap();
            run(&input);
            let mut random = Random::new(seed);
            for _ in 0..500 {
                let mut bytes = input.clone();
                mutate(&mut random, &mut bytes);
                run(&bytes);
            }
        }
    }
}
