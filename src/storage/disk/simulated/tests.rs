//! The model itself: what each kind of crash, and each fault, may and may not do.

use super::page::PAGE;
use super::*;
use crate::storage::region_writer::RegionWriter;

const LOG: &str = "/d/log";

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut random = Random::new(seed);
    move || random.next()
}

/// A directory and a file of `bytes`, all durable.
fn disk_with(bytes: &[u8]) -> (SimulatedDisk, Arc<dyn DiskFile>) {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.create(Path::new(LOG)).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, file)
}

fn cut(disk: &SimulatedDisk, seed: u64, metadata: Metadata, pages: Pages) -> SimulatedDisk {
    disk.power_cut(&mut random(seed), PowerCut { metadata, pages, tear: false })
}

fn bytes(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
    disk.read(Path::new(path)).ok()
}

#[test]
fn what_was_synced_survives_every_cut() {
    let (disk, file) = disk_with(&[1; 10_000]);
    file.write_at(&[2; 100], 10_000).unwrap();
    for seed in 0..200 {
        let mut random = random(seed);
        let how = PowerCut::any(&mut random);
        let after = disk.power_cut(&mut random, how);
        let found = bytes(&after, LOG).unwrap();
        assert!(found.len() >= 10_000 && found.len() <= 10_100, "{how:?}");
        assert!(found[..10_000].iter().all(|byte| *byte == 1), "{how:?}");
        assert!(found[10_000..].iter().all(|byte| [0, 2].contains(byte)), "{how:?}");
    }
}

