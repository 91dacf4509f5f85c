//! Random runs with compactions in them, and crashes at every point of those.

use super::*;

#[derive(Debug, Clone, Default)]
struct Oracle {
    entries: Vec<Entry>,
    /// The end offset of each batch.
    ends: Vec<u64>,
    durable: u64,
    /// What a compaction that came to its end has removed for good.
    gone: BTreeSet<u64>,
    now: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append { count: u64 },
    Sync,
    Roll,
    Finish,
    Compact { little_memory: bool, apart: bool },
    Wait,
    Reopen,
}

fn any_step(random: &mut Random) -> Step {
    match random.below(20) {
        0..=8 => Step::Append { count: 1 + random.below(5) },
        9 => Step::Sync,
        10..=12 => Step::Roll,
        13 | 14 => Step::Finish,
        15..=17 => {
            Step::Compact { little_memory: random.below(3) == 0, apart: random.below(2) == 0 }
        }
        18 => Step::Wait,
        _ => Step::Reopen,
    }
}

impl Oracle {
    fn append(&mut self, log: &mut Log, random: &mut Random, count: u64) -> Result<()> {
        let base = log.log_end();
        assert_eq!(base, self.entries.len() as u64);
        let batch: Vec<Entry> = (base..base + count)
            .map(|offset| {
                let key = format!("k{}", random.below(7));
                let value = (random.below(4) > 0).then(|| {
                    let size = [3, 40, 900][random.below(3) as usize];
                    value(random.next(), offset, size)
                });
                (key.into_bytes(), value)
            })
            .collect();
        // Noted first: what fails at a crash may be there all the same.
        self.entries.extend(batch.iter().cloned());
        self.ends.push(base + count);
        append_entries(log, &batch, None).map(drop)
    }

    /// Holds what can be read against what must and may be. Fails where the disk does.
    fn check(&self, log: &Log, context: &str) -> Result<Found> {
        let found = read_entries(log, 0, 1_000)?;
        let mut latest: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (offset, (key, _)) in (0..log.log_end()).zip(&self.entries) {
            latest.insert(key, offset);
        }
        for (offset, entry) in &found {
            assert_eq!(*entry, self.entries[*offset as usize], "{context}: at {offset}");
            assert!(!self.gone.contains(offset), "{context}: {offset} has come back");
        }
        for (key, offset) in latest {
            let is_tombstone = self.entries[offset as usize].1.is_none();
            if found.contains_key(&offset) {
                continue;
            }
            assert!(is_tombstone, "{context}: the latest of {key:?} at {offset} is lost");
            let older = found.iter().find(|(_, entry)| entry.0 == key);
            assert_eq!(older, None, "{context}: what the tombstone {offset} deleted is there");
        }
        Ok(found)
    }

    fn run(&mut self, rig: &Rig, log: Log, steps: &[Step], seed: u64) -> Result<Log> {
        let mut random = Random::new(seed);
        let mut log = log;
        let context = format!("seed {seed}");
        for step in steps {
            match *step {
                Step::Append { count } => self.append(&mut log, &mut random, count)?,
                Step::Sync => {
                    sync(&mut log)?;
                    self.durable = log.log_end();
                }
                Step::Roll => log.roll_for(0)?,
                Step::Finish => {
                    sync(&mut log)?;
                    self.durable = log.log_end();
                    finish_segments(&mut log)?;
                }
                Step::Wait => self.now += TOMBSTONES_KEPT,
                Step::Compact { little_memory, apart } => {
                    let key_memory_bytes = if little_memory { 600 } else { 1 << 20 };
                    let segment_bytes = if apart { 1 } else { SEGMENT_BYTES };
                    let terms = Terms { key_memory_bytes, segment_bytes, ..terms_at(self.now) };
                    let shared = Shared::new(log);
                    let mut visible = self.check(&shared.0.borrow(), &context)?;
                    shared.compact_with(terms, |log| {
                        // Read errors while the disk is off are the next step's.
                        if random.below(4) == 0
                            && let Ok(now) = self.check(log, &context)
                        {
                            assert!(now.keys().all(|it| visible.contains_key(it)), "{context}");
                            visible = now;
                        }
                    })?;
                    log = shared.0.into_inner();
                    let found = self.check(&log, &context)?;
                    let end = log.log_end();
                    self.gone.extend((0..end).filter(|offset| !found.contains_key(offset)));
                }
                Step::Reopen => {
                    sync(&mut log)?;
                    self.durable = log.log_end();
                    let clean = known(log.checkpoint(), true);
                    drop(log);
                    let (reopened, report) = rig.open(&clean)?;
                    assert!(report.corrupt.is_empty(), "{context}: {report:?}");
                    assert_eq!(report.cut_bytes, 0, "{context}");
                    log = reopened;
                    self.check(&log, &context)?;
                }
            }
        }
        Ok(log)
    }

