//! What a power cut can do to each kind of thing that a log writes, one by one.

use super::super::compaction::{Shared, TERMS};
use super::check::{Campaign, Case};
use super::world::{Op, World};
use super::*;
use crate::format::SegmentHeader;

/// All images of all store points of `ops`, after `before`.
fn every_image(name: &str, before: &[Op], ops: &[Op]) {
    let mut world = World::new(1, name);
    assert!(world.run(before));
    world.disk.record();
    let start = world.disk.store_points();
    assert!(world.run(ops));
    let mut campaign = Campaign::default();
    for (point, disk) in (start..).zip(world.disk.recorded()) {
        let images = disk.images(1 << 10);
        for image in 0..images.len() {
            let case = Case { workload: name.to_owned(), point, image };
            let oracle = world.oracle_at(point);
            campaign.image(&images.get(image), oracle, 4, &mut case.random(), &case);
        }
    }
    assert!(campaign.images > 30 && campaign.nested > 5, "{campaign:?}");
}

/// Pages of a batch persist and others do not, its header alone among them: it counts whole or not
/// at all, and the checksum says which.
// RED: src/format/batch/decode.rs
//   - let sound = plain_checksum(bytes, fixed, records, key) == header.checksum
//   + let sound = plain_checksum(bytes, fixed, records, key) | 1 > 0
#[test]
fn row_b04_a_header_without_its_payload_is_no_batch() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 50);
    sync(&mut log).unwrap();
    append(&mut log, 2, 5_000);
    drop(log);
    let mut whole = 0;
    let images = disk.images(1 << 12);
    for image in 0..images.len() {
        let (log, report) = Rig::simulated(&images.get(image), 2).open(&AFTER_CUT).unwrap();
        assert_eq!(report.corrupt, [], "{image}");
        let found = read_from(&log, 0, 9).unwrap();
        assert_eq!(found[0], (0, value(0, 0, 50)), "{image}");
        if log.log_end() > 1 {
            assert_eq!(found[1..], plain(1..3, 5_000), "{image}");
            whole += 1;
        }
    }
    // Three pages, of which all must be there.
    assert_eq!((images.len(), whole), (8, 1));
}

/// A footer says of its segment what is in it, so it is written when that is synced, and not
/// before: a footer whose page persists while the data does not would vouch for nothing.
// RED: src/log/backlog.rs
//   - let is_due = |oldest: &&Unfinished| is_synced(oldest) || !Rule::FooterAfterSync.holds();
//   + let is_due = |oldest: &&Unfinished| is_synced(oldest) || Rule::FooterAfterSync.holds();
#[test]
fn row_b05_no_footer_is_ahead_of_its_data() {
    every_image(
        "footers",
        &[Op::Small, Op::Pages],
        &[Op::Roll, Op::Footers, Op::Sync, Op::Footers],
    );
}

/// Symptom: after kill -9, footers, and a power cut, compaction of the partition failed for good:
/// a segment without records had a footer, and zeros where its opening batch should be. Cause: a
/// segment that ends at the durable end counted as durable when it was found in the page cache,
/// although nothing proves an opening batch that no record follows. Rule: it is synced first.
// RED: src/log/open.rs
//   - next <= self.durable && (segment.base_offset < next || is_whole_on_disk)
//   + next <= self.durable && (segment.base_offset < next || is_whole_on_disk || next > 0)
#[test]
fn row_b05_a_segment_without_records_gets_no_footer_before_it_is_synced() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 20);
    sync(&mut log).unwrap();
    log.roll_for(0).unwrap();
    drop(log);
    let (mut log, _) = rig.open(&AFTER_KILL).unwrap();
    finish_segments(&mut log).unwrap();
    append(&mut log, 1, 20);
    let images = disk.images(1 << 10);
    for image in 0..images.len() {
        let image = images.get(image);
        let (mut log, report) = Rig::simulated(&image, 2).open(&AFTER_CUT).unwrap();
        assert_eq!(report.corrupt, []);
        append(&mut log, 1, 20);
        log.roll_for(0).unwrap();
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        Shared::new(log).compact(TERMS).unwrap();
    }
    // It gets one with the next sync.
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let lacks = |segment: &Arc<crate::log::segment::Segment>| {
        segment.sealed().is_some() && segment.read_footer().unwrap().is_none()
    };
    assert!(!log.segments().all().iter().any(lacks));
}

/// What a follower stores is lost and kept as what is appended.
#[cfg(feature = "replication")]
#[test]
fn what_a_follower_stores_survives_as_what_is_appended() {
    every_image("receive", &[Op::Small], &[Op::Receive, Op::Sync, Op::Receive, Op::Roll]);
    every_image("receive and roll", &[Op::Receive, Op::Fill], &[Op::Receive, Op::Sync]);
}

/// A truncation is done or not done, in every image of it, and stays done.
#[cfg(feature = "replication")]
#[test]
fn a_truncation_is_done_or_not_done_and_never_undone() {
    let grown = [Op::Small, Op::Roll, Op::Small, Op::Small, Op::Roll, Op::Sync, Op::Footers];
    let more = [Op::Pages, Op::Roll, Op::Small];
    every_image("cut in a segment", &[Op::Small; 6], &[Op::Cut, Op::Small, Op::Sync, Op::Cut]);
    every_image("cut segments", &[&grown[..], &more].concat(), &[Op::Cut, Op::Small, Op::Sync]);
    every_image(
        "cut twice",
        &[&grown[..], &more].concat(),
        &[Op::Cut, Op::Cut, Op::Pages, Op::Roll],
    );
    every_image(
        "cut and compact",
        &grown,
        &[Op::Pages, Op::Cut, Op::Roll, Op::Sync, Op::Footers, Op::Compact],
    );
}

