//! A segment that becomes a spare.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::format::TopicId;
use crate::log::budget::{Claim, SpaceBudget};
use crate::log::create::Writer;
use crate::log::segment::{Sealed, SegmentFile};
use crate::record::TopicPartition;
use crate::storage::disk::MemoryDisk;

const BYTES: u64 = 256 << 10;

/// Symptom: none was seen; a review found it. A segment of an internal log was made a spare while
/// the background still made space in it; once the spare was the next segment, zeros were written
/// over its records. Cause: only the removal of a segment waited for the growth. Rule: so does
/// whatever gives its file to another use.
// RED: src/log/reserve.rs
//   - segment.end_space();
#[test]
fn row_d22_a_segment_becomes_a_spare_when_its_growth_has_ended() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let (dir, path) = (Path::new("/t"), Path::new("/t/segment"));
    disk.create_dir(dir).unwrap();
    let file = disk.create(path).unwrap();
    file.allocate(BYTES).unwrap();
    let header = SegmentHeader {
        topic_id: TopicId([7; 16]),
        partition: 0,
        number: 1,
        salt: 1,
        generation: 0,
        rewrite: None,
        incompatible: 0,
        compatible: 0,
    };
    let env = Arc::new(LogEnv::for_reading(Arc::clone(&disk)));
    let origin = Arc::new(TopicPartition::from(("t", 0)));
    let claim = Claim::of_file(&SpaceBudget::unlimited(), BYTES);
    let space = Space::new(&file, Writer::Stores, &claim, BYTES, PAGE_BYTES);
    let sealed = Sealed { data_end: 4096, next_offset: 1, times: None };
    let named = SegmentFile::new(&origin, path, &header, 0);
    let segment = Segment::found(&env, named, sealed, claim);
    segment.set_space(&space);
    let mut reserve = Reserve::new(&disk, dir, BYTES);
    let (taken, done) = mpsc::channel();
    thread::scope(|scope| {
        let step = space.hold();
        scope.spawn(|| taken.send(reserve.take_back(&segment).unwrap()).unwrap());
        // Until it waits for the step, or is done without.
        let early = loop {
            match done.try_recv() {
                Err(mpsc::TryRecvError::Empty) if !space.is_over() => thread::yield_now(),
                received => break received,
            }
        };
        assert!(early.is_err() && disk.kind(path).unwrap().is_some(), "{early:?}");
        drop(step);
        assert_eq!(done.recv().unwrap(), TakenBack::Yes);
    });
    assert!(disk.kind(path).unwrap().is_none());
}
