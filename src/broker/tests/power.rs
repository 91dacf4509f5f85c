//! Every image that a power cut can leave of a broker's short workloads.
//!
//! As `log::tests::power`, a floor higher: topics, committed offsets, recovery points and clean
//! ends. All workloads of up to three steps, after a topic with a record and a commit was made;
//! the disk stops at each store point of the last step, and each image of it is opened. One image
//! in some is opened by an opening that is itself interrupted, and continued.
//!
//! ```text
//! MALLOC_MMAP_THRESHOLD_=65536 LOGPOND_EFFORT=10 \
//!     cargo test --release --lib broker::tests::power -- --nocapture
//! LOGPOND_REPLAY=broker:commit,delete/57/3 cargo test --lib broker::tests::power -- --nocapture
//! ```
//!
//! An image takes longer than a log's: opening a broker begins a new segment of 1 MiB in each of
//! its own three logs, and most of the time goes into clearing that memory. glibc takes memory
//! that large from the system, which gives it out cleared page by page as it is used, if it is
//! set to do so for ever: with that variable an image takes a third of the time.

use super::crash::Campaign;
use super::effort;
use super::model::{Crash, Model, Shape, Step};
use super::run::{Ended, Run};
use crate::config::Durability;
use crate::random::Random;
use crate::storage::disk::{PowerCut, SimulatedDisk};

const STEPS: [(&str, Step); 10] = [
    ("create", Step::Create("b", Shape(1, Durability::Sync))),
    ("delete", Step::Delete("a")),
    ("send", Step::Send("a", 0)),
    ("enqueue", Step::Enqueue("a", 0)),
    ("commit", Step::Commit("a")),
    ("async", Step::CommitAsync("a")),
    ("flush", Step::Flush),
    ("tick", Step::Tick),
    ("close", Step::Close),
    ("drop", Step::Drop),
];

const SEED: u64 = 11;

/// How much of it all.
#[derive(Debug, Clone, Copy)]
struct Share {
    steps: usize,
    of_longest: u64,
    /// The most images with the same names.
    images: usize,
    /// Of the images of a store point, one in so many.
    of_images: usize,
    /// Of so many images one is continued with.
    deeper: u64,
}

impl Share {
    fn of_effort() -> Self {
        match effort() {
            0..=1 => Self { steps: 2, of_longest: 12, images: 8, of_images: 2, deeper: 16 },
            2..=9 => Self { steps: 3, of_longest: 30, images: 64, of_images: 1, deeper: 16 },
            _ => Self { steps: 3, of_longest: 1, images: 1 << 12, of_images: 1, deeper: 64 },
        }
    }
}

/// The workloads of exactly so many steps, each as indices of [`STEPS`].
fn workloads(steps: usize) -> Vec<Vec<usize>> {
    (0..STEPS.len().pow(u32::try_from(steps).unwrap()))
        .map(|number| {
            let digit = |at| number / STEPS.len().pow(at) % STEPS.len();
            (0..u32::try_from(steps).unwrap()).map(digit).collect()
        })
        .collect()
}

/// Whether each step finds the topic that it is about.
fn makes_sense(steps: &[Step]) -> bool {
    let (mut has_a, mut has_b) = (true, false);
    steps.iter().all(|step| match step {
        Step::Create(..) => !std::mem::replace(&mut has_b, true),
        Step::Delete(_) => std::mem::replace(&mut has_a, false),
        Step::Send(..) | Step::Enqueue(..) | Step::Commit(_) | Step::CommitAsync(_) => has_a,
        _ => true,
    })
}

/// Runs until the disk stops at `point`, if there is one.
fn live(steps: &[Step], point: Option<u64>, context: &str) -> Run {
    let mut run = Run::new(SimulatedDisk::new(), Model::default(), SEED, context);
    let setup = [
        Step::Create("a", Shape(1, Durability::Sync)),
        Step::Send("a", 0),
        Step::Commit("a"),
        Step::Enqueue("a", 0),
    ];
    assert!(run.open());
    assert_eq!(run.take_steps(&setup), Ended::Done);
    if let Some(point) = point {
        run.disk.crash_at(point);
    }
    run.take_steps(steps);
    run
}

