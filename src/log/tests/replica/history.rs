//! Where leader epochs end, after whatever can happen to a log.

use super::*;

/// Epochs and where each of them begins, oldest first; and the end of the log.
#[derive(Debug, Clone, Default)]
struct Epochs(Vec<(u32, u64)>, u64);

impl Epochs {
    fn append(&mut self, log: &mut Log, epoch: u32, count: u64, size: usize) {
        if self.0.last().is_none_or(|last| last.0 < epoch) {
            self.0.push((epoch, log.log_end()));
        }
        append_in(log, epoch, count, size);
        self.1 = log.log_end();
    }

    fn end_of(&self, epoch: u32) -> Option<EpochEnd> {
        let after = self.0.partition_point(|(it, _)| *it <= epoch);
        let found = self.0.get(after.checked_sub(1)?)?;
        let end_offset = self.0.get(after).map_or(self.1, |(_, begins)| *begins);
        Some(EpochEnd { epoch: found.0, end_offset })
    }

    fn check(&self, log: &Log, case: &str) {
        for epoch in 0..20 {
            let found = with_history(log, |history| history.end_of(epoch)).unwrap();
            assert_eq!(found, self.end_of(epoch), "{case}: {epoch} of {self:?}");
        }
        let last = with_history(log, |history| history.end_of(u32::MAX)).unwrap();
        assert_eq!(last, self.end_of(u32::MAX), "{case}");
        for offset in 0..=self.1 + 1 {
            let found = with_history(log, |history| history.epoch_before(offset)).unwrap();
            let expected = self.0.iter().rfind(|(_, begins)| *begins < offset);
            assert_eq!(found, expected.map(|it| it.0), "{case}: {offset} of {self:?}");
        }
    }
}

#[test]
fn an_empty_log_has_no_epoch() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        Epochs::default().check(&log, name);
        set_epoch(&mut log, 7, None).unwrap();
        log.roll_for(0).unwrap();
        // A leader that appended nothing leaves nothing in the log.
        Epochs::default().check(&log, name);
    });
}

#[test]
fn an_epoch_never_falls() {
    let rig = Rig::memory();
    let mut log = rig.create();
    append_in(&mut log, 5, 1, 10);
    let refused = set_epoch(&mut log, 4, Some(5));
    assert_eq!(refused, Err(Refusal::Epoch { before: 5, found: 4 }));
    set_epoch(&mut log, 5, Some(5)).unwrap();
    sync(&mut log).unwrap();
    drop(log);
    // The segment's opening batch knows an earlier one.
    let (mut log, _) = rig.open(&AFTER_KILL).unwrap();
    let last = last_epoch(&log);
    assert_eq!(set_epoch(&mut log, 4, last), Err(Refusal::Epoch { before: 5, found: 4 }));
}

#[test]
fn the_ends_of_epochs_are_found_on_every_disk() {
    every_rig(|name, rig| {
        let mut random = Random::new(7);
        let (mut log, mut epochs) = (rig.create(), Epochs::default());
        for _ in 0..60 {
            let last = epochs.0.last().map_or(0, |last| last.0);
            let epoch = last + u32::from(random.below(6) == 0) * (1 + random.below(2) as u32);
            let (count, size) = (1 + random.below(4), [10, 300, 2_000][random.below(3) as usize]);
            epochs.append(&mut log, epoch, count, size);
        }
        assert!(segment_count(&log) > 5 && epochs.0.len() > 4, "{name}: {epochs:?}");
        epochs.check(&log, name);
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        epochs.check(&log, &format!("{name}, footers"));
        let point = log.checkpoint();
        drop(log);
        for known in [AFTER_KILL, AFTER_CUT, known(point, true)] {
            let (log, _) = rig.open(&known).unwrap();
            epochs.check(&log, &format!("{name}, reopened"));
        }
    });
}

/// Retention removes the first epochs with their segments; those that remain end where they did.
#[test]
fn retention_removes_the_epochs_whose_segments_it_removes() {
    let rig = Rig::memory();
    let (mut log, mut epochs) = (rig.create(), Epochs::default());
    for epoch in 0..8 {
        epochs.append(&mut log, epoch, 3, 1_000);
        log.roll_for(0).unwrap();
    }
    sync(&mut log).unwrap();
    for removed in 1..8 {
        log.retire(removed * 3, usize::MAX);
        epochs.0.remove(0);
        let found = with_history(&log, |history| history.end_of(removed as u32 - 1)).unwrap();
        assert_eq!(found, None);
        for epoch in removed as u32..10 {
            let found = with_history(&log, |history| history.end_of(epoch)).unwrap();
            assert_eq!(found, epochs.end_of(epoch));
        }
    }
}

