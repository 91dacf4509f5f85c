//! A partition of a replicated log at random, with a kill and power cuts at the steps of its disk.
//!
//! Goal: whatever is opened then has what was durable, nothing that was cut off before, and the
//! epochs of its records. Method: a [`Walk`] receives, leads, truncates, begins anew, retains,
//! compacts, rolls and is killed, keeps a [`Model`] of what may be there since which store point,
//! and opens images of the disk at some of them, where it continues. While the log is truncated,
//! another thread tries to change it. Not covered: damage, disks that fail, readers; more images of
//! a log alone are in `log::tests::power`.
//!
//! ```text
//! LOGPOND_EFFORT=20 cargo test --release --lib --features replication tests::walk -- --nocapture
//! LOGPOND_REPLAY=17 cargo test --lib --features replication tests::walk -- --nocapture
//! ```
//!
//! `LOGPOND_EFFORT` is 1 by default, a few seeds and store points. A failure prints its seed, which
//! `LOGPOND_REPLAY` asks for.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use super::super::compactor::CompactionSettings;
use super::super::quorum::Quorum;
use super::super::replica::Replica;
use super::*;
use crate::format::{BatchEncoder, Placement, SegmentKey};
use crate::log::replica::history::EpochEnd;
use crate::log::replica::received::Received;
use crate::log::replica::refusal::Failure;
use crate::log::replica::under::Under;
use crate::message::Batch;
use crate::random::Random;

const SMALL: LogOptions = LogOptions { segment_bytes: 16 << 10, ..OPTIONS };
/// What the leader's batches are sealed with.
const UNDER: Under = Under { salt: 0x1EAD, features: 0 };
const SETTINGS: CompactionSettings = CompactionSettings {
    min_dirty_ratio: 0.0,
    tombstone_retention: Duration::from_secs(60),
    segment_bytes: 16 << 10,
};

#[derive(Debug, PartialEq, Eq)]
struct Stored {
    key: Vec<u8>,
    value: Vec<u8>,
    epoch: u32,
}

/// What must be there, and what may.
#[derive(Debug, Clone, Default)]
struct Model {
    /// By offset; each is a batch. `None` for offsets that the log has passed over.
    records: Vec<Option<Rc<Stored>>>,
    start: u64,
    durable: u64,
    /// The end of what the last call has left; above it, at most what a call was about to append.
    published: u64,
    /// Below it nothing is truncated.
    committed: u64,
    /// While the log is cut: where it ended, where it will, and whether it begins anew.
    cut: Option<(u64, u64, bool)>,
    /// Where the batch begins that will hold the start of a log that begins anew within it.
    within: Option<u64>,
    compacts: bool,
}

impl Model {
    fn end_of(&self, end: u64, epoch: u32) -> Option<EpochEnd> {
        let mut offsets = (self.start..end).rev();
        offsets.find_map(|offset| {
            let epoch = self.records[offset as usize]
                .as_ref()
                .map(|it| it.epoch)
                .filter(|it| *it <= epoch)?;
            Some(EpochEnd { epoch, end_offset: offset + 1 })
        })
    }

    fn is_superseded(&self, offset: u64, end: u64) -> bool {
        let key = |offset: u64| self.records[offset as usize].as_ref().map(|it| &it.key);
        self.compacts && (offset + 1..end).any(|later| key(later) == key(offset))
    }

    /// Holds a partition that was opened against the model.
    fn check(&self, setup: &Setup, floor: u64, case: &str) {
        let (start, end) = (setup.core.log_start(), setup.core.log_end());
        assert_eq!(start, self.start, "{case}: the log start");
        assert!(end >= floor, "{case}: {end} of {floor}");
        if let Some((before, after, _)) = self.cut {
            assert!(end == before || end == after, "{case}: {end} of {before} or {after}");
        }
        let mut expected = start;
        for (offset, key, value) in read_all(setup) {
            assert!((expected..offset).all(|it| self.is_superseded(it, end)), "{case}: {expected}");
            let stored = self.records[offset as usize].as_ref().expect("a record of this offset");
            assert!(stored.key == key && stored.value == value, "{case}: other bytes at {offset}");
            expected = offset + 1;
        }
        assert!((expected..end).all(|it| self.is_superseded(it, end)), "{case}: {expected}");
        let last = self.records.iter().flatten().map(|it| it.epoch).max().unwrap_or(0);
        for epoch in 0..=last + 1 {
            let found = Replica::of(&setup.core).end_of(epoch).unwrap();
            assert_eq!(found, self.end_of(end, epoch), "{case}: {epoch}, {start}..{end}");
        }
    }
}

