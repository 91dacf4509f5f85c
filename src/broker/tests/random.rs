//! Long random workloads through many crashes, one after the other on the same disk.

use super::model::{Crash, Model, Shape, Step};
use super::run::{Ended, Run};
use super::{effort, images, variable};
use crate::config::Durability;
use crate::random::Random;
use crate::storage::disk::{PowerCut, SimulatedDisk};

const NAMES: [&str; 3] = ["a", "b", "c"];
const CRASHES: u64 = 6;

/// A step that makes sense where the model stands.
fn step(random: &mut Random, model: &Model) -> Step {
    let name = *random.pick(&NAMES);
    if !model.is_present(name) {
        let level = *random.pick(&[Durability::Sync, Durability::Sync, Durability::Os]);
        return Step::Create(name, Shape(1 + u32::from(name == "b"), level));
    }
    let partition = u32::from(name == "b" && random.below(2) == 0);
    match random.below(40) {
        0..6 => Step::Send(name, partition),
        6..12 => Step::Enqueue(name, partition),
        12..18 => Step::Batch(name, partition, *random.pick(&[1, 2, 3])),
        18..23 => Step::Named(name, partition),
        23 => Step::Acquire,
        24..29 => Step::Commit(name),
        29..32 => Step::CommitAsync(name),
        32 => Step::Flush,
        33..36 => Step::Tick,
        36 => Step::Close,
        37 => Step::Drop,
        _ => Step::Delete(name),
    }
}

fn crash(random: &mut Random) -> Crash {
    match random.below(4) {
        0 => Crash::Kill,
        1 => Crash::Cut(PowerCut::WORST),
        _ => Crash::Cut(PowerCut::any(&mut || random.next())),
    }
}

/// Runs random steps until the disk stops. The context says all that is needed to do it again.
fn live(run: &mut Run, random: &mut Random) {
    loop {
        let step = step(random, &run.model);
        if run.take_steps(&[step]) == Ended::Off {
            return;
        }
    }
}

/// One workload through several crashes; returns how many images were opened.
fn workload(seed: u64) -> u64 {
    let context = format!("LOGPOND_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut disk, mut model) = (SimulatedDisk::with_seed(seed), Model::default());
    let mut before = Crash::Kill;
    let mut opened = 0;
    // All kinds of cuts in a campaign, a few by chance in every run of the tests.
    let asides = if effort() > 1 { 64 } else { 2 };
    for number in 0..CRASHES {
        let context = format!("{context}, crash {number} after {before:?}");
        let mut run = Run::new(disk, model, random.next(), &context);
        // Now and then already the opening is cut short.
        let calls = if random.below(4) == 0 { random.below(40) } else { 40 + random.below(300) };
        run.disk.crash_at(calls);
        opened += 1;
        if run.open_and_check(before) {
            live(&mut run, &mut random);
            before = crash(&mut random);
        } else if before == Crash::Kill {
            before = crash(&mut random);
        }
        // What else could have been found.
        for image in 0..asides {
            let other = match before {
                Crash::Kill => Crash::Kill,
                Crash::Cut(_) if effort() > 1 => Crash::Cut(PowerCut::in_turn(image)),
                Crash::Cut(_) => Crash::Cut(PowerCut::any(&mut || random.next())),
            };
            let disk = other.of(&run.disk, &mut random);
            let context = format!("{context}, aside: {other:?}");
            let mut aside = Run::new(disk, run.model.clone(), random.next(), &context);
            assert!(aside.open_and_check(other));
            let steps = aside.follow_up();
            assert_eq!(aside.take_steps(&steps), Ended::Done);
            opened += 1;
        }
        (disk, model) = (before.of(&run.disk, &mut random), run.model.clone());
    }
    let mut last = Run::new(disk, model, random.next(), &context);
    assert!(last.open_and_check(before));
    let steps = last.follow_up();
    assert_eq!(last.take_steps(&steps), Ended::Done);
    opened + 1
}

// RED: src/log/tasks.rs
//   - rule.keep(|| file.sync()).map_err(|source| Error::SyncFailed {
//   + rule.keep(|| Ok(())).map_err(|source: std::io::Error| Error::SyncFailed {
#[test]
fn row_a25_b11_random_workloads_survive_crash_after_crash() {
    if let Some(seed) = variable("LOGPOND_SEED") {
        workload(seed);
        return;
    }
    let workloads = images(3).saturating_mul(10);
    let opened: u64 = (0..workloads).map(workload).sum();
    eprintln!("{workloads} random workloads, {opened} images");
    assert!(opened > workloads * CRASHES);
}