/// A log that begins anew has nothing of what it had, or can begin anew again.
#[cfg(feature = "replication")]
#[test]
fn a_log_begins_anew_or_can_do_so_again() {
    let grown = [Op::Small, Op::Roll, Op::Small, Op::Small, Op::Roll, Op::Sync, Op::Footers];
    every_image("anew", &grown, &[Op::Small, Op::Anew, Op::Small, Op::Sync]);
    every_image("anew within", &grown, &[Op::Anew, Op::Receive, Op::Sync]);
    // Symptom: records were reported as lost that a log had given up to begin anew below them. Cause: a
    // compacted segment, whose removal was not durable, proved that they had been durable.
    let compacted = [&grown[..], &[Op::Compact]].concat();
    every_image("anew within what was compacted", &compacted, &[Op::Anew, Op::Receive, Op::Sync]);
}

/// The name of a new segment is durable before anything in it is acknowledged.
// RED: src/log/create.rs
//   - if let Err(error) = Rule::SegmentName.keep(|| env.disk.sync_dir(&self.dir)) {
//   + if let Err(error) = io::Result::Ok(()) {
#[test]
fn row_b07_the_name_of_a_segment_is_durable_before_what_is_in_it() {
    every_image("names", &[Op::Small, Op::Sync], &[Op::Roll, Op::Small, Op::Sync, Op::Fill]);
}

/// A rewritten segment has a durable name before the first file goes that it replaces.
// RED: src/log/compaction/output.rs
//   - if let Err(source) = Rule::CompactedName.keep(|| disk.sync_dir(dir)) {
//   + if let Err(source) = std::io::Result::Ok(()) {
#[test]
fn row_b08_what_replaces_has_a_durable_name_before_the_replaced_goes() {
    let two = [Op::Small, Op::Roll, Op::Small, Op::Roll, Op::Sync, Op::Footers];
    every_image("rewrite", &two, &[Op::Compact, Op::Small, Op::Sync]);
}

/// A file can come back shorter than it was. What is shorter than what must be readable in it is
/// never mapped: a load beyond the end of a file would be a signal.
// RED: src/log/segment.rs
//   - if length < u64::from(sealed.data_end) {
//   + if length == u64::MAX {
#[test]
fn row_b09_a_file_that_is_too_short_is_not_mapped() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 2, 3_000);
    append(&mut log, 1, 3_000);
    sync(&mut log).unwrap();
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    drop(log);
    let (log, _) = rig.open(&AFTER_CUT).unwrap();
    let path = files(&disk)[0].clone();
    disk.truncate(&path, 7_000).unwrap();
    match read_from(&log, 0, 9) {
        Err(Error::Corrupt(damage)) => {
            assert_eq!(damage.kind, CorruptionKind::Length("the file"));
            assert_eq!((damage.file, damage.position), (path, 7_000));
        }
        other => panic!("{other:?}"),
    }
    // The next opening sees it before anybody reads: what was durable there is missing.
    drop(log);
    let (log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!(report.corrupt.len(), 1, "{report:?}");
    let (records, damage) = read_around(&log);
    assert_eq!(records, plain(0..2, 3_000));
    assert_eq!(damage[0].offsets, Some(2..3));
}

/// A length that was not synced is found anywhere between the old and the new one.
// RED: src/log/create.rs
//   - Rule::HeaderSync.keep(|| file.sync())?;
#[test]
fn row_b09_an_unsynced_length_loses_nothing_that_was_acknowledged() {
    every_image("length", &[Op::Small], &[Op::Roll, Op::Pages, Op::Sync, Op::Space]);
}

/// Blocks of a removed file follow the end of the file that got them, and what is in them
/// fits there byte by byte: it was written by the same log, at the same positions, with the same
/// offsets. Only the salt tells them apart.
// RED: src/format/batch/seal.rs
//   - set_field::<{ PLAIN_COVERED_SIZE + 4 }, _, _>(&mut tail, salt.to_le_bytes());
// RED: src/format/key.rs
//   - Self { salt, one_pass: has_one_pass.then(|| Begun::with(&salt.to_le_bytes())) }
//   + Self { salt, one_pass: has_one_pass.then(|| Begun::with(&[])) }
#[test]
fn row_b10_batches_of_an_earlier_file_are_never_taken_for_the_present_ones() {
    // Short batches are checksummed by another rule.
    for (first, others) in [(3_000, 2_000), (300, 100)] {
        let stale = {
            let (disk, rig) = Rig::fresh(1);
            let mut log = rig.create();
            append(&mut log, 1, first);
            append(&mut log, 3, others);
            disk.read(&files(&disk)[0]).unwrap()
        };
        let (disk, rig) = Rig::fresh(2);
        let mut log = rig.create();
        append(&mut log, 1, first);
        let end = log.appender().active().unwrap().position();
        sync(&mut log).unwrap();
        drop(log);
        let path = files(&disk)[0].clone();
        let present = disk.read(&path).unwrap();
        assert_ne!(stale[..SegmentHeader::SIZE], present[..SegmentHeader::SIZE], "the salt");
        for (position, byte) in stale.iter().enumerate().skip(end) {
            disk.corrupt(&path, position as u64, byte ^ present[position]).unwrap();
        }
        let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
        assert_eq!((log.log_end(), report.corrupt.len()), (1, 0), "{report:?}");
        assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..1, first));
        append(&mut log, 2, 70);
        sync(&mut log).unwrap();
        drop(log);
        let (log, _) = rig.open(&AFTER_CUT).unwrap();
        let expected = [plain(0..1, first), plain(1..3, 70)].concat();
        assert_eq!(read_from(&log, 0, 9).unwrap(), expected);
    }
}