fn read_all(setup: &Setup) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let (core, mut all) = (&setup.core, Vec::new());
    let visible_end = core.visible_end(Visibility::Published);
    if core.log_start() == visible_end {
        return all;
    }
    let mut cursor = core.reader().cursor_at(core.log_start()).unwrap();
    let limits = FetchLimits { records: usize::MAX, bytes: usize::MAX, visible_end };
    loop {
        let mut fetched = Fetched::default();
        core.reader().fetch(&mut cursor, &limits, &mut fetched).unwrap();
        if fetched.records == 0 {
            return all;
        }
        let bytes = |part: Option<&[u8]>| part.unwrap().to_vec();
        let batch = Batch::new(fetched.ranges);
        all.extend(batch.iter().map(|it| (it.offset(), bytes(it.key()), bytes(it.value()))));
    }
}

/// What another thread does at an operation of the disk.
type Job = Box<dyn FnOnce(&Arc<PartitionCore>) + Send>;

#[derive(Default)]
struct Beside {
    job: Mutex<Option<(u64, Arc<PartitionCore>, Job)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    waited: AtomicUsize,
}

impl Beside {
    /// Begins the job when its turn has come, and returns when it waits or has ended.
    fn at_operation(&self) {
        let mut slot = self.job.lock();
        let is_due = slot.as_mut().is_some_and(|(left, ..)| {
            *left = left.saturating_sub(1);
            *left == 0
        });
        let Some((_, core, job)) = slot.take_if(|_| is_due) else { return };
        drop(slot);
        let its = Arc::clone(&core);
        let thread = thread::spawn(move || job(&its));
        while core.log.state().waiting() == 0 && !thread.is_finished() {
            thread::yield_now();
        }
        self.waited.fetch_add(usize::from(!thread.is_finished()), Ordering::Relaxed);
        *self.thread.lock() = Some(thread);
    }

    /// Waits for the job; does it now if its turn has not come.
    fn finish(&self) {
        if let Some(thread) = self.thread.lock().take() {
            thread.join().unwrap();
        }
        let left = self.job.lock().take();
        if let Some((_, core, job)) = left {
            job(&core);
        }
    }
}

/// A batch of a leader, of the same record for each offset.
fn batch_of(stored: &Stored, offsets: RangeInclusive<u64>) -> Vec<u8> {
    let key = &SegmentKey::new(UNDER.salt, UNDER.features);
    let mut encoder = BatchEncoder::new();
    let base_offset = *offsets.start();
    for _ in offsets {
        let headers = std::iter::empty::<(&str, &[u8])>();
        encoder.push(1_000, Some(&stored.key), Some(&stored.value), headers).unwrap();
    }
    let (durable_end, producer, leader_epoch) = (0, None, stored.epoch);
    let placement = Placement { base_offset, leader_epoch, durable_end, key, producer };
    encoder.finish().seal(&placement).to_vec()
}

/// Appends a batch that holds the start of an empty log, which was to begin with it. It may have
/// been rolled since, or was opened again: then it begins once more.
fn append_within(core: &Arc<PartitionCore>, bytes: &[u8]) {
    let (replica, received) = (Replica::of(core), Received::check(bytes, UNDER).unwrap());
    if let Err(Failure::Refused(_)) = replica.append(&received, 0) {
        replica.begin_anew(core.log_start(), Some(&received)).unwrap();
        replica.append(&received, 0).unwrap();
    }
}

fn open(disk: &SimulatedDisk, on: Arc<dyn Disk>, start: u64, same_boot: bool, case: &str) -> Setup {
    let known = Known {
        checkpoint: None,
        clean: false,
        same_boot,
        policy: RecoveryPolicy::default(),
        read_only: false,
        needs_all: false,
        proved: 0,
        log_start: Some(start),
        now: u64::MAX,
    };
    let env = env_on(on, disk.store_points() + 1);
    let (log, report) = open_log(&env, identity(), SMALL, &known).unwrap();
    assert!(report.corrupt.is_empty(), "{case}: {report:?}");
    let setup = Setup::with_log(disk.clone(), log, Durability::Os);
    setup.core.compactor().set(Some(SETTINGS));
    setup
}

