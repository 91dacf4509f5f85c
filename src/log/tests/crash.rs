//! Crashes: the power is cut, or the process killed, at every store point of short workloads and
//! at chosen ones of long ones; the image is opened, checked, appended to, and crashed again.

use super::*;

/// What a workload does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append { count: u64, size: usize },
    Sync,
    Roll,
    Footers,
    Space,
    Reopen,
}

fn any_step(random: &mut Random) -> Step {
    match random.below(16) {
        0..=6 => Step::Append {
            count: 1 + random.below(4),
            size: [5, 50, 1_500, 3_500][random.below(4) as usize],
        },
        7..=9 => Step::Sync,
        10 => Step::Roll,
        11 | 12 => Step::Footers,
        13 | 14 => Step::Space,
        _ => Step::Reopen,
    }
}

fn any_steps(random: &mut Random, count: u64) -> Vec<Step> {
    (0..count).map(|_| any_step(random)).collect()
}

/// Runs steps until one fails, which only a crash may do.
fn take_steps(
    rig: &Rig,
    mut log: Log,
    steps: &[Step],
    run: u64,
    model: &mut Model,
    context: &str,
) -> Result<Log> {
    for step in steps {
        match *step {
            Step::Append { count, size } => model.append(&mut log, run, count, size)?,
            Step::Sync => model.sync(&mut log)?,
            Step::Roll => log.roll_for(0)?,
            Step::Footers => finish_segments(&mut log)?,
            Step::Space => make_space(&mut log)?,
            Step::Reopen => {
                model.sync(&mut log)?;
                let had_active = log.appender().active().is_some();
                let clean = known(log.checkpoint(), true);
                drop(log);
                let (reopened, report) = rig.open(&clean)?;
                assert!(
                    report.corrupt.is_empty() && report.cut_bytes == 0,
                    "{context}: {report:?}"
                );
                assert_eq!(reopened.log_end(), model.values.len() as u64, "{context}");
                assert_eq!(
                    reopened.appender().active().is_some(),
                    had_active,
                    "{context}: not resumed"
                );
                log = reopened;
            }
        }
    }
    Ok(log)
}

/// Creates a log, runs steps with the disk stopping at `point`, and returns the number of points.
fn workload(seed: u64, steps: &[Step], point: Option<u64>) -> (SimulatedDisk, Model, u64) {
    let (disk, rig) = Rig::fresh(seed);
    let log = rig.create();
    let before = disk.store_points();
    if let Some(point) = point {
        disk.crash_at(before + point);
    }
    let mut model = Model::default();
    let context = format!("seed {seed}");
    if let Err(error) = take_steps(&rig, log, steps, 0, &mut model, &context) {
        assert!(disk.is_off(), "{context}: {error:?}");
    }
    let points = disk.store_points() - before;
    (disk, model, points)
}

/// Cuts the power and checks what is there.
fn cut_and_check(
    disk: &SimulatedDisk,
    model: &Model,
    seed: u64,
    context: &str,
) -> (SimulatedDisk, Rig, Log, Model) {
    let mut random = Random::new(seed);
    let how = PowerCut::any(&mut || random.next());
    let image = disk.power_cut(&mut || random.next(), how);
    let context = format!("{context}, cut {seed} {how:?}");
    let rig = Rig::simulated(&image, seed);
    let (log, report) = rig.open(&AFTER_CUT).unwrap_or_else(|e| panic!("{context}: {e:?}"));
    let mut model = model.clone();
    model.check(&log, &report, &context);
    // What was read came from the disk.
    assert_eq!(log.durable_end(), log.log_end(), "{context}");
    model.durable = log.log_end();
    (image, rig, log, model)
}

/// B1 to B5, B7, B9 to B11, B13: at every store point of short random workloads.
// RED: src/log/tasks.rs
//   - rule.keep(|| file.sync()).map_err(|source| Error::SyncFailed {
//   + rule.keep(|| Ok(())).map_err(|source: std::io::Error| Error::SyncFailed {
#[test]
fn row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced() {
    for seed in 0..12 * effort() {
        let mut random = Random::new(seed);
        let count = 3 + random.below(6);
        let steps = any_steps(&mut random, count);
        let (_, _, points) = workload(seed, &steps, None);
        for point in 0..=points {
            let (disk, model, _) = workload(seed, &steps, Some(point));
            for image in 0..3 {
                let context = format!("seed {seed}, point {point} of {points}, {steps:?}");
                cut_and_check(&disk, &model, seed * 1_000 + point * 10 + image, &context);
            }
        }
    }
}

