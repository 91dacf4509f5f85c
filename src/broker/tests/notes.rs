//! What a member of a replicated group notes: that it survives, and that a loss is noticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::{DIR, clock, open_at};
use crate::broker::Broker;
use crate::broker::local::{NotedLog, NotedPromise, NotedRun, ReplicaNote, Standing};
use crate::broker::member_notes::{Member, MemberNotes};
use crate::config::{Durability, TopicConfig};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::random::Random;
use crate::storage::disk::{Fault, HookedDisk, Operation, PowerCut, Side, SimulatedDisk};
use crate::sync::{AtomicUsize, Ordering};

const DRAWN: u128 = 77;

fn notes(broker: &Broker) -> MemberNotes<'_> {
    MemberNotes::of(broker.run().logs())
}

fn open(disk: &SimulatedDisk, seed: u64, durability: Durability) -> Result<Broker> {
    open_at(disk, seed, durability, &clock())
}

fn begin(broker: &Broker) -> Result<Member> {
    notes(broker).begin(|| DRAWN, |before| before + 1)
}

fn promise(epoch: u32, node: u64) -> NotedPromise {
    NotedPromise { epoch, candidate: NotedRun { node, directory: 5, session: 1 } }
}

/// A topic: the notes of others are removed at the next opening.
fn topic(broker: &Broker) -> TopicId {
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    broker.run().topic("t").unwrap().id
}

fn adoptions(topic: TopicId, epoch: u32, logs: u32) -> impl Iterator<Item = ReplicaNote> {
    let log = move |partition| NotedLog::Partition { topic, partition };
    (0..logs).map(move |number| ReplicaNote::Adopted { log: log(number), epoch })
}

#[test]
fn a_directory_keeps_its_number_and_counts_its_runs() {
    let disk = SimulatedDisk::new();
    for run in 1..5 {
        let broker = open(&disk, run, Durability::Os).unwrap();
        let member = notes(&broker).begin(|| DRAWN + u128::from(run), |before| before + 1).unwrap();
        assert_eq!((member.directory, member.session), (DRAWN + 1, run));
        assert_eq!((member.promise, member.standing, member.founder), (None, None, None));
        if run % 2 == 0 {
            broker.close().unwrap();
        }
    }
}

/// A member that forgets a promise makes another one, and two leaders of one epoch each have a
/// majority.
#[test]
fn a_noted_promise_survives_a_power_cut_at_every_store_point_and_level() {
    let run = |disk: &SimulatedDisk, durability, topic, done: &mut Vec<ReplicaNote>| {
        let broker = open(disk, 2, durability)?;
        begin(&broker)?;
        let calls = [
            vec![ReplicaNote::Promise(promise(4, 1))],
            adoptions(topic, 4, 3).collect(),
            vec![ReplicaNote::Founder { group: 9 }, ReplicaNote::Whole { boot: None }],
            vec![
                ReplicaNote::Promise(promise(6, 2)),
                ReplicaNote::Seen { directory: 8, session: 3 },
            ],
        ];
        for call in calls {
            notes(&broker).note(call.clone())?;
            done.extend(call);
        }
        Ok::<(), Error>(())
    };
    let mut random = Random::new(5);
    let mut cuts = 0;
    for durability in [Durability::Os, Durability::Sync] {
        let fresh = SimulatedDisk::new();
        let topic = topic(&open(&fresh, 1, durability).unwrap());
        let whole = fresh.kill9();
        run(&whole, durability, topic, &mut Vec::new()).unwrap();
        for point in 0..whole.store_points() {
            let stopped = fresh.kill9();
            stopped.crash_at(point);
            let mut done = Vec::new();
            let _ = run(&stopped, durability, topic, &mut done);
            let any = PowerCut::any(&mut || random.next());
            for how in [PowerCut::WORST, any] {
                let image = stopped.power_cut(&mut || random.next(), how);
                let broker = open(&image, 3, durability).unwrap();
                assert_noted(&broker, &done, &format!("store point {point}, {how:?}"));
                cuts += 1;
            }
        }
    }
    eprintln!("{cuts} power cuts");
    assert!(cuts > 100, "{cuts}");
}

