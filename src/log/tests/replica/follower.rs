//! A follower stores what its leader has, byte for byte, and nothing else.

use super::*;
use crate::log::verify::{Findings, verify_segments};

/// Everything that a log knows but its files.
fn state_of(log: &Log) -> (u64, Option<EpochEnd>, Vec<Option<crate::format::ProducerState>>) {
    let last = with_history(log, |history| history.end_of(u32::MAX)).unwrap();
    let producers = (0..4).map(|id| log.producer(id).copied());
    let producers =
        producers.map(|it| it.map(|it| crate::format::ProducerState { last_timestamp: 0, ..it }));
    (log.log_end(), last, producers.collect())
}

fn any_leader(rig: &Rig, random: &mut Random) -> Log {
    let mut log = rig.create();
    let mut sequences = [0; 4];
    for _ in 0..70 {
        let last = last_epoch(&log).unwrap_or(0);
        let epoch = last + u32::from(random.below(9) == 0);
        set_epoch(&mut log, epoch, Some(last)).unwrap();
        let (count, size) = (1 + random.below(3), [10, 400, 2_500][random.below(3) as usize]);
        let base = log.log_end();
        let values: Vec<_> = (base..base + count).map(|offset| value(0, offset, size)).collect();
        let id = random.below(8) as usize;
        let request = sequences.get_mut(id).map(|next| {
            let sequence = Sequence::At(*next);
            *next += count;
            ProducerRequest { id: id as u64, epoch: 3, sequence }
        });
        append_values(&mut log, &values, request.as_ref()).unwrap();
    }
    log
}

#[test]
fn a_follower_has_the_same_bytes_the_same_epochs_and_the_same_producers() {
    every_rig(|name, rig| {
        for seed in 0..4 {
            let mut random = Random::new(seed);
            let (_, source) = Rig::fresh(seed + 100);
            let leader = any_leader(&source, &mut random);
            let mut rig_of_one = Rig::memory();
            rig_of_one.options = rig.options;
            rig_of_one.options.segment_bytes = [SEGMENT_BYTES, 5_000, 100_000][seed as usize % 3];
            let rig = if seed == 0 { &rig } else { &rig_of_one };
            let mut follower = rig.create();
            let limit = [1, 900, 10_000, usize::MAX][random.below(4) as usize];
            catch_up(&leader, &mut follower, limit);
            assert_eq!(portable(&leader), portable(&follower), "{name}, {seed}");
            assert_eq!(state_of(&leader), state_of(&follower), "{name}, {seed}");
            let all = read_from(&leader, 0, usize::MAX).unwrap();
            assert_eq!(all, read_from(&follower, 0, usize::MAX).unwrap(), "{name}, {seed}");
            sync(&mut follower).unwrap();
            finish_segments(&mut follower).unwrap();
            let before = state_of(&follower);
            drop(follower);
            let (mut follower, report) = rig.open(&AFTER_KILL).unwrap();
            assert!(report.corrupt.is_empty(), "{name}, {seed}: {report:?}");
            assert_eq!(state_of(&follower), before, "{name}, {seed}");
            assert_eq!(portable(&leader), portable(&follower), "{name}, {seed}");
            // It may lead now.
            append_in(&mut follower, 99, 1, 10);
            assert_eq!(last_epoch(&follower), Some(99));
        }
    });
}

/// A compacted leader gives gaps, and batches without records that end an epoch.
#[test]
fn a_follower_of_a_compacted_leader_gets_its_gaps_and_its_epochs() {
    let rig = Rig::memory();
    let mut leader = rig.create();
    for number in 0..40_u32 {
        let last = last_epoch(&leader);
        set_epoch(&mut leader, number / 3, last).unwrap();
        let mut encoder = BatchEncoder::new();
        let headers = std::iter::empty::<(&str, &[u8])>();
        let key = [b'a' + u8::from(number % 3 == 0)];
        encoder.push(1_000, Some(&key), Some(&value(0, number.into(), 700)), headers).unwrap();
        leader.append(&mut encoder.finish(), None, Way::AsUsual).unwrap();
    }
    leader.roll_for(0).unwrap();
    sync(&mut leader).unwrap();
    finish_segments(&mut leader).unwrap();
    let shared = Shared::new(leader);
    shared.compact(TERMS).unwrap();
    let leader = shared.0.into_inner();
    let kept = read_from(&leader, 0, 99).unwrap();
    assert_eq!(kept.len(), 2);
    let damage = |log: &Log| {
        let mut findings = Findings::default();
        let (identity, end) = (log.factory().identity(), log.log_end());
        let lacks = |number| log.backlog().lacks_footer(number);
        verify_segments(log.segments(), identity, end, lacks, &mut findings).unwrap();
        findings.damage
    };
    let source = Rig::memory();
    let mut follower = source.create();
    catch_up(&leader, &mut follower, 200);
    assert_eq!(read_from(&follower, 0, 99).unwrap(), kept);
    assert_eq!(portable(&leader), portable(&follower));
    for epoch in 0..20 {
        let end = |log: &Log| with_history(log, |history| history.end_of(epoch)).unwrap();
        assert_eq!(end(&leader), end(&follower), "{epoch}");
    }
    sync(&mut follower).unwrap();
    drop(follower);
    let (follower, report) = source.open(&AFTER_KILL).unwrap();
    assert!(report.corrupt.is_empty() && follower.log_end() == 40, "{report:?}");
    assert_eq!(damage(&follower), []);
    assert_eq!(portable(&leader), portable(&follower));
}