struct Walk {
    disk: SimulatedDisk,
    hooked: Arc<dyn Disk>,
    beside: Arc<Beside>,
    setup: Setup,
    model: Model,
    /// What must be there, since which store point.
    trace: Vec<(u64, Model)>,
    random: Random,
    epoch: u32,
    /// Differs for records that have an offset again.
    run: u64,
    case: String,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::with_seed(seed);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let beside = Arc::new(Beside::default());
        let its = Arc::clone(&beside);
        let hooked = HookedDisk::new(Arc::new(disk.clone()), move |operation, side| {
            use Operation::{Create, Remove, Rename, Sync, SyncDir};
            // Others are called under the lock of a segment, for which the other thread may wait.
            if side == Side::Before
                && matches!(operation, Create | Remove | Rename | Sync | SyncDir)
            {
                its.at_operation();
            }
        });
        let hooked: Arc<dyn Disk> = Arc::new(hooked);
        let log = Log::create(&env_on(Arc::clone(&hooked), seed), identity(), SMALL, 0).unwrap();
        let setup = Setup::with_log(disk.clone(), log, Durability::Os);
        setup.core.compactor().set(Some(SETTINGS));
        Quorum::of(&setup.core).begin();
        let (model, trace, random) = (Model::default(), Vec::new(), Random::new(seed));
        let case = format!("LOGPOND_REPLAY={seed}");
        let mut walk =
            Self { disk, hooked, beside, setup, model, trace, random, epoch: 0, run: 0, case };
        walk.note();
        walk
    }

    fn note(&mut self) {
        self.trace.push((self.disk.store_points(), self.model.clone()));
    }

    /// After a call that has come to its end.
    fn settle(&mut self) {
        let core = &self.setup.core;
        self.model.published = core.log_end();
        self.model.durable = self.model.durable.max(core.durable_end());
        assert_eq!(core.log_end(), self.model.records.len() as u64, "{}", self.case);
        self.note();
    }

    fn core(&self) -> &Arc<PartitionCore> {
        &self.setup.core
    }

    /// One of `from..=to`.
    fn one_of(&mut self, from: u64, to: u64) -> u64 {
        from + self.random.below(to - from + 1)
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..=5 => self.receive(),
            6..=8 => self.lead(),
            9 => self.epoch += 1,
            10 => self.core().flush().unwrap(),
            11 => self.core().with_log(|log| log.roll_for(0)).unwrap(),
            12 | 13 => while self.core().footers().step().unwrap() {},
            14 | 15 => {
                self.model.compacts = true;
                self.commit();
                self.note();
                self.core().compactor().run_now(|| false).unwrap();
            }
            16 | 17 => {
                let start = self.retained();
                self.core().retention().flush_below(start).unwrap();
                self.note_start(start);
                self.core().retention().retire(start).unwrap();
            }
            18..=20 => self.truncate(),
            21 => self.begin_anew(),
            _ => self.kill(),
        }
        self.settle();
    }

    fn stored(&mut self) -> Rc<Stored> {
        let key = vec![b'a' + self.random.below(3) as u8];
        let size = [20, 900, 5_000][self.random.below(3) as usize];
        let tag = format!("{}.{}", self.run, self.model.records.len());
        let value = tag.into_bytes().into_iter().cycle().take(size).collect();
        Rc::new(Stored { key, value, epoch: self.epoch })
    }

    fn receive(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..=self.random.below(2) {
            self.epoch += u32::from(self.random.below(4) == 0);
            let (stored, base_offset) = (self.stored(), self.model.records.len() as u64);
            bytes.extend_from_slice(&batch_of(&stored, base_offset..=base_offset));
            self.model.records.push(Some(stored));
        }
        self.note();
        let received = Received::check(&bytes, UNDER).unwrap();
        Replica::of(self.core()).append(&received, 0).unwrap();
    }

    fn lead(&mut self) {
        let stored = self.stored();
        self.model.records.push(Some(Rc::clone(&stored)));
        self.note();
        Replica::of(self.core()).set_epoch(self.epoch).unwrap();
        let mut encoder = Encoder::take();
        let record = Record::new().key(&stored.key).value(&stored.value);
        let mut batch = encoder.encode([&record], RULES, 0).unwrap();
        self.core().append(&mut batch, &AppendOptions::default()).unwrap();
    }

    /// Raises the watermark.
    fn commit(&mut self) {
        let offset = self.one_of(self.model.start, self.core().log_end());
        let watermark = Quorum::of(self.core()).advance(offset);
        self.model.committed = self.model.committed.max(watermark.min(self.core().log_end()));
    }

    /// A new log start.
    fn retained(&mut self) -> u64 {
        self.commit();
        let (start, committed) = (self.model.start, self.model.committed);
        self.one_of(start, committed.max(start))
    }

    /// The log start is noted elsewhere, durably.
    fn note_start(&mut self, start: u64) {
        self.model.start = start;
        self.model.durable = self.model.durable.max(start).max(self.core().durable_end());
        self.note();
    }

    /// Has another thread do something while the log is cut.
    fn do_beside(&mut self, retire: u64) {
        let job: Job = match self.random.below(5) {
            0 => {
                self.model.start = retire;
                Box::new(move |core| core.retention().retire(retire).unwrap())
            }
            1 => Box::new(|core| core.with_log(|log| log.roll_for(0)).unwrap()),
            2 => Box::new(|core| {
                let tail = core.retention().plan_deletion(core.log_end()).unwrap().1;
                core.retention().roll_tail(&tail).unwrap();
            }),
            3 => Box::new(|core| {
                core.finish_durable();
            }),
            _ => Box::new(|core| drop(core.compactor().step())),
        };
        let at = self.one_of(1, 8);
        *self.beside.job.lock() = Some((at, Arc::clone(self.core()), job));
    }

    fn truncate(&mut self) {
        self.core().flush().unwrap();
        self.settle();
        let end = self.core().log_end();
        let bound =
            self.model.committed.max(self.model.start).max(self.core().log.ends().watermark());
        if bound > end {
            return;
        }
        let to = self.one_of(bound, end);
        self.do_beside(self.model.start.max(self.model.committed));
        (self.model.cut, self.model.durable) = (Some((end, to, false)), to);
        self.note();
        assert_eq!(Replica::of(self.core()).truncate(to, bound).unwrap(), to, "{}", self.case);
        self.end_cut(to);
    }

    fn begin_anew(&mut self) {
        self.core().flush().unwrap();
        self.settle();
        let (start, end) = (self.model.start, self.core().log_end());
        let to = if self.random.below(2) == 0 { end + 3 } else { self.one_of(start, end) };
        let first = to - self.random.below(5).min(to);
        self.run += 1;
        let stored = self.stored();
        let bytes = batch_of(&stored, first..=to);
        let received = Received::check(&bytes, UNDER).unwrap();
        let received = (first < to).then_some(&received);
        while (self.model.records.len() as u64) < to {
            self.model.records.push(None);
        }
        (self.model.start, self.model.durable, self.model.committed) = (to, to, to);
        self.model.within = (first < to).then_some(first);
        self.do_beside(to);
        self.model.cut = Some((end.max(to), to, true));
        self.note();
        assert_eq!(Replica::of(self.core()).begin_anew(to, received).unwrap(), to, "{}", self.case);
        self.end_cut(to);
        if first < to {
            self.note();
            self.model.records.push(Some(stored));
            self.note();
            append_within(self.core(), &bytes);
            // A batch that holds the start is not cut off.
            (self.model.within, self.model.committed) = (None, to + 1);
        }
    }

    fn end_cut(&mut self, to: u64) {
        self.beside.finish();
        self.model.records.truncate(to as usize);
        (self.model.cut, self.model.durable, self.model.published) = (None, to, to);
        self.run += 1;
    }

    fn kill(&mut self) {
        self.core().close();
        self.setup = open(&self.disk, Arc::clone(&self.hooked), self.model.start, true, &self.case);
        self.model.check(&self.setup, self.model.published, &self.case);
        Quorum::of(self.core()).begin();
    }

    /// Opens an image, and continues with it: what was being cut is cut again.
    fn try_image(&self, disk: &SimulatedDisk, point: u64, same_boot: bool, how: &str) {
        let known = self.trace.partition_point(|(since, _)| *since <= point);
        let model = &self.trace[known - 1].1;
        let case = format!("{}, store point {point}, {how}", self.case);
        let opened = |disk: &SimulatedDisk, start| {
            open(disk, Arc::new(disk.clone()), start, same_boot, &case)
        };
        let setup = opened(disk, model.start);
        // A kill loses nothing.
        let floor = if same_boot && model.cut.is_none() { model.published } else { model.durable };
        model.check(&setup, floor, &case);
        let replica = Replica::of(&setup.core);
        let mut model = model.clone();
        if let Some((_, to, is_anew)) = model.cut.take() {
            let again =
                if is_anew { replica.begin_anew(to, None) } else { replica.truncate(to, to) };
            assert_eq!(again.unwrap(), to, "{case}");
        }
        let end = setup.core.log_end();
        model.records.truncate(end as usize);
        let stored = Stored { key: b"z".to_vec(), value: b"z".to_vec(), epoch: self.epoch + 1 };
        replica.set_epoch(stored.epoch).unwrap();
        if let Some(first) = model.within.filter(|_| end == model.start) {
            append_within(&setup.core, &batch_of(&stored, first..=end));
        } else {
            let mut encoder = Encoder::take();
            let record = Record::new().key(&stored.key).value(&stored.value);
            let mut batch = encoder.encode([&record], RULES, 0).unwrap();
            setup.core.append(&mut batch, &AppendOptions::default()).unwrap();
        }
        setup.core.flush().unwrap();
        setup.core.close();
        model.records.push(Some(Rc::new(stored)));
        let again = disk.power_cut(&mut || 0, PowerCut::WORST);
        let again = open(&again, Arc::new(again.clone()), model.start, false, &case);
        model.check(&again, end + 1, &format!("{case}, continued"));
    }
}

