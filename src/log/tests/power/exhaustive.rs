//! All workloads of up to three operations, all store points, all images.
//!
//! The store points of a workload's beginning are those of the shorter workload, so only those of
//! its last operation are tried.

use super::check::{Campaign, Case};
use super::world::{Op, World};
use super::*;

/// From where a workload begins: an empty log, and one with two segments that can be compacted
/// and an active one of which not all is synced.
const BEGINNINGS: [(&str, &[Op]); 2] = [
    ("fresh", &[]),
    (
        "grown",
        &[Op::Small, Op::Pages, Op::Roll, Op::Small, Op::Roll, Op::Sync, Op::Footers, Op::Small],
    ),
];

/// How much of it all.
#[derive(Debug, Clone, Copy)]
struct Share {
    operations: usize,
    /// Of the longest workloads, one in so many.
    of_longest: u64,
    /// The most images with the same names.
    images: usize,
    /// Of the images of a store point, one in so many.
    of_images: usize,
    /// Of so many images one is continued with.
    deeper: u64,
}

impl Share {
    /// LIMIT: 2^12 subsets of pages.
    const WHOLE: Self =
        Self { operations: 3, of_longest: 1, images: 1 << 12, of_images: 1, deeper: 16 };

    fn of_effort() -> Self {
        match effort() {
            0..=1 => Self { operations: 3, of_longest: 100, images: 8, of_images: 5, deeper: 16 },
            2..=9 => Self { of_longest: 10 / effort(), images: 256, ..Self::WHOLE },
            _ => Self::WHOLE,
        }
    }
}

/// Calls `each` with all workloads of exactly so many operations.
fn each_workload(operations: usize, each: &mut impl FnMut(&[Op])) {
    let mut at = vec![0; operations];
    loop {
        let ops: Vec<Op> = at.iter().map(|index| Op::ALL[*index].0).collect();
        each(&ops);
        let Some(position) = at.iter().rposition(|index| index + 1 < Op::ALL.len()) else { return };
        at[position] += 1;
        at[position + 1..].fill(0);
    }
}

fn workload_name(beginning: &str, ops: &[Op]) -> String {
    let names: Vec<&str> = ops.iter().map(|op| op.name()).collect();
    format!("{beginning}:{}", names.join(","))
}

/// Tries the store points of the last operation; with `only`, that image alone.
fn try_workload(
    campaign: &mut Campaign,
    (beginning, before): (&str, &[Op]),
    ops: &[Op],
    share: Share,
    only: Option<&Case>,
) {
    let workload = workload_name(beginning, ops);
    let (last, first) = ops.split_last().unwrap();
    let mut world = World::new(1, &workload);
    assert!(world.run(before) && world.run(first));
    let start = world.disk.store_points();
    world.disk.record();
    assert!(world.run(&[*last]));
    campaign.workloads += 1;
    for (point, disk) in (start..).zip(world.disk.recorded()) {
        if point == start && !first.is_empty() {
            continue;
        }
        campaign.points += 1;
        let images = disk.images(share.images);
        for image in 0..images.len() {
            let case = Case { workload: workload.clone(), point, image };
            let is_tried = match only {
                Some(only) => *only == case,
                None => (image + point as usize).is_multiple_of(share.of_images),
            };
            if is_tried {
                let oracle = world.oracle_at(point);
                campaign.image(&images.get(image), oracle, share.deeper, &mut case.random(), &case);
            }
        }
    }
}

fn replay(case: &Case) {
    let (name, ops) = case.workload.split_once(':').unwrap();
    let Some(beginning) = BEGINNINGS.into_iter().find(|(its, _)| *its == name) else { return };
    let ops: Vec<Op> = ops.split(',').map(Op::named).collect();
    let mut campaign = Campaign::default();
    try_workload(&mut campaign, beginning, &ops, Share::of_effort(), Some(case));
    assert!(campaign.images > 0, "{case}: there is no such image");
}

/// B1 to B5, B7, B9 to B11, B13: nothing that was acknowledged is lost, and nothing else is there,
/// in any image of any short workload.
// RED: src/log/tasks.rs
//   - rule.keep(|| file.sync()).map_err(|source| Error::SyncFailed {
//   + rule.keep(|| Ok(())).map_err(|source: std::io::Error| Error::SyncFailed {
#[test]
fn row_b01_every_image_of_every_short_workload_is_a_prefix() {
    if let Some(case) = Case::asked_for() {
        return replay(&case);
    }
    let share = Share::of_effort();
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast the campaign is, for the one who runs it"
    )]
    let began = std::time::Instant::now();
    let mut campaign = Campaign::default();
    let mut number = 0;
    for beginning in BEGINNINGS {
        for operations in 1..=share.operations {
            each_workload(operations, &mut |ops| {
                number += 1;
                if operations < share.operations || Random::new(number).below(share.of_longest) == 0
                {
                    try_workload(&mut campaign, beginning, ops, share, None);
                }
            });
        }
    }
    let (millis, all) = (began.elapsed().as_millis(), campaign.images + campaign.nested);
    let rate = u128::from(all) * 1_000 / millis.max(1);
    eprintln!("{campaign:?}: {all} images in {millis} ms, {rate} per second");
    assert!(campaign.workloads > 250 && campaign.images > 1_000, "{campaign:?}");
}
