//! The log of a state on the members of a group: each has the state that its leader had at the same
//! offset, whatever was cleaned up, truncated or lost in between.
//!
//! Goal: the state follows the log. Without the protocol: tests decide themselves what a majority
//! has. Not covered: who may lead, and what is cut where (`crate::replication`).

use super::*;
use crate::log::replica::history::EpochEnd;
use crate::log::replica::received::Received;
use crate::log::replica::refusal::{Failure, Refusal};
use crate::partition::replica::{Fed, Replica};
use crate::partition::state_log::replicated::{ReplicatedState, lead_with};

type Contents = BTreeMap<u32, Vec<u8>>;

/// An opening by a member that has noted that its log begins anew at this offset; 0 for none.
fn try_join(disk: &SimulatedDisk, anew_at: u64) -> Result<WordsLog> {
    let evidence = Evidence { anew_at, ..ANYTHING };
    let core = try_found(disk, NUMBERED_CHANGES)?;
    let log = WordsLog::open(core, Arc::new(disk.clone()), evidence, &[])?;
    log.join();
    log.start(Vec::new(), false)?;
    Ok(log)
}

fn join(disk: &SimulatedDisk) -> WordsLog {
    try_join(disk, 0).unwrap()
}

fn leader_of(disk: &SimulatedDisk, epoch: u32) -> WordsLog {
    let log = join(disk);
    log.lead(epoch).unwrap();
    log
}

fn replica(log: &WordsLog) -> Replica<'_> {
    Replica::of(log.partition())
}

fn end(log: &WordsLog) -> u64 {
    log.partition().log_end()
}

fn start(log: &WordsLog) -> u64 {
    log.partition().log_start()
}

/// One fetch. Returns how many bytes the follower has stored.
fn fetch(leader: &WordsLog, follower: &WordsLog, bytes: usize) -> usize {
    let Fed::Batches(portions) = replica(leader).read(end(follower), bytes).unwrap() else {
        panic!("out of range")
    };
    for portion in &portions {
        let received = Received::check(portion.bytes(), portion.under).unwrap();
        assert_eq!(follower.append_received(&received).unwrap(), portion.offsets.end);
    }
    portions.iter().map(|portion| portion.bytes().len()).sum()
}

fn catch_up(leader: &WordsLog, follower: &WordsLog) {
    while fetch(leader, follower, 10_000) > 0 {}
}