#[test]
fn a_page_survives_in_any_of_its_versions_and_pages_independently() {
    let (disk, file) = disk_with(&[0; 2 * PAGE]);
    for value in 1..=2 {
        file.write_at(&[value], 0).unwrap();
        file.write_at(&[value], PAGE as u64).unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let found = bytes(&cut(&disk, seed, Metadata::All, Pages::Random), LOG).unwrap();
        seen.insert((found[0], found[PAGE]));
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn torn_pages_mix_versions_by_sector() {
    let (disk, file) = disk_with(&[0; PAGE]);
    file.write_at(&[1; PAGE], 0).unwrap();
    let how = PowerCut { metadata: Metadata::All, pages: Pages::Random, tear: true };
    let mut torn = 0;
    for seed in 0..100 {
        let found = bytes(&disk.power_cut(&mut random(seed), how), LOG).unwrap();
        for sector in found.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
        }
        torn += usize::from(found.iter().any(|byte| *byte != found[0]));
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn names_survive_by_the_sync_of_their_directory_alone() {
    let (disk, _file) = disk_with(b"x");
    let file = disk.create(Path::new("/d/new")).unwrap();
    file.write_at(b"y", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&cut(&disk, 1, Metadata::None, Pages::All), "/d/new"), None);
    disk.rename(Path::new("/d/new"), Path::new("/d/named")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let after = cut(&disk, 1, Metadata::None, Pages::None);
    assert_eq!(bytes(&after, "/d/named"), Some(b"y".to_vec()));
    assert_eq!(bytes(&after, "/d/new"), None);
}

/// A rename into another directory is two changes, one of each; every combination may be found.
#[test]
fn a_file_that_moves_to_another_directory_has_either_name_both_or_none() {
    let (disk, file) = disk_with(b"x");
    disk.create_dir(Path::new("/e")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.rename(Path::new(LOG), Path::new("/e/log")).unwrap();
    let images = |disk: &SimulatedDisk, metadata| {
        let found = (0..100).map(|seed| {
            let after = cut(disk, seed, metadata, Pages::All);
            let names = ["/d/log", "/e/log"].map(|path| disk_has(&after, path));
            if let (true, Ok(file)) = (names[1], after.open(Path::new("/e/log"), Access::Read)) {
                assert_eq!(file.has_other_names().unwrap(), names[0]);
            }
            names
        });
        found.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(!file.has_other_names().unwrap());
    assert_eq!(images(&disk, Metadata::None), [[true, false]].into());
    assert_eq!(images(&disk, Metadata::Hostile).len(), 4);
    // The new name first: from then on there is at least one.
    disk.sync_dir(Path::new("/e")).unwrap();
    assert_eq!(images(&disk, Metadata::Hostile), [[false, true], [true, true]].into());
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(images(&disk, Metadata::Hostile), [[false, true]].into());
}

#[test]
fn ordered_metadata_is_a_prefix_and_hostile_metadata_is_not() {
    let (disk, _file) = disk_with(b"old");
    disk.create(Path::new("/d/a")).unwrap();
    disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
    disk.remove_file(Path::new(LOG)).unwrap();
    let images = |metadata| {
        let found = (0..200).map(|seed| {
            let after = cut(&disk, seed, metadata, Pages::All);
            let has = |path| disk_has(&after, path);
            (has("/d/a"), has("/d/b"), has(LOG))
        });
        found.collect::<std::collections::BTreeSet<_>>()
    };
    let prefixes =
        [(false, false, true), (true, false, true), (false, true, true), (false, true, false)];
    assert_eq!(images(Metadata::Ordered), prefixes.into());
    // The removal without the rename, and a rename only with its create.
    let hostile = images(Metadata::Hostile);
    assert!(hostile.contains(&(false, false, false)) && hostile.contains(&(true, false, false)));
    assert!(hostile.iter().all(|(a, b, _)| !(*a && *b)));
}

fn disk_has(disk: &SimulatedDisk, path: &str) -> bool {
    disk.kind(Path::new(path)).unwrap().is_some()
}

#[test]
fn killing_the_process_loses_nothing_but_syncs_nothing() {
    let (disk, file) = disk_with(b"a");
    file.write_at(b"b", 1).unwrap();
    let after = disk.kill9();
    file.write_at(b"c", 2).unwrap();
    assert_eq!(bytes(&after, LOG), Some(b"ab".to_vec()));
    assert_eq!(bytes(&cut(&after, 1, Metadata::All, Pages::None), LOG), Some(b"a".to_vec()));
    assert_eq!(bytes(&disk, LOG), Some(b"abc".to_vec()));
}

#[test]
fn row_d02_after_a_failed_sync_the_next_one_lies() {
    let (mut lost, mut reverted) = (0, 0);
    for seed in 0..60 {
        let (disk, file) = disk_with(b"a");
        disk.state.lock().random = Random::new(seed);
        file.write_at(b"b", 0).unwrap();
        disk.inject(Fault::once(Operation::Sync, ErrorKind::Other));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let durable = bytes(&cut(&disk, seed, Metadata::All, Pages::All), LOG).unwrap();
        lost += usize::from(durable == b"a");
        reverted += usize::from(bytes(&disk, LOG).unwrap() == b"a");
        // Writing the page again repairs it.
        file.write_at(b"b", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(bytes(&cut(&disk, seed, Metadata::None, Pages::None), LOG).unwrap(), b"b");
    }
    assert!(lost > 20 && lost < 60 && reverted > 5 && reverted < lost, "{lost} {reverted}");
}

#[test]
fn the_disk_stops_at_any_store_point() {
    let (disk, file) = disk_with(b"a");
    let points = disk.store_points();
    disk.crash_at(points + 1);
    assert!(!disk.is_off());
    file.write_at(b"b", 1).unwrap();
    assert!(disk.is_off());
    for result in [file.write_at(b"c", 2), file.sync(), disk.sync_dir(Path::new("/d"))] {
        assert!(SimulatedDisk::is_crash(&result.unwrap_err()));
    }
    assert!(disk.open(Path::new(LOG), Access::Read).is_err() && file.read_at(&mut [0], 0).is_err());
    assert_eq!(disk.store_points(), points + 1);
    let after = disk.kill9();
    assert_eq!(after.open(Path::new(LOG), Access::Read).unwrap().len().unwrap(), 2);
}

#[test]
fn faults_hit_the_call_that_they_name() {
    let (disk, file) = disk_with(b"a");
    disk.inject(Fault::always(Operation::Allocate, ErrorKind::StorageFull).after(1).on("log"));
    disk.inject(Fault::once(Operation::Create, ErrorKind::PermissionDenied));
    file.allocate(100).unwrap();
    assert_eq!(file.allocate(200).unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(file.allocate(300).is_err());
    let other = disk.create(Path::new("/d/other"));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::PermissionDenied);
    disk.create(Path::new("/d/other")).unwrap().allocate(9).unwrap();
    disk.heal();
    file.allocate(300).unwrap();
    disk.inject(Fault::once(Operation::Write, ErrorKind::Other));
    assert!(file.write_at(&[9; 50], 0).is_err());
    file.write_at(&[8; 50], 0).unwrap();
}

#[test]
fn a_full_disk_keeps_the_debris_of_a_failed_allocation() {
    let (disk, file) = disk_with(&[1; 50]);
    disk.limit_capacity(Some(100));
    assert_eq!(file.allocate(200).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 100);
    let other = disk.create(Path::new("/d/other")).unwrap();
    assert_eq!(other.write_at(&[1], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(&[2; 100], 0).unwrap();
    disk.remove_file(Path::new(LOG)).unwrap();
    other.write_at(&[1; 100], 0).unwrap();
}

#[test]
fn a_map_shows_the_file_and_a_writer_stores_through_it() {
    let (disk, file) = disk_with(&[5; 5000]);
    assert!(!disk.supports_mapped_writes(Path::new("/d")) && !file.map_shows_writes());
    let memory = file.map(10_000, Access::ReadWrite).unwrap();
    let mut writer = RegionWriter::new(memory, 5000, Some(Arc::clone(&file)), true).unwrap();
    writer.set_writable(10_000);
    let points = disk.store_points();
    writer.write(5000, b"more").unwrap();
    writer.publish(5004);
    assert_eq!(disk.store_points(), points + 1);
    assert_eq!(writer.region().bytes(4999..5004), Some(&b"\x05more"[..]));
    assert_eq!(disk.read(Path::new(LOG)).unwrap().len(), 5004);
    file.release(0..4999).unwrap();
    assert_eq!(disk.read(Path::new(LOG)).unwrap()[4998..5000], [0, 5]);
}

/// The length is found as it was or as it is, and what was cut off is nowhere again.
#[test]
fn a_file_that_was_shortened_may_be_long_again_after_a_cut() {
    let (disk, file) = disk_with(&[1; 10_000]);
    file.shorten(5_000).unwrap();
    file.shorten(9_000).unwrap();
    assert_eq!(file.len().unwrap(), 5_000);
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut random = random(seed);
        let how = PowerCut::any(&mut random);
        let found = bytes(&disk.power_cut(&mut random, how), LOG).unwrap();
        assert!(found[..5_000].iter().all(|byte| *byte == 1), "{how:?}");
        lengths.insert(found.len());
    }
    assert!(lengths.contains(&5_000) && lengths.contains(&10_000), "{lengths:?}");
    file.sync().unwrap();
    file.allocate(10_000).unwrap();
    let found = bytes(&cut(&disk, 1, Metadata::All, Pages::All), LOG).unwrap();
    assert_eq!(found, [vec![1; 5_000], vec![0; 5_000]].concat());
}

#[test]
fn files_are_damaged_and_cut_on_request() {
    let (disk, file) = disk_with(&[1; 5000]);
    disk.corrupt(Path::new(LOG), 4999, 0x81).unwrap();
    disk.truncate(Path::new(LOG), 4998).unwrap();
    disk.corrupt(Path::new(LOG), 0, 0x80).unwrap();
    assert!(disk.corrupt(Path::new(LOG), 4998, 1).is_err());
    file.allocate(5000).unwrap();
    let found = bytes(&cut(&disk, 1, Metadata::None, Pages::All), LOG).unwrap();
    assert_eq!((found[0], found[1], &found[4997..]), (0x81, 1, &[1, 0, 0][..]));
    assert_eq!(disk.paths(), [Path::new(LOG)]);
}

/// Two pages with two versions each since the sync, and a name that is not synced.
#[test]
fn every_image_has_a_number_and_none_is_left_out() {
    let (disk, file) = disk_with(&[0; 2 * PAGE]);
    for value in 1..=2 {
        file.write_at(&[value], 0).unwrap();
        file.write_at(&[value], PAGE as u64).unwrap();
    }
    disk.create(Path::new("/d/new")).unwrap();
    let found = |limit: usize| {
        let images = disk.images(limit);
        let each = (0..images.len()).map(|number| {
            let image = images.get(number);
            assert_eq!(image.paths(), images.get(number).paths());
            let log = bytes(&image, LOG).unwrap();
            (log[0], log[PAGE], disk_has(&image, "/d/new"))
        });
        (images.len(), each.collect::<std::collections::BTreeSet<_>>())
    };
    let (count, all) = found(100);
    assert_eq!((count, all.len()), (18, 18), "each once");
    // Durable or latest, where that many are too many; then the usual ones, once each.
    let (count, subsets) = found(8);
    assert_eq!((count, subsets.len()), (8, 8));
    assert!(subsets.iter().all(|(first, second, _)| *first != 1 && *second != 1));
    let (count, some) = found(2);
    assert_eq!(count, some.len());
    for usual in [(0, 0, false), (2, 2, true), (2, 0, true), (0, 2, false), (1, 1, true)] {
        assert!(some.contains(&usual), "{usual:?} of {some:?}");
    }
}

#[test]
fn names_are_found_as_prefixes_and_as_any_set_that_can_be_applied() {
    let (disk, _file) = disk_with(b"old");
    disk.create(Path::new("/d/a")).unwrap();
    disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
    disk.remove_file(Path::new(LOG)).unwrap();
    let images = disk.images(1);
    let names: Vec<_> = (0..images.len()).map(|number| images.get(number).paths()).collect();
    // Nothing, a, b, each with and without the removal.
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.contains(&Vec::new()), "the removal alone");
}

#[test]
fn an_unsynced_length_is_durable_or_current() {
    let (disk, file) = disk_with(b"old");
    file.allocate(PAGE as u64).unwrap();
    let images = disk.images(9);
    let lengths = (0..images.len()).map(|it| bytes(&images.get(it), LOG).unwrap().len());
    assert_eq!(lengths.collect::<Vec<_>>(), [3, PAGE]);
}

#[test]
fn what_is_recorded_is_the_disk_after_each_change() {
    let (disk, file) = disk_with(b"0");
    disk.record();
    file.write_at(b"1", 0).unwrap();
    assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1);
    file.write_at(b"2", 0).unwrap();
    let states: Vec<_> = disk.recorded().iter().map(|disk| bytes(disk, LOG).unwrap()).collect();
    assert_eq!(states, [b"0", b"1", b"2"]);
    assert_eq!(disk.recorded().len(), 1, "no longer");
}

#[test]
fn a_lying_disk_says_that_it_has_synced() {
    let (disk, file) = disk_with(b"a");
    disk.lie();
    file.write_at(b"b", 0).unwrap();
    file.sync().unwrap();
    disk.create(Path::new("/d/new")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let after = cut(&disk, 1, Metadata::None, Pages::None);
    assert_eq!((bytes(&after, LOG), disk_has(&after, "/d/new")), (Some(b"a".to_vec()), false));
}
