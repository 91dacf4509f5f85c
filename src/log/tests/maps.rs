//! Maps of sealed segments: when they are given up, and that they are made again.
//!
//! Not covered: that the kernel refuses maps at its own limit, which is one for the whole process.

use std::io::ErrorKind;
use std::sync::Weak;

use super::*;
use crate::log::segment::Window;
use crate::storage::disk::{Fault, Operation};
use crate::storage::region::Region;

/// A log of eight segments with records of 400 bytes, and its disk.
fn filled(budget: MapBudget) -> (SimulatedDisk, Log) {
    let (disk, mut rig) = Rig::fresh(1);
    rig.env().maps = budget;
    let mut log = rig.create();
    fill_segments(&mut log, 8, 400);
    (disk, log)
}

/// Reads all sealed segments and keeps none; returns their maps.
fn read_all(log: &Log) -> Vec<Weak<Region>> {
    let sealed = log.segments().all().into_iter().filter(|segment| segment.sealed().is_some());
    sealed.map(|segment| Arc::downgrade(&segment.window(0).unwrap().region)).collect()
}

fn alive(maps: &[Weak<Region>]) -> usize {
    maps.iter().filter(|map| map.strong_count() > 0).count()
}

/// Symptom: a reader that keeps nothing failed with "out of memory" at the process's limit of maps,
/// and kept failing, although the maps of the segments that it had read were its own and idle.
/// Cause: only the broker's own limit gave maps up. Rule: a map that is refused makes all those go
/// that nobody holds, and is asked for again.
// RED: src/log/maps.rs
//   - if self.give_up(Which::All) > 0 { map() } else { Err(refused) }
//   + Err(refused)
#[test]
fn row_c08_a_refused_map_is_made_once_idle_ones_are_given_up() {
    let (disk, log) = filled(MapBudget::new(100));
    let maps = read_all(&log);
    assert_eq!(alive(&maps), 7);
    let held: Window = log.segments().all()[2].window(0).unwrap();
    log.segments().all()[6].try_drop_map();
    disk.inject(Fault::once(Operation::Map, ErrorKind::OutOfMemory));
    log.segments().all()[6].window(0).expect("a map, once others are given up");
    assert_eq!(alive(&maps), 1, "all but the one that is held");
    drop(held);
    log.env().maps.give_up_unused();
    log.env().maps.give_up_unused();
    disk.inject(Fault::once(Operation::Map, ErrorKind::OutOfMemory));
    let refused = log.segments().all()[2].window(0).map(drop);
    let is_refused = matches!(&refused, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::OutOfMemory);
    assert!(is_refused, "nothing is left to be given up: {refused:?}");
    assert_eq!(alive(&read_all(&log)), 7, "the refusal has passed");
}

#[test]
fn maps_through_which_nobody_reads_are_given_up() {
    let (_disk, log) = filled(MapBudget::new(100));
    let maps = read_all(&log);
    let bytes = log.env().maps.bytes();
    assert!(bytes > 7 * 400, "{bytes}");
    log.env().maps.give_up_unused();
    assert_eq!(alive(&maps), 7, "used since the last time");
    let held = log.segments().all()[0].window(0).unwrap();
    log.segments().all()[3].window(0).unwrap();
    log.env().maps.give_up_unused();
    assert_eq!(alive(&maps), 2, "the one that is held, and the one that was used");
    log.env().maps.give_up_unused();
    assert_eq!(alive(&maps), 1);
    drop(held);
    log.env().maps.give_up_unused();
    assert_eq!((alive(&maps), log.env().maps.bytes()), (0, 0));
}

#[test]
fn there_are_no_more_bytes_of_maps_than_the_limit() {
    let (_disk, log) = filled(MapBudget::new(100));
    read_all(&log);
    let of_one = log.env().maps.bytes() / 7;
    let (_disk, log) = filled(MapBudget::of(100, 3 * of_one));
    let maps = read_all(&log);
    assert!((2..=3).contains(&alive(&maps)), "{}", alive(&maps));
    assert!(log.env().maps.bytes() <= 3 * of_one);
}
