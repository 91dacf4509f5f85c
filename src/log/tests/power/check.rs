//! What is done with an image, and how much was done.

use std::fmt::Display;

use super::world::{Op, Oracle, World};
use super::*;
use crate::storage::disk::PowerCut;

/// Counts what was tried; a campaign that tries nothing proves nothing.
#[derive(Debug, Default)]
pub(super) struct Campaign {
    pub(super) workloads: u64,
    pub(super) points: u64,
    pub(super) images: u64,
    /// Images of a log that was recovered from an image, or that was being recovered.
    pub(super) nested: u64,
}

/// LIMIT: cuts after one another: all that are continued with see two, and one in four of them
/// three.
const DEPTH: u64 = 3;

impl Campaign {
    /// Opens an image and checks it. Of one in `share` the opening is interrupted, and the walk
    /// continues with it.
    pub(super) fn image(
        &mut self,
        image: &SimulatedDisk,
        oracle: &Oracle,
        share: u64,
        random: &mut Random,
        case: &dyn Display,
    ) {
        self.images += 1;
        self.open(image, oracle, 1, share, random, case);
    }

    fn open(
        &mut self,
        image: &SimulatedDisk,
        oracle: &Oracle,
        depth: u64,
        share: u64,
        random: &mut Random,
        case: &dyn Display,
    ) {
        let continues = match depth {
            1 => random.below(share) == 0,
            _ => depth < DEPTH && random.below(4) == 0,
        };
        let untouched = continues.then(|| image.kill9());
        let rig = Rig::simulated(image, random.next());
        let known = oracle.known(random.below(2) == 0, &AFTER_CUT);
        let (log, report) = rig.open(&known).unwrap_or_else(|e| panic!("{case}: {e:?}"));
        let checked = oracle.check(&log, &report, oracle.durable, case);
        checked.unwrap_or_else(|e| panic!("{case}: {e:?}"));
        // What was read came from the disk.
        assert_eq!(log.durable_end(), log.log_end(), "{case}");
        let Some(untouched) = untouched else { return };
        self.interrupted(&untouched, oracle, &known, image.store_points(), depth, random, case);
        let mut oracle = oracle.clone();
        oracle.proceed(&log);
        let case = format!("{case}, continued");
        let opened = (image.clone(), rig, log);
        let mut world = World::recovered(opened, oracle, random.next(), case);
        let ops = any_ops(random, 4);
        world.disk.crash_at(world.disk.store_points() + random.below(40));
        world.run(&ops);
        self.cut(&world.disk, &world.oracle, depth, random, &format!("{}, {ops:?}", world.case));
    }

    /// The power is cut while the image is being opened.
    #[expect(clippy::too_many_arguments, reason = "all that says which image it is")]
    fn interrupted(
        &mut self,
        image: &SimulatedDisk,
        oracle: &Oracle,
        known: &Known,
        points: u64,
        depth: u64,
        random: &mut Random,
        case: &dyn Display,
    ) {
        let stop = random.below(points + 1);
        image.crash_at(stop);
        let opened = Rig::simulated(image, random.next()).open(known);
        let case = format!("{case}, opening stopped at {stop}");
        assert!(opened.is_ok() || image.is_off(), "{case}: {opened:?}");
        self.cut(image, oracle, depth, random, &case);
    }

    fn cut(
        &mut self,
        disk: &SimulatedDisk,
        oracle: &Oracle,
        depth: u64,
        random: &mut Random,
        case: &str,
    ) {
        for _ in 0..2 {
            self.nested += 1;
            let how = PowerCut::any(&mut || random.next());
            let image = disk.power_cut(&mut || random.next(), how);
            self.open(&image, oracle, depth + 1, 1, random, &format!("{case}, {how:?}"));
        }
    }
}

pub(super) fn any_ops(random: &mut Random, count: u64) -> Vec<Op> {
    let kinds = if cfg!(feature = "replication") { 31 } else { 24 };
    let mut any = || match random.below(kinds) {
        0..=5 => Op::Small,
        6..=8 => Op::Pages,
        9 | 10 => Op::Fill,
        11..=13 => Op::Sync,
        14 => Op::Roll,
        15 | 16 => Op::Footers,
        17 | 18 => Op::Space,
        19 | 20 => Op::Compact,
        21 => Op::Retain,
        22 => Op::Close,
        #[cfg(feature = "replication")]
        24..27 => Op::Receive,
        #[cfg(feature = "replication")]
        27..30 => Op::Cut,
        #[cfg(feature = "replication")]
        30.. => Op::Anew,
        _ => Op::Kill,
    };
    (0..count).map(|_| any()).collect()
}

/// What a failure names, and `LOGPOND_REPLAY` asks for: a workload, a store point, an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) workload: String,
    pub(super) point: u64,
    pub(super) image: usize,
}

impl Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workload, point, image } = self;
        write!(f, "LOGPOND_EFFORT={} LOGPOND_REPLAY={workload}/{point}/{image}", effort())
    }
}

impl Case {
    pub(super) fn asked_for() -> Option<Self> {
        Self::parse(&std::env::var("LOGPOND_REPLAY").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (workload, point, image) = (parts.next()?, parts.next()?, parts.next()?);
        let (point, image) = (point.parse().ok()?, image.parse().ok()?);
        Some(Self { workload: workload.to_owned(), point, image })
    }

    /// Random numbers that depend on nothing but what is replayed.
    pub(super) fn random(&self) -> Random {
        let bytes = self.workload.bytes();
        let seed = bytes.fold(self.point << 32 ^ self.image as u64, |seed, byte| {
            Random::new(seed ^ u64::from(byte)).next()
        });
        Random::new(seed)
    }
}

#[test]
fn what_a_failure_prints_is_what_a_replay_is_asked_for() {
    let case = Case { workload: "grown:fill,roll".to_owned(), point: 3, image: 17 };
    let printed = case.to_string();
    assert_eq!(Case::parse(printed.split_once("LOGPOND_REPLAY=").unwrap().1), Some(case));
}