/// All members have what the leader has.
fn settle(logs: &[&dyn ReplicatedState]) {
    let ends = logs.iter().map(|log| {
        log.partition().flush().unwrap();
        log.advance(u64::MAX)
    });
    let ends: BTreeSet<u64> = ends.collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[test]
fn a_follower_has_the_state_of_its_leader_and_can_lead_after_it() {
    let (ours, theirs) = (new_disk(), new_disk());
    let (leader, follower) = (leader_of(&ours, 1), join(&theirs));
    for round in 0..1_500_u32 {
        if round % 400 == 0 {
            leader.lead(1 + round / 400).unwrap();
        }
        let size = usize::try_from(round % 900).unwrap();
        leader.append(vec![set(round % 70, size), Change::Unset(round % 41)]).unwrap();
        if round % 100 == 0 {
            catch_up(&leader, &follower);
            settle(&[&leader, &follower]);
        }
    }
    catch_up(&leader, &follower);
    settle(&[&leader, &follower]);
    assert!(start(&leader) > 0, "nothing was cleaned up");
    for log in [&leader, &follower, &join(&theirs.kill9())] {
        assert_eq!(contents(log), contents(&leader));
        assert_eq!(replica(log).last().unwrap(), replica(&leader).last().unwrap());
        assert_eq!(replica(log).end_of(3).unwrap(), replica(&leader).end_of(3).unwrap());
    }
    assert_eq!(start(&follower), start(&leader));
    // The other one leads.
    leader.follow();
    let refused = leader.append(vec![set(1, 1)]);
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
    assert!(matches!(follower.append(vec![set(1, 1)]), Err(Error::NotLeader { .. })));
    follower.lead(7).unwrap();
    follower.append(vec![set(1, 1)]).unwrap();
    catch_up(&follower, &leader);
    assert_eq!(contents(&leader), contents(&follower));
    assert_eq!(replica(&leader).last().unwrap().map(|last| last.epoch), Some(7));
    let numbers = numbers(&follower);
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
}

/// What comes from another member is checked in the state before it is stored: the next opening would
/// refuse the log.
// RED: src/partition/state_log/replicated.rs
//   - read_again(self, None)?;
// RED: src/partition/state_log/writer.rs
//   - applied.map_err(|kind| Refusal::Damaged { position, kind })?;
//   + let _ = applied.map_err(|kind| Refusal::Damaged { position, kind });
#[test]
fn a_record_that_an_opening_would_refuse_is_not_stored() {
    let (ours, theirs) = (new_disk(), new_disk());
    let (leader, follower) = (leader_of(&ours, 1), join(&theirs));
    leader.append(vec![set(1, 4), set(2, 4)]).unwrap();
    catch_up(&leader, &follower);
    let before = (contents(&follower), end(&follower));
    // The first record is valid in the state, the second has a number that was given before.
    let hostile = found(&new_disk(), NUMBERED_CHANGES);
    hostile.with_log(Log::finish_opening).unwrap();
    Replica::of(&hostile).set_epoch(1).unwrap();
    let value = encoded(&set(9, 1)).unwrap();
    let key = |number| Stored::Change { number, value: &value }.key().unwrap();
    let keys = [key(1), key(2), key(3), key(2)];
    let records: Vec<_> = keys.iter().map(|key| Record::new().key(key).value(&value)).collect();
    for records in [&records[..2], &records[2..]] {
        let mut encoder = Encoder::take();
        let mut batch = encoder.encode(records, RULES, 0).unwrap();
        hostile.append(&mut batch, &AppendOptions::default()).unwrap();
    }
    let Fed::Batches(portions) = Replica::of(&hostile).read(2, 1).unwrap() else { panic!() };
    let received = Received::check(portions[0].bytes(), portions[0].under).unwrap();
    let refused = follower.append_received(&received);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Damaged { .. }))), "{refused:?}");
    assert_eq!((contents(&follower), end(&follower)), before);
    // A late or repeated answer.
    let Fed::Batches(portions) = replica(&leader).read(0, 1).unwrap() else { panic!() };
    let received = Received::check(portions[0].bytes(), portions[0].under).unwrap();
    let refused = follower.append_received(&received);
    let offset = Refusal::Offset { expected: 2, found: 0 };
    assert!(matches!(&refused, Err(Failure::Refused(it)) if *it == offset), "{refused:?}");
    leader.append(vec![set(3, 1)]).unwrap();
    theirs.inject(Fault::once(Operation::Write, ErrorKind::StorageFull));
    let Fed::Batches(portions) = replica(&leader).read(2, 1).unwrap() else { panic!() };
    let received = Received::check(portions[0].bytes(), portions[0].under).unwrap();
    let failed = follower.append_received(&received);
    assert!(matches!(failed, Err(Failure::Failed(Error::StorageFull { .. }))), "{failed:?}");
    assert_eq!((contents(&follower), end(&follower)), before, "no space");
    catch_up(&leader, &follower);
    for log in [&follower, &join(&theirs.kill9())] {
        assert_eq!(contents(log), contents(&leader));
    }
}