fn assert_noted(broker: &Broker, done: &[ReplicaNote], context: &str) {
    let found = begin(broker).unwrap();
    let promised = found.promise.map_or(0, |promise| promise.epoch);
    for note in done {
        match note {
            ReplicaNote::Promise(promise) => assert!(promised >= promise.epoch, "{context}"),
            ReplicaNote::Adopted { log, epoch } => {
                assert_eq!(notes(broker).adopted(*log), *epoch, "{context}");
            }
            ReplicaNote::Founder { group } => assert_eq!(found.founder, Some(*group), "{context}"),
            ReplicaNote::Seen { directory, session } => {
                assert_eq!(notes(broker).seen(*directory), *session, "{context}");
            }
            _ => {}
        }
    }
    if !done.is_empty() {
        assert_eq!((found.directory, found.session), (DRAWN, 2), "{context}");
    }
}

#[test]
fn a_promise_is_made_once() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, Durability::Sync).unwrap();
    begin(&broker).unwrap();
    let note = |promise| notes(&broker).note(vec![ReplicaNote::Promise(promise)]);
    note(promise(4, 1)).unwrap();
    note(promise(4, 1)).unwrap();
    for refused in [promise(4, 2), promise(3, 1)] {
        let refused = note(refused).unwrap_err();
        assert!(matches!(refused, Error::Config(_)), "{refused:?}");
    }
    let both = vec![ReplicaNote::Promise(promise(6, 1)), ReplicaNote::Promise(promise(5, 1))];
    notes(&broker).note(both).unwrap_err();
    assert_eq!(begin(&broker).unwrap().promise, Some(promise(4, 1)));
}

/// The adoption of an epoch by ten thousand logs takes one sync, and no clean-up forgets it.
#[test]
fn many_logs_adopt_an_epoch_with_one_sync() {
    const LOGS: u32 = 10_000;
    let disk = SimulatedDisk::new();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let hooked = HookedDisk::new(Arc::new(disk.clone()), move |operation, side| {
        if (operation, side) == (Operation::Sync, Side::Before) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let builder = Broker::builder().disk(Arc::new(hooked), DIR.as_ref());
    let broker = builder.durability(Durability::Os).background(false).seed(1).open().unwrap();
    begin(&broker).unwrap();
    let topic = topic(&broker);
    for epoch in 1..=5 {
        let before = syncs.load(Ordering::Relaxed);
        notes(&broker).note(adoptions(topic, epoch, LOGS).collect()).unwrap();
        let taken = syncs.load(Ordering::Relaxed) - before;
        // One for the notes; the others begin and end the segments that half a megabyte fills.
        assert!(taken <= 12, "{taken}");
        for _ in 0..20 {
            broker.tick().unwrap();
        }
    }
    // Until the clean-up has come to where they were noted: they are copied, or lost.
    let local = broker.run().logs().local().partition();
    let (noted_at, mut end) = (local.log_end(), 0);
    while local.log_start() < noted_at {
        end += 1;
        assert!(end < 100, "nothing is cleaned up");
        let log = |partition| NotedLog::Partition { topic, partition };
        let synced = (0..LOGS).map(|number| ReplicaNote::Synced { log: log(number), end });
        notes(&broker).note(synced.collect()).unwrap();
        for _ in 0..20 {
            broker.tick().unwrap();
        }
    }
    drop(broker);
    let broker = open(&disk.power_cut(&mut || 0, PowerCut::WORST), 2, Durability::Os).unwrap();
    let adopted = |partition| notes(&broker).adopted(NotedLog::Partition { topic, partition });
    assert!((0..LOGS).all(|number| adopted(number) == 5));
    let files = disk.paths().into_iter().filter(|path| path.starts_with(local_dir())).count();
    assert!(files < 12, "{files}");
}

fn local_dir() -> PathBuf {
    Path::new(DIR).join("__local/0")
}

/// A truncation lowers the end that was noted, before it begins.
#[test]
fn a_log_that_ends_below_its_noted_end_lacks_something() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, Durability::Sync).unwrap();
    begin(&broker).unwrap();
    let synced = |end| ReplicaNote::Synced { log: NotedLog::Meta, end };
    assert!(!notes(&broker).lacks(NotedLog::Meta, 0));
    notes(&broker).note(vec![synced(7)]).unwrap();
    assert!(notes(&broker).lacks(NotedLog::Meta, 6) && !notes(&broker).lacks(NotedLog::Meta, 7));
    notes(&broker).note(vec![synced(5)]).unwrap();
    assert!(!notes(&broker).lacks(NotedLog::Meta, 6));
}