/// B3, B10, B11: after a cut, append again, cut again, three times; a hole or a stale batch of an
/// earlier run never comes back.
// RED: src/log/recovery.rs
//   - if needed >= self.durable && !is_head && !may_be_lost {
//   + if needed > self.durable && !is_head && !may_be_lost {
#[test]
fn row_b03_hole_then_reappend() {
    for seed in 0..300 * effort() {
        let mut random = Random::new(seed ^ 0xB03);
        let steps = any_steps(&mut random, 12);
        let point = random.below(60);
        let (mut disk, mut model, _) = workload(seed, &steps, Some(point));
        for run in 1..4 {
            let context = format!("seed {seed}, point {point}, run {run}");
            let (image, rig, log, after) = cut_and_check(&disk, &model, random.next(), &context);
            model = after;
            image.crash_at(image.store_points() + random.below(60));
            let steps = any_steps(&mut random, 10);
            if let Err(error) = take_steps(&rig, log, &steps, run, &mut model, &context) {
                assert!(image.is_off(), "{context}: {error:?}");
            }
            disk = image;
        }
        cut_and_check(&disk, &model, random.next(), &format!("seed {seed}, at last"));
    }
}

/// A25, B11: the machine dies in the middle of opening, at every point of it, and again.
#[test]
fn row_a25_opening_can_be_interrupted_anywhere() {
    for seed in 0..40 * effort() {
        let mut random = Random::new(seed ^ 0xA25);
        let steps = any_steps(&mut random, 14);
        let point = 10 + random.below(60);
        let (disk, mut model, _) = workload(seed, &steps, Some(point));
        let how = PowerCut::any(&mut || random.next());
        let image = disk.power_cut(&mut || random.next(), how);
        let mut interrupted = true;
        let mut at = 0;
        while interrupted {
            let again = image.kill9();
            again.crash_at(at);
            let opened = Rig::simulated(&again, seed + 1).open(&AFTER_CUT);
            interrupted = opened.is_err();
            let context = format!("seed {seed}, point {point}, {how:?}, open at {at}");
            assert!(!interrupted || again.is_off(), "{context}: {opened:?}");
            drop(opened);
            for _ in 0..3 {
                cut_and_check(&again, &model, random.next(), &context);
            }
            at += 1;
        }
        let (log, report) = Rig::simulated(&image, seed).open(&AFTER_CUT).unwrap();
        model.check(&log, &report, &format!("seed {seed}"));
    }
}

/// Several segments that no sync has covered, and parts of all of them lost: what follows the
/// first hole is cut, whole segments of it by a segment that says so.
// RED: src/log/recovery.rs
//   - decision.cuts_segments |= !action.is_kept();
#[test]
fn row_b03_whole_segments_behind_a_hole_are_cut_for_good() {
    let mut truncations = 0;
    for seed in 0..120 * effort() {
        let (disk, rig) = Rig::fresh(seed);
        let mut log = rig.create();
        let mut model = Model::default();
        let mut random = Random::new(seed ^ 0x5E6);
        model.append(&mut log, 0, 2, 100).unwrap();
        model.sync(&mut log).unwrap();
        while segment_count(&log) < 5 {
            let (count, size) = (1 + random.below(3), 1_500);
            model.append(&mut log, 0, count, size).unwrap();
        }
        drop(log);
        let context = format!("seed {seed}");
        let (image, rig, mut log, mut model) = cut_and_check(&disk, &model, seed, &context);
        let truncates =
            log.appender().prepared().front().is_some_and(|next| next.header.rewrite.is_some());
        truncations += u64::from(truncates);
        let steps = any_steps(&mut random, 6);
        model.append(&mut log, 1, 3, 700).unwrap();
        let log = take_steps(&rig, log, &steps, 1, &mut model, &context).unwrap();
        drop(log);
        let (image, _, mut log, mut model) =
            cut_and_check(&image, &model, seed + 1, &format!("{context} again"));
        model.append(&mut log, 2, 3, 700).unwrap();
        model.sync(&mut log).unwrap();
        drop(log);
        cut_and_check(&image, &model, seed + 2, &format!("{context} at last"));
    }
    assert!(truncations > 10 * effort(), "only {truncations} images had segments to cut off");
}