/// An end at every store point of a truncation: it is done or not begun, and can be done again.
#[test]
fn a_truncation_takes_the_state_back_wherever_the_power_goes_off() {
    let disk = new_disk();
    let log = leader_of(&disk, 1);
    log.append(vec![set(1, 5), set(2, 5)]).unwrap();
    let certain = contents(&log);
    log.append(vec![set(1, 9), Change::Unset(2), set(3, 9)]).unwrap();
    log.partition().flush().unwrap();
    let uncertain = contents(&log);
    drop(log);
    let whole = disk.kill9();
    let truncate = |disk: &SimulatedDisk| -> Result<u64, Failure> {
        let log = try_join(disk, 0)?;
        log.truncate(2, 2)
    };
    truncate(&whole).unwrap();
    let mut random = Random::new(8);
    let (mut done, mut not_begun) = (0, 0);
    for point in 0..whole.store_points() {
        let stopped = disk.kill9();
        stopped.crash_at(point);
        assert!(truncate(&stopped).is_err());
        let (worst, any) = (PowerCut::WORST, PowerCut::any(&mut || random.next()));
        let [worst, any] = [worst, any].map(|how| stopped.power_cut(&mut || random.next(), how));
        for (image, name) in [(stopped.kill9(), "kill"), (worst, "worst"), (any, "any")] {
            let log = join(&image);
            let expected = if end(&log) == 2 { &certain } else { &uncertain };
            assert_eq!(contents(&log), *expected, "store point {point}, {name}");
            *if end(&log) == 2 { &mut done } else { &mut not_begun } += 1;
            assert_eq!(log.truncate(2, 2).unwrap(), 2);
            assert_eq!(contents(&log), certain);
            log.lead(2).unwrap();
            log.append_durably(vec![set(4, 1)]).unwrap();
            assert_eq!(contents(&join(&image.kill9())), contents(&log));
        }
    }
    eprintln!("{done} done, {not_begun} not begun");
    assert!(done > 0 && not_begun > 5);
    let log = join(&whole);
    let refused = log.truncate(1, 2);
    let bound = Refusal::Bound { offset: 1, bound: 2 };
    assert!(matches!(&refused, Err(Failure::Refused(it)) if *it == bound), "{refused:?}");
    assert_eq!(contents(&log), certain);
}

/// Symptom, if it were otherwise: a change that is not certain replaces an entry; the entry is not
/// copied, its record is removed, and when the change is truncated the entry is lost.
// RED: src/partition/state_log/cleaning.rs
//   - if self.is_certain(trim) { Trimmed::Below(trim.start) } else { Trimmed::Uncertain }
//   + if !self.is_certain(trim) { Trimmed::Below(trim.start) } else { Trimmed::Below(trim.start) }
#[test]
fn nothing_is_removed_that_a_truncation_restores() {
    let disk = new_disk();
    let log = leader_of(&disk, 1);
    for key in 0..500 {
        log.append(vec![set(key, 400)]).unwrap();
    }
    let (certain, certain_end) = (contents(&log), end(&log));
    log.advance(certain_end);
    for round in 0..3_000_u32 {
        log.append(vec![set(round % 500, 300)]).unwrap();
    }
    log.clean_up(|| true).unwrap();
    let (held, first) = (sizes(&log).len(), start(&log));
    log.follow();
    assert_eq!(log.truncate(certain_end, certain_end).unwrap(), certain_end);
    assert_eq!(contents(&log), certain);
    log.partition().flush().unwrap();
    drop(log);
    let log = leader_of(&disk.kill9(), 2);
    assert_eq!((contents(&log), start(&log)), (certain, first));
    for round in 0..3_000_u32 {
        log.append(vec![set(round % 500, 300)]).unwrap();
        log.advance(u64::MAX);
    }
    log.clean_up(|| true).unwrap();
    assert!(start(&log) > certain_end && sizes(&log).len() < held, "{:?}", sizes(&log));
}

/// A leader that has removed the first part of its log, and the state at each end of a batch.
fn long_leader(disk: &SimulatedDisk) -> WordsLog {
    let leader = leader_of(disk, 3);
    for round in 0..4_000_u32 {
        leader.append(vec![set(round % 300, 300)]).unwrap();
        leader.advance(u64::MAX);
    }
    leader.append(vec![Change::Unset(1), set(1_000, 5)]).unwrap();
    leader.advance(u64::MAX);
    assert!(start(&leader) > 1_000);
    leader
}

