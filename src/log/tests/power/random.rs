//! Long workloads by chance, and 64 biased images at each store point that is tried.

use super::check::{Campaign, Case, any_ops};
use super::world::World;
use super::*;

/// LIMIT: more than one round of [`PowerCut::in_turn`].
const IMAGES: usize = 64;

fn try_workload(campaign: &mut Campaign, seed: u64, points: u64, only: Option<&Case>) {
    let workload = format!("seed:{seed}");
    let mut random = Random::new(seed);
    let mut world = World::new(seed, &workload);
    let count = 8 + random.below(24);
    let ops = any_ops(&mut random, count);
    world.disk.record();
    let start = world.disk.store_points();
    assert!(world.run(&ops));
    campaign.workloads += 1;
    let disks = world.disk.recorded();
    let step = (disks.len() as u64).div_ceil(points);
    let first = random.below(step);
    for (point, disk) in (start..).zip(disks) {
        if !(point + first).is_multiple_of(step) && only.is_none() {
            continue;
        }
        campaign.points += 1;
        for image in 0..IMAGES {
            let case = Case { workload: workload.clone(), point, image };
            if only.is_some_and(|only| *only != case) {
                continue;
            }
            let mut random = case.random();
            let cut = disk.power_cut(&mut || random.next(), PowerCut::in_turn(image));
            campaign.image(&cut, world.oracle_at(point), 8, &mut random, &case);
        }
    }
}

/// B11: what a cut leaves is cut again while it is being opened, and after the log was continued:
/// what the opening has made, and in which the log continues, is durable before anybody relies on
/// it.
// RED: src/log/create.rs
//   - if let Err(error) = Rule::SegmentName.keep(|| env.disk.sync_dir(&self.dir)) {
//   + if let Err(error) = io::Result::Ok(()) {
#[test]
fn row_b11_long_workloads_survive_cut_after_cut() {
    let mut campaign = Campaign::default();
    if let Some(case) = Case::asked_for() {
        let Some(seed) = case.workload.strip_prefix("seed:") else { return };
        try_workload(&mut campaign, seed.parse().unwrap(), 1, Some(&case));
        assert_eq!(campaign.images, 1, "{case}: there is no such image");
        return;
    }
    // At least a few points of many workloads; in a campaign, many points of more.
    let (workloads, points) = if effort() > 1 { (effort() * 20, 20) } else { (12, 2) };
    for seed in 0..workloads {
        try_workload(&mut campaign, seed, points, None);
    }
    eprintln!("{campaign:?}");
    assert!(campaign.images > workloads * IMAGES as u64 && campaign.nested > workloads);
}