/// A25 with B3: the cutting itself is interrupted, carried on by the next open, and what was cut
/// off does not come back after what is appended then.
// RED: src/log/create.rs
//   - if let Err(error) = Rule::SegmentName.keep(|| env.disk.sync_dir(&self.dir)) {
//   + if let Err(error) = io::Result::Ok(()) {
#[test]
fn row_a25_an_interrupted_cut_is_carried_on_and_never_undone() {
    let mut truncations = 0;
    for seed in 0..20 * effort() {
        let mut random = Random::new(seed ^ 0xA25B);
        let (disk, rig) = Rig::fresh(seed);
        let mut log = rig.create();
        let mut model = Model::default();
        while segment_count(&log) < 4 {
            model.append(&mut log, 0, 2, 2_000).unwrap();
        }
        drop(log);
        let how = PowerCut::any(&mut || random.next());
        let image = disk.power_cut(&mut || random.next(), how);
        for point in 0.. {
            let interrupted = image.kill9();
            interrupted.crash_at(point);
            let rig = Rig::simulated(&interrupted, seed + 1);
            let is_whole = rig.open(&AFTER_CUT).is_ok();
            let context = format!("seed {seed}, open at {point}, {how:?}");
            let (again, rig, mut log, mut after) =
                cut_and_check(&interrupted, &model, random.next(), &context);
            truncations += u64::from(files(&again).len() > 2);
            after.append(&mut log, 1, 3, 700).unwrap();
            after.sync(&mut log).unwrap();
            drop(log);
            for _ in 0..6 {
                cut_and_check(&again, &after, random.next(), &context);
            }
            drop(rig);
            if is_whole {
                break;
            }
        }
    }
    assert!(truncations > effort());
}

/// A5, A6: what was published is there after kill -9, and is called durable only after it has
/// been written and synced again.
// RED: src/storage/region_writer.rs
//   - file.write_at(bytes, position as u64)?;
#[test]
fn row_a05_nothing_published_is_lost_when_the_process_dies() {
    for seed in 0..150 * effort() {
        let mut random = Random::new(seed ^ 0xA05);
        let steps = any_steps(&mut random, 12);
        let point = random.below(80);
        let (disk, model, _) = workload(seed, &steps, Some(point));
        // The last append may have been under way.
        let under_way = disk.is_off();
        let image = disk.kill9();
        let rig = Rig::simulated(&image, seed);
        let (mut log, report) = rig.open(&AFTER_KILL).unwrap();
        let context = format!("seed {seed}, point {point}");
        let mut all = model.clone();
        let published = match model.ends.len() {
            0 | 1 if under_way => 0,
            count if under_way => model.ends[count - 2],
            _ => model.values.len() as u64,
        };
        assert!(log.log_end() >= published, "{context}: {} of {published}", log.log_end());
        all.check(&log, &report, &context);
        // A power cut now may take what no sync has covered; nothing else was promised.
        cut_and_check(&image, &model, random.next(), &format!("{context}, not synced"));
        all.append(&mut log, 1, 2, 400).unwrap();
        all.sync(&mut log).unwrap();
        for _ in 0..2 {
            cut_and_check(&image, &all, random.next(), &format!("{context}, synced"));
        }
        finish_segments(&mut log).unwrap();
        cut_and_check(&image, &all, random.next(), &format!("{context}, footers"));
    }
}

/// D3: a sync failed, its pages were marked clean without having been written, the process died.
/// The next run's first sync writes them again before it vouches for them.
#[test]
fn row_d03_a_tail_that_a_failed_sync_marked_clean_is_written_again() {
    for seed in 0..60 * effort() {
        let (disk, rig) = Rig::fresh(seed);
        let mut log = rig.create();
        let mut model = Model::default();
        let mut random = Random::new(seed);
        model.append(&mut log, 0, 1, 100).unwrap();
        model.sync(&mut log).unwrap();
        for _ in 0..random.below(14) {
            let size = 100 + random.below(4_000) as usize;
            model.append(&mut log, 0, 1, size).unwrap();
        }
        disk.inject(Fault::always(Operation::Sync, std::io::ErrorKind::Other));
        let failed = log.begin_sync(SyncScope::All).run();
        assert_eq!(failed.is_err(), log.ends().is_dirty(), "seed {seed}");
        drop(log);
        let image = disk.kill9();
        let (mut log, report) = Rig::simulated(&image, seed).open(&AFTER_KILL).unwrap();
        let context = format!("seed {seed}");
        model.check(&log, &report, &context);
        model.sync(&mut log).unwrap();
        assert_eq!(log.durable_end(), log.log_end(), "{context}");
        cut_and_check(&image, &model, seed, &context);
        drop(log);
        let worst = image.power_cut(&mut || 0, PowerCut::WORST);
        let (log, report) = Rig::simulated(&worst, seed).open(&AFTER_CUT).unwrap();
        model.check(&log, &report, &context);
    }
}