/// A member that is behind the log start gets the whole state from there on, and knows until then
/// that it has not. A crash in between changes nothing.
// RED: src/partition/state_log/replay.rs
//   - self.trim.start >= self.anew_at
//   + true
// RED: src/partition/state_log/replay.rs
//   - if base > replay.start().max(replay.anew_at) {
//   + if base > replay.start() {
#[test]
fn a_member_behind_the_log_start_begins_anew() {
    let leader = long_leader(&new_disk());
    let from = start(&leader);
    for had in [0, 700] {
        let mut disk = new_disk();
        let log = leader_of(&disk, 1);
        for key in 0..had {
            log.append(vec![set(key, 300)]).unwrap();
        }
        log.partition().flush().unwrap();
        let noted = try_join(&disk.kill9(), from).unwrap();
        assert!(!noted.is_whole(), "noted, and not done yet");
        log.follow();
        assert_eq!(log.begin_anew(from).unwrap(), from);
        drop(log);
        let mut random = Random::new(had.into());
        let (mut runs, mut partial) = (0, 0);
        loop {
            let log = try_join(&disk, from).unwrap();
            (runs, partial) = (runs + 1, partial + u32::from(!log.is_whole()));
            if !log.is_whole() {
                assert!(log.lead(9).is_err(), "a part of a state does not lead");
                let refused = try_join(&disk.kill9(), 0);
                assert!(matches!(refused, Err(Error::Corrupt(_))), "it passes for damaged");
            }
            let fetched = fetch(&leader, &log, 30_000);
            log.partition().flush().unwrap();
            if fetched == 0 {
                assert!(log.is_whole());
                assert_eq!(contents(&log), contents(&leader));
                break;
            }
            drop(log);
            disk = disk.power_cut(&mut || random.next(), PowerCut::WORST);
        }
        assert!(partial > 1 && partial < runs, "{partial} of {runs}");
        let log = join(&disk.kill9());
        assert!(log.is_whole());
        log.lead(9).unwrap();
        log.append(vec![set(5, 5)]).unwrap();
    }
}

// ---- a random walk -----------------------------------------------------------------------------

/// A member that may be off.
struct Member {
    disk: SimulatedDisk,
    anew_at: u64,
    log: Option<WordsLog>,
}

impl Member {
    fn log(&self) -> &WordsLog {
        self.log.as_ref().unwrap()
    }

    fn begin(&mut self) {
        self.log = None;
        self.log = Some(try_join(&self.disk, self.anew_at).unwrap());
    }

    fn last(&self) -> EpochEnd {
        let nothing = EpochEnd { epoch: 0, end_offset: 0 };
        replica(self.log()).last().unwrap().unwrap_or(nothing)
    }

    /// Cuts what the leader has not, as the protocol does; after that the log is a part of the
    /// leader's.
    fn agree_with(&mut self, leader: &WordsLog, watermark: u64) {
        loop {
            let (from, last) = (end(self.log()), self.last());
            let before = replica(leader).epoch_before(from).unwrap();
            let is_equal = before.unwrap_or(0) == last.epoch && from <= end(leader);
            if from < start(leader) || (from == start(leader) && from > 0 && !is_equal) {
                self.anew_at = start(leader);
                self.log().begin_anew(self.anew_at).unwrap();
                return;
            }
            // Below the log start the epoch is not known: the log was equal when that rose.
            if is_equal || from == start(self.log()) {
                return;
            }
            let (theirs, ours) = (replica(leader), replica(self.log()));
            let to = match theirs.end_of(last.epoch).unwrap() {
                None => start(leader),
                Some(found) if found.epoch == last.epoch => found.end_offset.min(from),
                Some(found) => {
                    ours.end_of(found.epoch).unwrap().map_or(start(self.log()), |it| it.end_offset)
                }
            };
            assert!(to < from && to >= watermark.min(from), "{to} of {from}");
            self.log().truncate(to, watermark.min(from)).unwrap();
        }
    }
}