/// Tries the store points of the last step, or one image alone: its store point and its number.
fn try_workload(
    campaign: &mut Campaign,
    indices: &[usize],
    share: Share,
    only: Option<(u64, usize)>,
) {
    let (names, steps): (Vec<_>, Vec<_>) = indices.iter().map(|at| STEPS[*at].clone()).unzip();
    if !makes_sense(&steps) {
        return;
    }
    let name = format!("broker:{}", names.join(","));
    let start = live(&steps[..steps.len() - 1], None, &name).disk.store_points();
    let end = live(&steps, None, &name).disk.store_points();
    for point in start + u64::from(steps.len() > 1)..=end {
        if only.is_some_and(|(only, _)| only != point) {
            continue;
        }
        let run = live(&steps, Some(point), &name);
        campaign.points += 1;
        let images = run.disk.images(share.images);
        for image in 0..images.len() {
            let is_tried = match only {
                Some((_, only)) => only == image,
                None => (image + usize::try_from(point).unwrap()).is_multiple_of(share.of_images),
            };
            if is_tried {
                let context =
                    format!("LOGPOND_EFFORT={} LOGPOND_REPLAY={name}/{point}/{image}", effort());
                try_image(campaign, images.get(image), &run.model, share, &context);
            }
        }
    }
}

fn try_image(
    campaign: &mut Campaign,
    image: SimulatedDisk,
    model: &Model,
    share: Share,
    context: &str,
) {
    let cut = Crash::Cut(PowerCut::WORST);
    let mut random = Random::new(
        context.bytes().fold(SEED, |seed, byte| Random::new(seed ^ u64::from(byte)).next()),
    );
    if random.below(share.deeper) == 0 {
        return campaign.proceed(image, model, cut, &mut random, context);
    }
    campaign.images += 1;
    let mut next = Run::new(image, model.clone(), random.next(), context);
    assert!(next.open_and_check(cut));
}

fn replay(case: &str) {
    let mut parts = case.split('/');
    let Some(names) = parts.next().and_then(|name| name.strip_prefix("broker:")) else { return };
    let point = parts.next().unwrap().parse().unwrap();
    let image = parts.next().unwrap().parse().unwrap();
    let index = |name| STEPS.iter().position(|(its, _)| *its == name).unwrap();
    let indices: Vec<usize> = names.split(',').map(index).collect();
    let mut campaign = Campaign::default();
    try_workload(&mut campaign, &indices, Share::of_effort(), Some((point, image)));
    assert!(campaign.images > 0, "there is no such image");
}

/// B1, B6, B13, B16 to B18 for the broker as a whole.
// RED: src/group/commit.rs
//   - Wait::ForDisk => Rule::CommitSync.keep(|| log.wait_durable(self.end))?,
//   + Wait::ForDisk => {}
#[test]
fn row_b01_every_image_of_a_brokers_short_workloads_keeps_what_was_acknowledged() {
    if let Ok(case) = std::env::var("LOGPOND_REPLAY") {
        return replay(&case);
    }
    let share = Share::of_effort();
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast the campaign is, for the person who runs it"
    )]
    let began = std::time::Instant::now();
    let mut campaign = Campaign { seed: SEED, ..Campaign::default() };
    for steps in 1..=share.steps {
        for (number, indices) in (0..).zip(workloads(steps)) {
            if steps < share.steps || Random::new(number).below(share.of_longest) == 0 {
                try_workload(&mut campaign, &indices, share, None);
            }
        }
    }
    let (millis, all) = (began.elapsed().as_millis(), campaign.images + campaign.nested);
    let rate = u128::from(all) * 1_000 / millis.max(1);
    eprintln!("{campaign:?}: {all} images in {millis} ms, {rate} per second");
    assert!(campaign.points > 100 && campaign.images > 200, "{campaign:?}");
}
