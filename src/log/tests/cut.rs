//! Segments that are cut off on a full disk, where no new segment can say that they are.
//!
//! Method: an opening without space is stopped at every store point; every image that a power cut
//! leaves then is opened, on a disk with space and on one without, and has to be a prefix of what
//! was appended, with all that was acknowledged. Not covered: a cut on a disk with space (`crash`).

use std::io::ErrorKind;

use super::*;
use crate::storage::disk::{Metadata, Pages};

/// LIMIT: of each set of names that survives, so many combinations of pages: there are two or three
/// pages that were not synced.
const IMAGES: usize = 16;

/// A log with a segment of which a power cut has left the header alone, in front of three whole
/// ones and one that was never used. None of it was synced but for what the model says is durable.
fn torn_in_front_of_three(first_is_torn: bool) -> (SimulatedDisk, Model) {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let mut model = Model::default();
    model.append(&mut log, 0, 1, 500).unwrap();
    if !first_is_torn {
        model.sync(&mut log).unwrap();
        model.append(&mut log, 0, 1, 500).unwrap();
    }
    for _ in 0..if first_is_torn { 3 } else { 4 } {
        log.roll_for(0).unwrap();
        model.append(&mut log, 0, 2, 500).unwrap();
    }
    let prepared = log.factory_mut().begin_prepare().unwrap().run().unwrap();
    finish_prepare(&mut log, prepared);
    drop(log);
    let image = disk.power_cut(&mut || 0, ALL_PAGES);
    let files = files(&image);
    assert_eq!(files.len(), if first_is_torn { 5 } else { 6 });
    for path in &files[..files.len() - 4] {
        let durable = disk.power_cut(&mut || 0, NO_PAGES).read(path).unwrap();
        for (at, byte) in (0..).zip(image.read(path).unwrap()) {
            let lost = durable.get(at).copied().unwrap_or(0) ^ byte;
            if lost != 0 {
                image.corrupt(path, at as u64, lost).unwrap();
            }
        }
    }
    (image, model)
}

const ALL_PAGES: PowerCut = PowerCut { metadata: Metadata::All, pages: Pages::All, tear: false };
const NO_PAGES: PowerCut = PowerCut { pages: Pages::None, ..ALL_PAGES };

fn fill(disk: &SimulatedDisk) {
    for operation in [Operation::Create, Operation::Allocate] {
        disk.inject(Fault::always(operation, ErrorKind::StorageFull));
    }
}

/// Opens the log, and appends and syncs as long as that works: a few small batches, which reach
/// beyond the offsets that were cut off.
fn open_and_append(
    disk: &SimulatedDisk,
    known: &Known,
    model: &mut Model,
    run: u64,
    context: &str,
) {
    let opened = Rig::simulated(disk, run).open(known);
    if disk.is_off() {
        return;
    }
    let (mut log, report) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    model.check(&log, &report, context);
    for _ in 0..6 {
        if model.append(&mut log, run, 1, 40).and_then(|()| model.sync(&mut log)).is_err() {
            return;
        }
    }
}

/// Symptom: after a cut on a full disk, the death of the process and a power cut, records were lost
/// that had been acknowledged in between. Cause: without space no new segment says that what
/// follows the end is cut off, so the segments were removed. The process died before the last
/// removal was durable; the next run did not see the segment, continued in the one before it, and
/// synced that file alone; the power cut brought the other one back, which contradicted it. Rule:
/// an opening that continues in the last segment syncs the directory first.
///
/// In which order the segments go, and whether one is durably removed before the next, does not
/// matter: all outcomes are tried here.
// RED: src/log/open.rs
//   - let synced = Rule::TailNames.keep(|| self.parts.factory.sync_dir());
//   + let synced = Result::<()>::Ok(());
#[test]
fn row_c07_what_is_cut_off_on_a_full_disk_never_contradicts_what_follows() {
    for first_is_torn in [true, false] {
        let (image, model) = torn_in_front_of_three(first_is_torn);
        let (mut tried, mut removed) = (0, false);
        for point in 0.. {
            let full = image.kill9();
            fill(&full);
            full.crash_at(point);
            let mut full_model = model.clone();
            let context = format!("first: {first_is_torn}, full until point {point}");
            open_and_append(&full, &AFTER_CUT, &mut full_model, 1, &context);
            removed |= files(&full).len() < files(&image).len();
            let images = full.images(IMAGES);
            for number in 0..images.len() {
                for is_full in [false, true] {
                    let disk = images.get(number);
                    if is_full {
                        fill(&disk);
                    }
                    let mut model = full_model.clone();
                    let context = format!("{context}, image {number}, full again: {is_full}");
                    open_and_append(&disk, &AFTER_CUT, &mut model, 2, &context);
                    let again = disk.power_cut(&mut || 0, PowerCut::WORST);
                    open_and_append(
                        &again,
                        &AFTER_CUT,
                        &mut model,
                        3,
                        &format!("{context}, at last"),
                    );
                    tried += 1;
                }
            }
            // The process dies, the machine does not: what was removed is not there any more.
            let killed = full.kill9();
            let mut model = full_model.clone();
            let context = format!("{context}, killed");
            open_and_append(&killed, &AFTER_KILL, &mut model, 4, &context);
            let images = killed.images(IMAGES);
            for number in 0..images.len() {
                let context = format!("{context}, image {number}");
                open_and_append(&images.get(number), &AFTER_CUT, &mut model.clone(), 5, &context);
                tried += 1;
            }
            if !full.is_off() {
                break;
            }
        }
        eprintln!("first is torn: {first_is_torn}: {tried} openings");
        assert!(removed && tried > 20, "{tried}");
    }
}