struct Walk {
    random: Random,
    members: Vec<Member>,
    leader: usize,
    epoch: u32,
    /// What a majority must have before anything of this epoch counts.
    began: u64,
    watermark: u64,
    /// The leader's state at the ends of its batches.
    states: BTreeMap<u64, Contents>,
    anew: u32,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let member = |_| Member { disk: new_disk(), anew_at: 0, log: None };
        let mut walk = Self {
            random: Random::new(seed),
            members: (0..3).map(member).collect(),
            leader: 0,
            epoch: 0,
            began: 0,
            watermark: 0,
            states: BTreeMap::from([(0, Contents::new())]),
            anew: 0,
        };
        walk.members.iter_mut().for_each(Member::begin);
        walk.elect();
        walk
    }

    fn log(&self) -> &WordsLog {
        self.members[self.leader].log()
    }

    fn append(&mut self, most: u64) {
        let mut state = self.states.last_key_value().unwrap().1.clone();
        let mut changes = Vec::new();
        for _ in 0..=self.random.below(most) {
            let key = u32::try_from(self.random.below(60)).unwrap();
            if self.random.below(4) == 0 {
                state.remove(&key);
                changes.push(Change::Unset(key));
            } else {
                let size = usize::try_from(self.random.below(6_000)).unwrap();
                state.insert(key, vec![b'v'; size]);
                changes.push(set(key, size));
            }
        }
        let end = self.log().append(changes).unwrap();
        // Copies may follow in the same call.
        self.states.insert(end, state);
    }

    /// Two of three, the one with the later end leads.
    fn elect(&mut self) {
        let off = usize::try_from(self.random.below(3)).unwrap();
        let of = |index: &usize| {
            let last = self.members[*index].last();
            (last.epoch, end(self.members[*index].log()))
        };
        self.leader = (0..3).filter(|index| *index != off).max_by_key(of).unwrap();
        self.epoch += 1;
        self.log().lead(self.epoch).unwrap();
        let end = end(self.log());
        assert!(end >= self.watermark, "what a majority had is lost");
        self.states.retain(|at, _| *at <= end);
        self.append(1);
        self.began = self.log().partition().log_end();
        for index in 0..3 {
            if index != self.leader {
                self.members[index].log().follow();
                self.reconcile(index);
            }
        }
    }

    fn reconcile(&mut self, index: usize) {
        let [leader, member] = self.members.get_disjoint_mut([self.leader, index]).unwrap();
        let before = member.anew_at;
        member.agree_with(leader.log(), self.watermark);
        self.anew += u32::from(member.anew_at != before);
    }

    fn advance(&mut self) {
        let mut ends: Vec<u64> =
            self.members.iter().map(|it| it.log().partition().durable_end()).collect();
        ends.sort_unstable();
        if ends[1] < self.began {
            return;
        }
        self.watermark = self.watermark.max(ends[1]);
        for member in &self.members {
            member.log().advance(self.watermark);
        }
    }

    fn stop(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.log = None;
        member.disk = if self.random.below(3) == 0 {
            member.disk.kill9()
        } else {
            let how = PowerCut::any(&mut || self.random.next());
            member.disk.power_cut(&mut || self.random.next(), how)
        };
        member.begin();
    }

    fn step(&mut self) {
        // The last member is slow.
        let other = (self.leader + 1 + usize::from(self.random.below(12) == 0)) % 3;
        match self.random.below(100) {
            0..50 => self.append(5),
            50..75 => {
                if end(self.members[other].log()) < start(self.log()) {
                    self.reconcile(other);
                }
                let bytes = usize::try_from(self.random.below(60_000)).unwrap();
                fetch(self.log(), self.members[other].log(), bytes);
            }
            75..85 => {
                let index = usize::try_from(self.random.below(3)).unwrap();
                self.members[index].log().partition().flush().unwrap();
                self.advance();
            }
            85..93 => {
                let steps = std::cell::Cell::new(self.random.below(8));
                let continues = || steps.replace(steps.get().saturating_sub(1)) > 0;
                self.members[other].log().clean_up(continues).unwrap();
                self.log().clean_up(continues).unwrap();
            }
            93..97 => {
                self.stop(other);
                self.reconcile(other);
            }
            97 => {
                self.stop(self.leader);
                self.elect();
            }
            _ => self.elect(),
        }
    }

    fn check(&self) {
        for (index, member) in self.members.iter().enumerate() {
            let (log, end) = (member.log(), end(member.log()));
            assert_eq!(log.check_writer(), Ok(()));
            if log.is_whole() {
                let (_, expected) = self.states.range(..=end).next_back().unwrap();
                assert!(contents(log) == *expected, "member {index}, at {end}");
            }
        }
        assert!(start(self.log()) <= self.watermark && self.log().is_whole());
    }
}

