//! What a follower is given.

use super::*;

#[test]
fn whole_batches_are_read_from_every_offset_within_the_limit() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        let mut random = Random::new(3);
        let mut ends = vec![0];
        for _ in 0..80 {
            append(&mut log, 1 + random.below(4), [10, 200, 3_000][random.below(3) as usize]);
            ends.push(log.log_end());
        }
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        append(&mut log, 2, 10);
        ends.push(log.log_end());
        for offset in 0..log.log_end() {
            for limit in [0, 700, 20_000, usize::MAX] {
                let portions = feed(&log, offset, limit).unwrap();
                let bytes: usize = portions.iter().map(|it| it.bytes().len()).sum();
                let first = portions[0].offsets.start;
                let mut next = first;
                assert!(first <= offset && ends.contains(&first), "{name}: {first} for {offset}");
                let mut batches = 0;
                for portion in &portions {
                    let received = Received::check(portion.bytes(), portion.under).unwrap();
                    assert_eq!(portion.offsets, received.base_offset..received.next_offset);
                    assert_eq!(received.base_offset, next, "{name}");
                    next = received.next_offset;
                    batches += 1;
                }
                assert!(next > offset && ends.contains(&next), "{name}: {next}");
                assert!(bytes <= limit || batches == 1, "{name}: {bytes} of {limit}");
                if limit == usize::MAX {
                    assert_eq!(next, log.log_end(), "{name}");
                }
            }
        }
        assert!(feed(&log, log.log_end(), 100).unwrap().is_empty(), "{name}");
    });
}

/// A batch that is larger than what is read at a time.
#[test]
fn a_large_batch_is_read_whole_although_it_exceeds_the_limit() {
    for copy_reads in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::real(&dir);
        rig.env().copy_reads = copy_reads;
        rig.options.segment_bytes = 4 << 20;
        let mut log = rig.create();
        append(&mut log, 1, 10);
        append(&mut log, 3, 300_000);
        append(&mut log, 1, 10);
        let portions = feed(&log, 1, 1_000).unwrap();
        assert_eq!((portions.len(), portions[0].offsets.clone()), (1, 1..4));
        assert!(Received::check(portions[0].bytes(), portions[0].under).is_ok());
        let mut follower = Rig::memory();
        follower.options.segment_bytes = 4 << 20;
        let mut follower = follower.create();
        catch_up(&log, &mut follower, 1_000);
        assert_eq!(portable(&log), portable(&follower));
    }
}

/// P10: what is damaged is never handed on; what stands before it is.
// RED: src/log/replica/feed.rs
//   - Step::Damaged(kind) => return Err(walk.damaged(self.next, kind)),
//   + Step::Damaged(_) => { if walk.pass_damage()? { continue; } return Ok(was_sealed); }
#[test]
fn row_h15_a_damaged_batch_is_never_handed_on() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    for _ in 0..6 {
        append(&mut log, 1, 100);
    }
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    drop(log);
    let path = files(&disk)[0].clone();
    let mut refused = 0;
    for position in 128..1_100 {
        let image = disk.kill9();
        image.corrupt(&path, position, 0x04).unwrap();
        let (log, _) = Rig::simulated(&image, 2).open(&AFTER_CUT).unwrap();
        for offset in 0..6 {
            match feed(&log, offset, usize::MAX) {
                Ok(portions) => {
                    for portion in portions {
                        let received = Received::check(portion.bytes(), portion.under).unwrap();
                        assert_eq!(received.base_offset, portion.offsets.start);
                    }
                }
                Err(Error::Corrupt(_)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn what_is_appended_later_is_read_too_and_rolls_are_passed() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        let mut next = 0;
        for round in 0..120 {
            append(&mut log, 1 + round % 3, 300);
            for portion in feed(&log, next, usize::MAX).unwrap() {
                assert_eq!(portion.offsets.start, next, "{name}");
                next = portion.offsets.end;
            }
            assert_eq!(next, log.log_end(), "{name}");
        }
        assert!(segment_count(&log) > 3);
    });
}