/// A log of one key, each record in an epoch of its own or of a few.
fn compacted(of_epoch: u64, finish: bool) -> (Rig, Log, Epochs) {
    let rig = Rig::memory();
    let (mut log, mut epochs) = (rig.create(), Epochs::default());
    for number in 0..24 {
        let epoch = (number / of_epoch) as u32;
        if epochs.0.last().is_none_or(|last| last.0 < epoch) {
            epochs.0.push((epoch, number));
        }
        let last = last_epoch(&log);
        set_epoch(&mut log, epoch, last).unwrap();
        let mut encoder = BatchEncoder::new();
        let headers = std::iter::empty::<(&str, &[u8])>();
        encoder.push(1_000, Some(b"k"), Some(&value(0, number, 30)), headers).unwrap();
        log.append(&mut encoder.finish(), None, Way::AsUsual).unwrap();
        if number % 5 == 4 {
            log.roll_for(0).unwrap();
        }
    }
    epochs.1 = log.log_end();
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let shared = Shared::new(log);
    if finish {
        shared.compact(TERMS).unwrap();
    }
    (rig, shared.0.into_inner(), epochs)
}

/// Compaction removes all records of an epoch, and the history of the log stays as it was: a
/// follower that has them must not be made to truncate what every member has.
#[test]
fn compaction_keeps_where_each_epoch_ends() {
    for of_epoch in [1, 2, 3, 7] {
        let (rig, log, epochs) = compacted(of_epoch, true);
        let records = read_from(&log, 0, 9).unwrap();
        assert_eq!(records.len(), 1, "{of_epoch}: all are superseded but one");
        for epoch in 0..30 {
            let found = with_history(&log, |history| history.end_of(epoch)).unwrap();
            assert_eq!(found, epochs.end_of(epoch), "{of_epoch}: {epoch}");
        }
        // A second compaction, and another opening, change nothing.
        let shared = Shared::new(log);
        shared.compact(TERMS).unwrap();
        drop(shared);
        let (log, report) = rig.open(&AFTER_CUT).unwrap();
        assert!(report.corrupt.is_empty(), "{report:?}");
        for epoch in 0..30 {
            let found = with_history(&log, |history| history.end_of(epoch)).unwrap();
            assert_eq!(found, epochs.end_of(epoch), "{of_epoch}: {epoch} again");
        }
    }
}

/// The last offsets of a segment are those of an epoch in which the compacted records were, not of
/// the one that was in force when the segment was sealed.
#[test]
fn a_filler_at_the_end_of_a_segment_is_of_the_epoch_of_what_it_stands_for() {
    let rig = Rig::memory();
    let mut log = rig.create();
    let send = |log: &mut Log, key: &[u8]| {
        let mut encoder = BatchEncoder::new();
        let headers = std::iter::empty::<(&str, &[u8])>();
        encoder.push(1_000, Some(key), Some(b"v"), headers).unwrap();
        log.append(&mut encoder.finish(), None, Way::AsUsual).unwrap();
    };
    set_epoch(&mut log, 1, None).unwrap();
    send(&mut log, b"a");
    send(&mut log, b"k");
    set_epoch(&mut log, 9, Some(1)).unwrap();
    log.roll_for(0).unwrap();
    send(&mut log, b"k");
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let terms = super::super::compaction::TERMS;
    let shared = Shared::new(log);
    shared.compact(terms).unwrap();
    let log = shared.0.into_inner();
    assert_eq!(read_from(&log, 0, 9).unwrap().len(), 2);
    let end = |epoch| with_history(&log, |history| history.end_of(epoch)).unwrap().unwrap();
    assert_eq!(end(1), EpochEnd { epoch: 1, end_offset: 2 });
    assert_eq!(end(9), EpochEnd { epoch: 9, end_offset: 3 });
}

/// Damage inside an epoch hides nothing. Damage where one ends is an error, and no wrong answer.
#[test]
fn damage_never_moves_the_end_of_an_epoch() {
    let (disk, rig) = Rig::fresh(1);
    let (mut log, mut epochs) = (rig.create(), Epochs::default());
    for number in 0..30 {
        epochs.append(&mut log, number / 10, 1, 200);
    }
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    drop(log);
    let path = files(&disk)[0].clone();
    let end = disk.read(&path).unwrap().len();
    let mut known_in_spite = 0;
    for position in (150..8_000.min(end)).step_by(37) {
        let image = disk.kill9();
        image.corrupt(&path, position as u64, 0x10).unwrap();
        let (log, _) = Rig::simulated(&image, 2).open(&AFTER_CUT).unwrap();
        for epoch in 0..4 {
            match with_history(&log, |history| history.end_of(epoch)) {
                Ok(found) => {
                    assert_eq!(found, epochs.end_of(epoch), "{position}: {epoch}");
                    known_in_spite += 1;
                }
                Err(Error::Corrupt(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(known_in_spite > 200, "{known_in_spite}");
}