/// Three members, one or another of which leads, stops, loses power, lags, and cleans up. In every
/// state each has what its leader had at the same offset.
#[test]
fn a_member_has_the_state_that_its_leader_had_there() {
    let seeds = std::env::var("LOGPOND_STATE_SEEDS").ok();
    let seeds = seeds.map_or(6, |seeds| seeds.parse().unwrap());
    let (mut anew, mut removed) = (0, 0);
    for seed in 0..seeds {
        eprintln!("seed {seed}");
        let mut walk = Walk::new(seed);
        for _ in 0..300 {
            walk.step();
            walk.check();
        }
        anew += walk.anew;
        removed += u32::from(start(walk.log()) > 0);
    }
    assert!(anew > 0 && removed > 0, "{anew} began anew, {removed} removed something");
}

/// While a member was forced to lead, what another thread created could come before the record that says
/// that the group is a new one. After a loss of power in between, the old group preferred this log.
// RED: src/partition/state_log/replicated.rs
//   - let mut writer = log.writer.lock();
//   - writer.set_follows(false);
//   - begin();
//   + log.writer.lock().set_follows(false);
//   + begin();
//   + let mut writer = log.writer.lock();
#[test]
fn the_first_change_of_a_new_group_comes_before_those_of_others() {
    let log = join(&new_disk());
    std::thread::scope(|scope| {
        let (log, (sender, other)) = (&log, std::sync::mpsc::channel());
        let begin = || {
            scope.spawn(move || sender.send(log.append(vec![set(2, 1)])).unwrap());
            // It comes first, if it can.
            for _ in 0..10_000 {
                if other.try_recv().is_ok() {
                    return;
                }
                std::thread::yield_now();
            }
        };
        lead_with(log, 3, set(1, 1), begin).unwrap();
    });
    let at = |key| log.read(|words| words.0.offset_of(&key));
    assert_eq!((at(1), at(2)), (Some(0), Some(1)));
    assert_eq!(replica(&log).last().unwrap().unwrap().epoch, 3);
    assert!(log.partition().durable_end() >= 1);
}

/// A member on a full disk, which has led before. What it appended there needed the reserve.
fn full_member(has_reserve: bool) -> WordsLog {
    let disk = new_disk();
    let core = try_found(&disk, NUMBERED_CHANGES).unwrap();
    if has_reserve {
        core.with_log(|log| log.factory_mut().keep_reserve(STATE_SEGMENT_BYTES)).unwrap();
    }
    let log = WordsLog::open(core, Arc::new(disk.clone()), ANYTHING, &[]).unwrap();
    log.join();
    log.start(Vec::new(), false).unwrap();
    log.lead(1).unwrap();
    log.append(vec![set(0, 25_000)]).unwrap();
    disk.limit_capacity(Some(0));
    for key in 1..15 {
        assert!(log.append(vec![set(key, 25_000)]).is_ok() || !has_reserve);
        log.advance(end(&log));
    }
    log.follow();
    log
}

/// A member that was forced to lead on a full disk made room first: the copies of older entries had the
/// new epoch, and came before the record that says that the group is a new one. After a loss of power
/// in between, the old group preferred this log.
// RED: src/partition/state_log/replicated.rs
//   - let rolled = log.reserve().roll(&writer, first.size());
//   + drop(writer);
//   + let rolled = log.reserve().make_room(first.size());
//   + writer = log.writer.lock();
#[test]
fn the_first_change_of_a_new_group_comes_first_on_a_full_disk_too() {
    let log = full_member(true);
    let before = end(&log);
    lead_with(&log, 3, set(50, 150_000), || {}).unwrap();
    assert_eq!(log.read(|words| words.0.offset_of(&50)), Some(before));
    // Then room was made for the next one.
    assert!(end(&log) > before + 1);
    assert!(log.partition().durable_end() > before);
}

/// It found no room, and took changes until its leadership was ended: these had the epoch, and nothing
/// said that the group is a new one.
// RED: src/partition/state_log/replicated.rs
//   - writer.set_follows(true);
#[test]
fn what_could_not_begin_a_new_group_takes_no_changes() {
    let log = full_member(false);
    let led = lead_with(&log, 3, set(50, 150_000), || {});
    assert!(matches!(led, Err(Failure::Failed(Error::StorageFull { .. }))), "{led:?}");
    let refused = log.append(vec![set(51, 10)]);
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
}