/// A write that failed had reached the file, and the next batch went to another segment: the one
/// that failed must not come back and push the other out.
#[test]
fn a_batch_whose_write_failed_never_replaces_a_later_one() {
    for seed in 0..40 {
        let (disk, rig) = Rig::fresh(seed);
        let mut log = rig.create();
        append(&mut log, 1, 9_000);
        disk.inject(Fault::once(Operation::Write, std::io::ErrorKind::Other));
        let lost = [vec![0xEE; 4]];
        assert!(append_values(&mut log, &lost, None).is_err());
        append(&mut log, 1, 9_000);
        append(&mut log, 1, 10);
        assert_eq!(segment_count(&log), 2);
        sync(&mut log).unwrap();
        drop(log);
        let (log, report) = rig.open(&AFTER_CUT).unwrap();
        assert_eq!((log.log_end(), report.corrupt), (3, vec![]), "seed {seed}");
        let expected = [plain(0..2, 9_000), plain(2..3, 10)].concat();
        assert_eq!(read_from(&log, 0, 1).unwrap(), expected, "seed {seed}");
    }
}

/// The opening batch of the next segment could not be written, nor its file be removed; the log
/// continued, and the file came back with the opening in it.
#[test]
fn an_opening_that_failed_and_came_back_changes_nothing() {
    for operation in [Operation::Remove, Operation::SyncDir] {
        for seed in 0..30 {
            let (disk, rig) = Rig::fresh(seed);
            let mut log = rig.create();
            append(&mut log, 1, 9_000);
            // The header is written first, then the opening.
            let failed = std::io::ErrorKind::Other;
            disk.inject(Fault::once(Operation::Write, failed).after(1));
            let before = u64::from(operation == Operation::SyncDir);
            disk.inject(Fault::once(operation, failed).after(before));
            assert!(append_values(&mut log, &[vec![0; 9_000]], None).is_err());
            append(&mut log, 1, 10);
            append(&mut log, 1, 9_000);
            sync(&mut log).unwrap();
            let mut random = Random::new(seed);
            let how = PowerCut::any(&mut || random.next());
            let image = disk.power_cut(&mut || random.next(), how);
            let (log, report) = Rig::simulated(&image, 1).open(&AFTER_CUT).unwrap();
            let context = format!("{operation:?} {seed} {how:?}");
            assert_eq!((log.log_end(), report.corrupt), (3, vec![]), "{context}");
            let expected = [plain(0..1, 9_000), plain(1..2, 10), plain(2..3, 9_000)].concat();
            assert_eq!(read_from(&log, 0, 1).unwrap(), expected, "{context}");
        }
    }
}

/// A creation that was interrupted anywhere is no log, or an empty one that works.
// RED: src/log/create.rs
//   - Rule::HeaderSync.keep(|| file.sync())?;
#[test]
fn row_a22_an_interrupted_creation_is_an_empty_log_or_none() {
    for point in 0..20 {
        for seed in 0..20 {
            let (disk, rig) = Rig::fresh(seed);
            disk.crash_at(disk.store_points() + point);
            let created = Log::create(&rig.env, rig.identity.clone(), rig.options, 0);
            let is_created = created.is_ok();
            let mut random = Random::new(seed);
            let how = PowerCut::any(&mut || random.next());
            let image = disk.power_cut(&mut || random.next(), how);
            let rig = Rig::simulated(&image, seed + 1);
            for _ in 0..2 {
                match rig.open(&AFTER_CUT) {
                    Ok((mut log, report)) => {
                        assert_eq!((log.log_end(), report.corrupt), (0, vec![]));
                        assert!(read_from(&log, 0, 1).unwrap().is_empty());
                        append(&mut log, 1, 10);
                        assert_eq!(read_from(&log, 0, 1).unwrap(), plain(0..1, 10));
                        // Not synced, and the process dies: the second round finds it again.
                        drop(log);
                        let (log, _) = rig.open(&AFTER_KILL).unwrap();
                        assert_eq!(log.log_end(), 1);
                        break;
                    }
                    Err(Error::Corrupt(missing)) => {
                        assert!(!is_created, "{point} {seed}: {missing:?}");
                        assert_eq!(missing.kind, CorruptionKind::Missing);
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
}
