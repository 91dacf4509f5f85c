//! Verification: no finding where nothing is wrong, whatever a log went through; a finding for
//! each lie that bears a right checksum, which no flipped byte can tell.

use super::*;
use crate::format::{BatchView, Footer, Placement, SegmentHeader, SparseIndex, TimeRange};
use crate::log::verify::{Findings, verify_segments};
use crate::storage::disk::{Access, Metadata, Pages};

fn verify(log: &Log) -> Findings {
    let mut findings = Findings::default();
    let lacks_footer = |number| log.backlog().lacks_footer(number);
    let (segments, end) = (log.segments(), log.log_end());
    verify_segments(segments, log.factory().identity(), end, lacks_footer, &mut findings).unwrap();
    findings
}

fn kinds(log: &Log) -> Vec<CorruptionKind> {
    verify(log).damage.into_iter().map(|damage| damage.kind).collect()
}

fn write_footers(log: &mut Log) {
    sync(log).unwrap();
    while let Some(mut task) = log.backlog().begin_footer(None) {
        task.run().unwrap();
        log.backlog_mut().finish_footer(&task);
    }
}

/// Two sealed segments of about ten batches with footers, and an active one.
fn sound(rig: &Rig) -> Log {
    let mut log = rig.create();
    while segment_count(&log) < 3 {
        append(&mut log, 2, 700);
    }
    append(&mut log, 3, 10);
    write_footers(&mut log);
    log
}

#[test]
fn a_sound_log_is_sound_on_every_disk() {
    every_rig(|name, rig| {
        let log = sound(&rig);
        let findings = verify(&log);
        assert_eq!(findings.damage, [], "{name}");
        assert_eq!(findings.records, log.log_end(), "{name}");
        drop(log);
        let (log, _) = rig.open(&AFTER_KILL).unwrap();
        assert_eq!(verify(&log).damage, [], "{name}, reopened");
    });
}

/// Cuts, leftovers, truncating successors and footers that say too much are no damage.
#[test]
fn what_recovery_makes_of_any_crash_is_sound() {
    let mut recovered = 0;
    for seed in 0..150 * effort() {
        let mut random = Random::new(seed);
        let (disk, rig) = Rig::fresh(seed);
        let mut log = rig.create();
        let mut disk = disk;
        for run in 0..4 {
            for _ in 0..random.below(30) {
                let (count, size) = (1 + random.below(4), random.below(1_200) as usize);
                append(&mut log, count, size);
                match random.below(8) {
                    0 => sync(&mut log).unwrap(),
                    1 => write_footers(&mut log),
                    _ => {}
                }
            }
            assert_eq!(verify(&log).damage, [], "seed {seed}, run {run}");
            drop(log);
            let any = PowerCut::any(&mut || random.next());
            let all = PowerCut { metadata: Metadata::All, pages: Pages::All, tear: false };
            let how = if random.below(4) == 0 { all } else { any };
            let is_kill = random.below(2) == 0;
            disk = if is_kill { disk.kill9() } else { disk.power_cut(&mut || random.next(), how) };
            let known = if is_kill { AFTER_KILL } else { AFTER_CUT };
            let (reopened, report) = Rig::simulated(&disk, seed ^ run).open(&known).unwrap();
            assert_eq!(report.corrupt, [], "seed {seed}, run {run}");
            log = reopened;
            let findings = verify(&log);
            assert_eq!(findings.damage, [], "seed {seed}, run {run}, recovered");
            assert_eq!(findings.records, log.log_end(), "seed {seed}, run {run}");
            recovered += usize::from(log.log_end() > 0);
        }
    }
    assert!(recovered > 300, "{recovered}");
}

/// Appends another footer, which is the one that counts.
fn forge_footer(log: &Log, change: impl FnOnce(&mut Footer)) {
    let segment = log.segments().first().unwrap();
    let mut footer = segment.read_footer().unwrap().unwrap();
    change(&mut footer);
    let file = segment.open_file(Access::ReadWrite).unwrap();
    file.write_at(&footer.encode(segment.key.salt()).unwrap(), file.len().unwrap()).unwrap();
}

#[test]
fn a_footer_that_lies_under_a_right_checksum_is_found() {
    type Change = fn(&mut Footer);
    let lies: [(&str, Change); 7] = [
        ("footer data end", |footer| footer.data_end -= 4),
        ("footer offsets", |footer| footer.next_offset += 1),
        ("footer offsets", |footer| {
            // Nothing but the summary: its index must lie within it.
            footer.base_offset += 1;
            footer.index = SparseIndex::new(footer.base_offset);
        }),
        ("footer timestamps", |footer| {
            footer.times = footer.times.map(|times| TimeRange { max: times.max + 1, ..times });
        }),
        ("footer timestamps", |footer| {
            footer.times = footer.times.map(|times| TimeRange { first: times.first - 1, ..times });
        }),
        // An entry between two batches, one at a batch under another's offset.
        ("footer index", |footer| forge_row(footer, 0, 4)),
        ("footer index", |footer| forge_row(footer, 1, 0)),
    ];
    for (what, lie) in lies {
        let log = sound(&Rig::fresh(1).1);
        forge_footer(&log, lie);
        assert_eq!(kinds(&log), [CorruptionKind::Malformed(what)], "{what}");
    }
    // The forging itself changes nothing.
    let log = sound(&Rig::fresh(1).1);
    forge_footer(&log, |_| {});
    assert_eq!(kinds(&log), []);
}