    /// The log after a crash; what it still has is what was appended from then on.
    fn check_recovered(&mut self, log: &Log, report: &PartitionRecovery, context: &str) {
        assert!(report.corrupt.is_empty(), "{context}: {report:?}");
        let end = log.log_end();
        assert!(end >= self.durable, "{context}: {end} of {}", self.durable);
        assert!(end == 0 || self.ends.contains(&end), "{context}: {end} of {:?}", self.ends);
        self.check(log, context).unwrap_or_else(|e| panic!("{context}: {e:?}"));
        self.entries.truncate(end as usize);
        self.ends.retain(|batch| *batch <= end);
    }
}

fn workload(seed: u64, steps: &[Step], point: Option<u64>) -> (SimulatedDisk, Oracle, u64) {
    let (disk, rig) = Rig::fresh(seed);
    let log = rig.create();
    let before = disk.store_points();
    if let Some(point) = point {
        disk.crash_at(before + point);
    }
    let mut oracle = Oracle { now: 5_000, ..Oracle::default() };
    if let Err(error) = oracle.run(&rig, log, steps, seed) {
        assert!(disk.is_off(), "seed {seed}: {error:?}");
    }
    let points = disk.store_points() - before;
    (disk, oracle, points)
}

/// Opens an image, checks it, continues with a compaction, and checks again.
fn open_and_continue(
    image: &SimulatedDisk,
    oracle: &Oracle,
    how: &Known,
    seed: u64,
    context: &str,
) {
    let mut oracle = oracle.clone();
    let rig = Rig::simulated(image, seed);
    let (mut log, report) = rig.open(how).unwrap_or_else(|e| panic!("{context}: {e:?}"));
    oracle.check_recovered(&log, &report, context);
    let mut random = Random::new(seed);
    oracle.append(&mut log, &mut random, 3).unwrap();
    log.roll_for(0).unwrap();
    finish_all(&mut log);
    let steps = [Step::Compact { little_memory: false, apart: false }, Step::Reopen];
    let log = oracle.run(&rig, log, &steps, seed).unwrap();
    oracle.durable = log.log_end();
    drop(log);
    let worst = image.power_cut(&mut || 0, PowerCut::WORST);
    let (log, report) = Rig::simulated(&worst, seed).open(&AFTER_CUT).unwrap();
    oracle.check_recovered(&log, &report, &format!("{context}, at last"));
}

/// Enough segments with enough in common, so that there is something to compact.
fn setup(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..3 + random.below(3) {
        for _ in 0..2 {
            steps.push(Step::Append { count: 1 + random.below(5) });
        }
        steps.push(Step::Roll);
    }
    steps.push(Step::Finish);
    steps
}