/// Where the leader's log is whole, a gap is refused.
#[test]
fn a_gap_is_refused_above_what_may_be_compacted() {
    let (leader_rig, rig) = (Rig::memory(), Rig::memory());
    let (mut leader, mut follower) = (leader_rig.create(), rig.create());
    for _ in 0..6 {
        append(&mut leader, 1, 50);
    }
    let portions = feed(&leader, 3, 1).unwrap();
    let (bytes, under) = (portions[0].bytes(), portions[0].under);
    for sparse_below in 0..3 {
        let refused = store(&mut follower, bytes, under, sparse_below);
        assert_eq!(refused, Err(Refusal::Offset { expected: 0, found: 3 }));
    }
    store(&mut follower, bytes, under, 3).unwrap();
    assert_eq!(read_from(&follower, 0, 9).unwrap(), plain(3..4, 50));
    // What the log has is refused.
    let again = store(&mut follower, bytes, under, 99);
    assert_eq!(again, Err(Refusal::Offset { expected: 4, found: 3 }));
}

/// Whatever the bytes are, they are refused and nothing changes, or they are the leader's.
#[test]
fn hostile_bytes_are_refused_and_change_nothing() {
    let (leader_rig, rig) = (Rig::memory(), Rig::memory());
    let (mut leader, mut follower) = (leader_rig.create(), rig.create());
    append_in(&mut leader, 2, 2, 30);
    append_in(&mut leader, 4, 1, 40);
    append_in(&mut follower, 1, 1, 10);
    let before = (state_of(&follower), portable(&follower));
    let portions = feed(&leader, 0, usize::MAX).unwrap();
    let (bytes, under) = (portions[0].bytes().to_vec(), portions[0].under);
    let refuse = |follower: &mut Log, bytes: &[u8], under: Under| {
        let refused = store(follower, bytes, under, u64::MAX);
        assert!(refused.is_err(), "{bytes:?}");
    };
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Received::check(&flipped, under).is_err(), "{bit}");
    }
    let first = BatchHeader::parse(&bytes).unwrap().unwrap().size as usize;
    for length in 0..bytes.len() {
        // A prefix of whole batches is one.
        let whole = Received::check(&bytes[..length], under).is_ok();
        assert!(!whole || length == first, "{length}");
    }
    refuse(&mut follower, &bytes, Under { salt: under.salt ^ 1, ..under });
    refuse(&mut follower, &bytes, Under { features: under.features | 1 << 40, ..under });
    refuse(&mut follower, &[0; 64], under);
    refuse(&mut follower, &[], under);
    refuse(&mut follower, &[bytes.clone(), vec![0; 4]].concat(), under);
    refuse(&mut follower, &[bytes.clone(), bytes.clone()].concat(), under);
    // Offsets that the log has.
    refuse(&mut follower, &bytes, under);
    let mut random = Random::new(5);
    for _ in 0..2_000 {
        let mut noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        if let Some(size) = noise.first_chunk_mut::<4>() {
            *size = u32::to_le_bytes(random.below(300) as u32);
        }
        refuse(&mut follower, &noise, under);
    }
    assert_eq!((state_of(&follower), portable(&follower)), before);
}

#[test]
fn an_opening_batch_and_an_earlier_epoch_are_refused() {
    let (leader_rig, rig) = (Rig::memory(), Rig::memory());
    let (mut leader, mut follower) = (leader_rig.create(), rig.create());
    append_in(&mut follower, 7, 1, 10);
    append(&mut leader, 1, 10);
    append_in(&mut leader, 6, 1, 10);
    let portions = feed(&leader, 1, usize::MAX).unwrap();
    let refused = store(&mut follower, portions[0].bytes(), portions[0].under, 0);
    assert_eq!(refused, Err(Refusal::Epoch { before: 7, found: 6 }));
    let (incarnation, durable_mark) = (1, 0);
    let opening = crate::format::Opening {
        base_offset: 1,
        leader_epoch: 9,
        incarnation,
        durable_mark,
        producers: Vec::new(),
    };
    let under = Under { salt: 5, features: 0 };
    let opening = opening.encode(&under.key().unwrap(), 0).unwrap();
    let refused = store(&mut follower, &opening, under, 0);
    assert!(matches!(refused, Err(Refusal::Damaged { position: 0, .. })), "{refused:?}");
    assert_eq!(follower.log_end(), 1);
}

/// The disk is full in the middle of what was received: whole batches before that are stored, the
/// log says so, and it continues there.
// RED: src/log/replica/append.rs
//   - append_one(log, &header, &mut buffer)?;
//   + let _ = append_one(log, &header, &mut buffer);
#[test]
fn row_h16_a_full_disk_leaves_whole_batches_and_the_rest_can_follow() {
    let (disk, rig) = Rig::fresh(1);
    let leader_rig = Rig::memory();
    let (mut leader, mut follower) = (leader_rig.create(), rig.create());
    while segment_count(&leader) < 5 {
        append(&mut leader, 1, 900);
    }
    disk.inject(Fault::always(Operation::Allocate, std::io::ErrorKind::StorageFull));
    let portions = feed(&leader, 0, usize::MAX).unwrap();
    let mut failed = None;
    for portion in &portions {
        let received = Received::check(portion.bytes(), portion.under).unwrap();
        let terms = Terms { last_epoch: last_epoch(&follower), sparse_below: 0 };
        if admit(&follower, &received, &terms).is_ok() {
            failed = failed.or(append_received(&mut follower, &received).err());
        }
    }
    assert!(matches!(failed, Some(Error::StorageFull { .. })), "{failed:?}");
    let stored = follower.log_end();
    assert!(stored < leader.log_end());
    assert_eq!(read_from(&follower, 0, 99).unwrap(), plain(0..stored, 900));
    disk.heal();
    catch_up(&leader, &mut follower, usize::MAX);
    assert_eq!(portable(&leader), portable(&follower));
}