/// Replaces the index by one row, this much beside the right position.
fn forge_row(footer: &mut Footer, offsets: u64, bytes: u32) {
    let row = footer.index.rows()[0];
    let mut index = SparseIndex::new(footer.base_offset);
    let offset = footer.base_offset + u64::from(row.offset_delta) + offsets;
    index.note_batch(offset, row.position + bytes, 8, footer.times.unwrap().max);
    footer.index = index;
}

/// Writes a batch of one record over the one at an index of the active segment, with the offset
/// that `change` makes of the right one.
fn forge_batch(log: &Log, index: usize, change: impl FnOnce(u64) -> u64) {
    let segment = log.segments().last().unwrap();
    let file = segment.open_file(Access::ReadWrite).unwrap();
    let mut bytes = vec![0; segment.end()];
    file.read_at(&mut bytes, 0).unwrap();
    let mut position = SegmentHeader::SIZE;
    // The opening batch is the first.
    for _ in 0..=index {
        let view = BatchView::check(&bytes[position..], &segment.key).unwrap().unwrap();
        position += view.header().size as usize;
    }
    let view = BatchView::check(&bytes[position..], &segment.key).unwrap().unwrap();
    let record = view.records().next().unwrap();
    let mut encoder = BatchEncoder::new();
    let headers = std::iter::empty::<(&str, &[u8])>();
    encoder.push(record.timestamp, None, record.value, headers).unwrap();
    let placement = Placement {
        base_offset: change(record.offset),
        leader_epoch: 0,
        durable_end: 0,
        key: &segment.key,
        producer: None,
    };
    let mut finished = encoder.finish();
    let forged = finished.seal(&placement);
    assert_eq!(forged.len(), view.header().size as usize);
    file.write_at(forged, position as u64).unwrap();
}

#[test]
fn offsets_that_do_not_follow_one_another_are_found() {
    for (index, by, found) in [(2, 1, 3), (2, -1, 1), (0, 7, 7)] {
        let (_, rig) = Rig::fresh(1);
        let mut log = rig.create();
        for _ in 0..5 {
            append(&mut log, 1, 100);
        }
        sync(&mut log).unwrap();
        forge_batch(&log, index, |offset| offset.checked_add_signed(by).unwrap());
        let expected = index as u64;
        let damage = verify(&log).damage;
        let first = CorruptionKind::OffsetOrder { expected, found };
        assert_eq!(damage.first().map(|damage| &damage.kind), Some(&first), "{damage:?}");
        assert!(damage[0].position > 128, "{damage:?}");
        // Where it belongs, it is sound.
        forge_batch(&log, index, |offset| offset.checked_add_signed(-by).unwrap());
        assert_eq!(kinds(&log), []);
    }
}

#[test]
fn files_of_another_partition_or_rank_are_found() {
    let (disk, rig) = Rig::fresh(1);
    let log = sound(&rig);
    let segments = log.segments().all();
    let file = disk.open(&segments[0].path, Access::ReadWrite).unwrap();
    let mut bytes = [0; SegmentHeader::SIZE];
    file.read_at(&mut bytes, 0).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    for (what, foreign) in [
        ("topic", SegmentHeader { topic_id: TopicId([8; 16]), ..header }),
        ("partition", SegmentHeader { partition: 4, ..header }),
        ("number", SegmentHeader { number: 9, ..header }),
        ("salt", SegmentHeader { salt: !header.salt, ..header }),
    ] {
        file.write_at(&foreign.encode(), 0).unwrap();
        assert_eq!(kinds(&log), [CorruptionKind::Foreign(what)]);
    }
    file.write_at(&header.encode(), 0).unwrap();
    assert_eq!(kinds(&log), []);
    disk.remove_file(&segments[1].path).unwrap();
    assert_eq!(kinds(&log), [CorruptionKind::Missing]);
}

#[test]
fn damage_names_the_offsets_that_are_lost_and_hides_nothing_behind_it() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    for _ in 0..6 {
        append(&mut log, 2, 100);
    }
    sync(&mut log).unwrap();
    let segment = log.segments().last().unwrap();
    let file = disk.open(&segment.path, Access::ReadWrite).unwrap();
    let size = (segment.end() - 128) / 6;
    let mut bytes = vec![0; segment.end()];
    file.read_at(&mut bytes, 0).unwrap();
    for at in [128 + 2 * size, 128 + 5 * size] {
        bytes[at] ^= 0x10;
    }
    file.write_at(&bytes, 0).unwrap();
    let findings = verify(&log);
    let lost: Vec<_> = findings.damage.iter().filter_map(|damage| damage.offsets.clone()).collect();
    assert_eq!(lost.len(), 2, "{findings:?}");
    let missing: u64 = lost.iter().map(|lost| lost.end - lost.start).sum();
    assert_eq!(findings.records + missing, log.log_end(), "{findings:?}");
}