/// The file of `__local` with the last promise, and where the promise begins in it.
fn last_promise(disk: &SimulatedDisk) -> (PathBuf, Vec<u64>) {
    let files = disk.paths().into_iter().filter(|path| path.starts_with(local_dir()));
    let with_promise = files.filter_map(|path| {
        let bytes = disk.read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0)? as u64;
        Some((path, end))
    });
    let (path, end) = with_promise.max().unwrap();
    (path, (end.saturating_sub(60)..=end).collect())
}

/// H8: damage at the end of the notes looks like what a crash leaves, so it is cut off. The member
/// is not one that never promised: it is noted, for good, that notes may be missing. That must not
/// be lost again, wherever the opening that found it is interrupted.
#[test]
fn a_member_whose_notes_have_lost_their_end_knows_it_until_it_is_whole() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, Durability::Sync).unwrap();
    begin(&broker).unwrap();
    notes(&broker).note(vec![ReplicaNote::Whole { boot: Some("b".into()) }]).unwrap();
    notes(&broker).note(vec![ReplicaNote::Promise(promise(4, 1))]).unwrap();
    drop(broker);
    let (path, positions) = last_promise(&disk);
    let is_known = |broker: &Broker, context: &str| {
        let found = begin(broker).unwrap();
        let is_incomplete = found.standing == Some(Standing::Incomplete);
        assert!(is_incomplete || found.promise == Some(promise(4, 1)), "{context}: {found:?}");
        is_incomplete
    };
    let (mut lost, mut openings) = (0, 0);
    for position in positions {
        let damaged = disk.kill9();
        damaged.corrupt(&path, position, 0x55).unwrap();
        let whole = damaged.kill9();
        let Ok(broker) = open(&whole, 2, Durability::Sync) else { continue };
        lost += usize::from(is_known(&broker, "uninterrupted"));
        drop(broker);
        for point in 0..next_points(&damaged) {
            for how in [None, Some(PowerCut::WORST)] {
                let stopped = damaged.kill9();
                stopped.crash_at(point);
                let _ = open(&stopped, 3, Durability::Sync);
                let image = match how {
                    None => stopped.kill9(),
                    Some(how) => stopped.power_cut(&mut || 0, how),
                };
                let context = format!("byte {position}, store point {point}, {how:?}");
                for seed in [4, 5] {
                    is_known(&open(&image, seed, Durability::Sync).unwrap(), &context);
                }
                openings += 1;
            }
        }
    }
    eprintln!("{lost} bytes whose damage loses the promise, {openings} interrupted openings");
    assert!(lost > 20, "{lost}");
}

/// How many store points an opening has.
fn next_points(disk: &SimulatedDisk) -> u64 {
    let disk = disk.kill9();
    drop(open(&disk, 10, Durability::Sync).unwrap());
    disk.store_points()
}

#[test]
fn a_member_that_is_whole_again_says_so() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, Durability::Sync).unwrap();
    begin(&broker).unwrap();
    notes(&broker).note(vec![ReplicaNote::Incomplete]).unwrap();
    notes(&broker).note(vec![ReplicaNote::Whole { boot: Some("b".into()) }]).unwrap();
    drop(broker);
    let broker = open(&disk, 2, Durability::Sync).unwrap();
    let standing = begin(&broker).unwrap().standing;
    assert_eq!(standing, Some(Standing::Whole { boot: Some("b".into()) }));
}

/// A sync that fails answers nobody: the note may be missing after the next power cut.
#[test]
fn a_note_whose_sync_fails_is_an_error() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1, Durability::Os).unwrap();
    begin(&broker).unwrap();
    disk.inject(Fault::once(Operation::Sync, std::io::ErrorKind::Other).on("__local"));
    let failed = notes(&broker).note(vec![ReplicaNote::Promise(promise(4, 1))]).unwrap_err();
    assert!(matches!(failed, Error::SyncFailed { .. }), "{failed:?}");
}
