//! The machine: its clock, processors, memory and page cache.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSliceMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, SeekFrom, fadvise, seek, syncfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::log::Outcome;

const PAGE: usize = 4096;

/// In each file; each may read the page that it asks for.
const PROBES: u64 = 32;

/// The one clock of all workloads.
#[expect(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits for time to pass; nothing is measured meanwhile.
#[expect(clippy::disallowed_methods, reason = "a pause between measurements")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Has this process killed when the one ends that started it: a measurement that is interrupted
/// leaves nothing behind that writes gigabytes.
pub(crate) fn end_with_parent() -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before.
    match getppid() {
        Some(parent) if !parent.is_init() => Ok(()),
        _ => Err("the process that measures has ended".into()),
    }
}

/// The processors that this process may use.
fn processors() -> Outcome<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Ties the calling thread to one processor. Threads that it starts are tied, too: so a contender
/// is opened before, and its own threads run where the kernel wants.
pub(crate) fn pin(worker: usize) -> Outcome<()> {
    let processors = processors()?;
    let at = worker.checked_rem(processors.len()).ok_or("there is no processor")?;
    let mut set = CpuSet::new();
    set.set(*processors.get(at).ok_or("there is no such processor")?);
    Ok(sched_setaffinity(None, &set)?)
}

/// Touches this much memory and gives it back. A virtual machine's free memory may have gone back
/// to its host: the first touch of such a page costs a hundred times the second.
pub(crate) fn warm(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(PAGE) {
        if let Some(byte) = page.first_mut() {
            *byte = 1;
        }
    }
    std::hint::black_box(&memory);
}

/// Every file system buffer of the disk under this directory is written.
pub(crate) fn sync_all(dir: &Path) -> Outcome<()> {
    Ok(syncfs(File::open(dir)?)?)
}

/// All files below a directory.
pub(crate) fn files(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Drops what the page cache has of these files, which were synced and which nobody has open.
pub(crate) fn evict(dir: &Path) -> Outcome<()> {
    for path in files(dir)? {
        fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Which part of these files is in the page cache, from some probes in each.
pub(crate) fn resident(dir: &Path) -> Outcome<f64> {
    let (mut probes, mut hits) = (0_u32, 0_u32);
    for path in files(dir)? {
        let file = File::open(path)?;
        // Without it a probe would read what the next ones ask for.
        fadvise(&file, 0, None, Advice::Random)?;
        let step = file.metadata()?.len() / PROBES + 1;
        for probe in 0..PROBES {
            let mut byte = [0_u8];
            let mut room = [IoSliceMut::new(&mut byte)];
            // What was never written is read without the disk.
            let at = match seek(&file, SeekFrom::Data(probe * step)) {
                Ok(at) => at,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            probes += 1;
            match preadv2(&file, &mut room, at, ReadWriteFlags::NOWAIT) {
                Ok(_) => hits += 1,
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(f64::from(hits) / f64::from(probes.max(1)))
}

/// Removes a directory with all that is in it, if it exists.
pub(crate) fn remove(dir: &Path) -> Outcome<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) minor_faults: f64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

impl Usage {
    pub(crate) fn now() -> Outcome<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The name, in parentheses, may have spaces.
        let (_, fields) = stat.rsplit_once(')').ok_or("a malformed /proc/self/stat")?;
        let field = |number: usize| -> Outcome<f64> {
            let word =
                fields.split_whitespace().nth(number - 3).ok_or("a short /proc/self/stat")?;
            Ok(word.parse()?)
        };
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Self {
            minor_faults: field(10)?,
            user_s: field(14)? * tick,
            system_s: field(15)? * tick,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            minor_faults: self.minor_faults - before.minor_faults,
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
        }
    }
}

/// Kernel, processors, memory, and the file system of a directory.
pub(crate) fn describe(dir: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounts = read("/proc/self/mounts");
    let dir = dir.canonicalize().unwrap_or_default();
    let file_system = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, at, _)| dir.starts_with(at))
        .max_by_key(|(_, at, _)| at.len())
        .map_or("an unknown file system".into(), |(device, _, kind)| format!("{kind} on {device}"));
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    let gib = kib.unwrap_or_default() / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let processors = processors().map_or(0, |all| all.len());
    format!(
        "Linux {}, {processors} processors, {gib:.0} GiB of memory, {file_system}",
        kernel.trim()
    )
}

/// How many threads of this machine wanted a processor during the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