fn effort() -> u64 {
    std::env::var("LOGPOND_EFFORT").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

/// H5: see the head of this file. Its rule: a truncation counts from the moment at which its segment
/// has its name, durably, and all that it rests on was durable before.
// RED: src/log/create.rs
//   - if let Err(error) = Rule::SegmentName.keep(|| env.disk.sync_dir(&self.dir)) {
//   + if let Err(error) = io::Result::Ok(()) {
// RED: src/partition/guard.rs
//   - while state.awaits_reserved() {
//   + while false {
#[test]
fn row_h05_a_replicated_partition_survives_a_kill_and_power_cuts_at_every_step() {
    let asked_for = std::env::var("LOGPOND_REPLAY").ok().and_then(|it| it.parse().ok());
    let seeds = asked_for.map_or(0..10 * effort(), |seed: u64| seed..seed + 1);
    let (mut images, mut cuts, mut beside, mut within) = (0, 0, 0, 0);
    for seed in seeds {
        let mut walk = Walk::new(seed);
        walk.disk.record();
        let first = walk.disk.store_points();
        for _ in 0..40 {
            walk.step();
        }
        let disks = walk.disk.recorded();
        let wanted = if effort() > 1 || asked_for.is_some() { disks.len() } else { 25 };
        let step = disks.len().div_ceil(wanted);
        let offset = walk.random.below(step as u64) as usize;
        let mut random = Random::new(seed);
        for (number, disk) in disks.iter().enumerate().skip(offset).step_by(step) {
            let point = first + number as u64;
            walk.try_image(&disk.kill9(), point, true, "killed");
            for how in [PowerCut::WORST, PowerCut::any(&mut || random.next())] {
                let image = disk.power_cut(&mut || random.next(), how);
                walk.try_image(&image, point, false, &format!("{how:?}"));
            }
            images += 3;
        }
        let count = |is_such: fn(&Model) -> bool| {
            walk.trace.iter().filter(|(_, model)| is_such(model)).count()
        };
        cuts += count(|model| model.cut.is_some());
        within += count(|model| model.cut.is_some() && model.within.is_some());
        beside += walk.beside.waited.load(Ordering::Relaxed);
    }
    let seen = format!("{images} images, {cuts} cuts, {within} within, {beside} waited");
    eprintln!("{seen}");
    let is_enough = images > 500 && cuts > 20 && within > 3 && beside > 3;
    assert!(asked_for.is_some() || is_enough, "{seen}");
}