/// A15 to A18, B8: killed, or the power cut, at every store point of two compactions.
// RED: src/log/compaction/output.rs
//   - let synced = Rule::CompactedSync.keep(|| self.draft.file.sync());
//   + let synced: io::Result<()> = Ok(());
// RED: src/log/compaction/output.rs
//   - if let Err(source) = Rule::CompactedName.keep(|| disk.sync_dir(dir)) {
//   + if let Err(source) = io::Result::Ok(()) {
// RED: src/log/recovery.rs
//   - if !segments.iter().any(|facts| facts.replaces) || !Rule::ReplacedIsLeftover.holds() {
//   + if true {
#[test]
fn row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing() {
    let mut tried = 0;
    for seed in 0..6 * effort() {
        let mut random = Random::new(seed ^ 0xA15);
        let mut steps = setup(&mut random);
        let (_, _, begin) = workload(seed, &steps, None);
        let (little_memory, apart) = (seed % 3 == 0, seed % 2 == 0);
        steps.push(Step::Compact { little_memory, apart });
        steps.extend([Step::Wait, Step::Append { count: 4 }, Step::Roll, Step::Finish]);
        steps.push(Step::Compact { little_memory: false, apart: false });
        let (_, _, points) = workload(seed, &steps, None);
        assert!(points > begin + 10, "seed {seed}: nothing was compacted");
        for point in begin..=points {
            let (disk, oracle, _) = workload(seed, &steps, Some(point));
            let context = format!("seed {seed}, point {point} of {points}");
            open_and_continue(&disk.kill9(), &oracle, &AFTER_KILL, point, &context);
            for image in 0..3 {
                let how = match image {
                    0 => PowerCut::WORST,
                    _ => PowerCut::any(&mut || random.next()),
                };
                let cut = disk.power_cut(&mut || random.next(), how);
                let context = format!("{context}, {how:?}");
                open_and_continue(&cut, &oracle, &AFTER_CUT, point, &context);
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

/// A25: the opening after a crash in a compaction is itself interrupted, at every point of it.
#[test]
fn row_a25_opening_after_an_interrupted_compaction_can_be_interrupted() {
    for seed in 0..8 * effort() {
        let mut random = Random::new(seed ^ 0xA25);
        let mut steps = setup(&mut random);
        let (_, _, begin) = workload(seed, &steps, None);
        steps.push(Step::Compact { little_memory: true, apart: seed % 2 == 0 });
        let (_, _, points) = workload(seed, &steps, None);
        let point = begin + random.below(points - begin);
        let (disk, oracle, _) = workload(seed, &steps, Some(point));
        for how in [None, Some(PowerCut::WORST), Some(PowerCut::any(&mut || random.next()))] {
            let image = match how {
                None => disk.kill9(),
                Some(how) => disk.power_cut(&mut || random.next(), how),
            };
            for at in 0.. {
                let again = image.kill9();
                again.crash_at(at);
                let is_open = Rig::simulated(&again, seed + 1).open(&AFTER_CUT).is_ok();
                let context = format!("seed {seed}, point {point}, {how:?}, opening at {at}");
                let cut = PowerCut::any(&mut || random.next());
                let image = again.power_cut(&mut || random.next(), cut);
                open_and_continue(&image, &oracle, &AFTER_CUT, at, &format!("{context}, {cut:?}"));
                open_and_continue(&again.kill9(), &oracle, &AFTER_KILL, at, &context);
                if is_open {
                    break;
                }
            }
        }
    }
}

/// Long random runs, each with crashes, one after the other on the same disk.
#[test]
fn random_runs_with_compactions_agree_with_the_oracle() {
    for seed in 0..120 * effort() {
        let mut random = Random::new(seed ^ 0xC0C0);
        let (mut disk, rig) = Rig::fresh(seed);
        let mut oracle = Oracle { now: 5_000, ..Oracle::default() };
        let mut log = rig.create();
        let mut rig = rig;
        for run in 0..4 {
            let steps: Vec<Step> = (0..30).map(|_| any_step(&mut random)).collect();
            disk.crash_at(disk.store_points() + 20 + random.below(250));
            let context = format!("seed {seed}, run {run}");
            let ended = oracle.run(&rig, log, &steps, seed ^ run);
            assert!(ended.is_ok() || disk.is_off(), "{context}: {ended:?}");
            drop(ended);
            let (image, how) = if random.below(2) == 0 {
                (disk.kill9(), AFTER_KILL)
            } else {
                let how = PowerCut::any(&mut || random.next());
                (disk.power_cut(&mut || random.next(), how), AFTER_CUT)
            };
            disk = image;
            rig = Rig::simulated(&disk, seed + run);
            let (opened, report) = rig.open(&how).unwrap_or_else(|e| panic!("{context}: {e:?}"));
            oracle.check_recovered(&opened, &report, &context);
            oracle.gone.retain(|offset| *offset < opened.log_end());
            oracle.durable = opened.durable_end();
            log = opened;
        }
    }
}
