//! Limits, written by hand: values are copied behind their length and checksum into a memory map.
//!
//! This is what a log of this machine cannot do without: a checksum, a copy, and pages to copy to.
//! There is no time, no offset, no roll, no background and no way to wait. The file has its full
//! length from the start, so that the kernel uses large folios for it; its first word says up to
//! where it is published.
#![allow(unsafe_code, reason = "several threads use one map")]

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};

use super::{Contender, PROCESS};
use crate::log::{Hold, Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::{Kind, Workload, run};

pub(super) const FRESH: Contender = Contender {
    name: "limit-fresh",
    title: "limit: map, fresh pages",
    package: None,
    survives: |_| PROCESS,
    checks: "each record (CRC-32)",
    takes: |work| !work.durable,
    run: run::<Maps<false, true>>,
};

pub(super) const READY: Contender = Contender {
    name: "limit-ready",
    title: "limit: map, pages made before",
    package: None,
    survives: |_| PROCESS,
    checks: "each record (CRC-32)",
    takes: |work| !work.durable && matches!(work.kind, Kind::Append | Kind::Stream),
    run: run::<Maps<true, true>>,
};

pub(super) const UNCHECKED: Contender = Contender {
    name: "limit-unchecked",
    title: "limit: map, no checksum",
    package: None,
    survives: |_| PROCESS,
    checks: "no",
    takes: |work| matches!(work.kind, Kind::Read { .. } | Kind::PingPong),
    run: run::<Maps<false, false>>,
};

pub(super) const PREAD: Contender = Contender {
    name: "limit-pread",
    title: "limit: pread",
    package: None,
    survives: |_| PROCESS,
    checks: "each record (CRC-32)",
    takes: |work: &Workload| matches!(work.kind, Kind::Read { .. }),
    run: run::<pread::Preads>,
};

/// Where the records begin; the word that publishes them has a page for itself.
const START: usize = 4096;

/// Length and checksum, of four bytes each.
const HEADER_BYTES: usize = 8;

/// How many pages are made at once: as large as the largest folio.
const STEP: usize = 2 << 20;

/// How many blocks are allocated at once.
const ALLOCATED: usize = 64 << 20;

/// How much a reader looks at in one call.
const READ_BYTES: usize = 512 << 10;

/// With all pages made at the opening, or step by step; with checksums, or without.
struct Maps<const READY: bool, const CHECKED: bool> {
    maps: Vec<Map>,
    plan: Plan,
}

struct Map {
    raw: MmapRaw,
    file: File,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    end: usize,
    /// Up to where the pages are there, and the blocks.
    made: usize,
    allocated: usize,
}

impl Map {
    fn open(path: &Path, bytes: usize, ready: bool) -> Outcome<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let bytes = bytes.max(usize::try_from(file.metadata()?.len())?).next_multiple_of(ALLOCATED);
        file.set_len(u64::try_from(bytes)?)?;
        let raw = MmapOptions::new().len(bytes).map_raw(&file)?;
        raw.advise(Advice::HugePage)?;
        let map = Self { raw, file, tail: Mutex::new(Tail { end: 0, made: 0, allocated: 0 }) };
        {
            let mut tail = map.tail.lock();
            let published = usize::try_from(map.published().load(Ordering::Acquire))?;
            tail.end = published.max(START);
            tail.made = tail.end / STEP * STEP;
            // A file that was written before has blocks up to where its last step ended.
            tail.allocated = if published == 0 { 0 } else { tail.end.next_multiple_of(ALLOCATED) };
            while ready && tail.made < bytes {
                map.make(&mut tail)?;
            }
        }
        Ok(map)
    }

    /// Up to where records may be read.
    #[expect(clippy::cast_ptr_alignment, reason = "a map begins on a page")]
    fn published(&self) -> &AtomicU64 {
        let start = self.raw.as_mut_ptr().cast::<u64>();
        // SAFETY: the map begins on a page and is longer than that; it lives as long as `self`; and
        // nothing but this word is ever stored to the first page.
        unsafe { AtomicU64::from_ptr(start) }
    }

    /// More pages, and blocks for them if there are none.
    fn make(&self, tail: &mut Tail) -> Outcome<()> {
        if tail.made >= self.raw.len() {
            return Err("the map is full".into());
        }
        if tail.made >= tail.allocated {
            let (at, length) = (u64::try_from(tail.allocated)?, u64::try_from(ALLOCATED)?);
            fallocate(&self.file, FallocateFlags::empty(), at, length)?;
            tail.allocated += ALLOCATED;
        }
        self.raw.advise_range(Advice::PopulateWrite, tail.made, STEP)?;
        tail.made += STEP;
        Ok(())
    }

    /// Copies these parts behind the end, and leaves it to the caller to publish them.
    #[inline]
    fn copy(&self, tail: &mut Tail, parts: &[&[u8]]) -> Outcome<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        while tail.end + length > tail.made {
            self.make(tail)?;
        }
        for part in parts {
            // SAFETY: `end` is below `made`, and that is within the map.
            let to = unsafe { self.raw.as_mut_ptr().add(tail.end) };
            // SAFETY: there are `length` bytes behind `to` below `made`, as was checked above; a
            // slice of the caller's does not overlap the map; and nobody reads what is not yet
            // published, nor writes without the tail, which is borrowed mutably.
            unsafe { to.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            tail.end += part.len();
        }
        Ok(())
    }

    /// What is published of a range.
    fn slice(&self, from: usize, to: usize) -> &[u8] {
        let to = to.min(self.raw.len());
        let from = from.min(to);
        // SAFETY: `from` is within the map.
        let start = unsafe { self.raw.as_ptr().add(from) };
        // SAFETY: `from <= to`, within the map, which lives as long as `self`; callers read below
        // the published end only, and what is below it is never written again.
        unsafe { std::slice::from_raw_parts(start, to - from) }
    }
}

impl<const READY: bool, const CHECKED: bool> Log for Maps<READY, CHECKED> {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = Reader<'log, CHECKED>;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let bytes = plan.log_bytes(HEADER_BYTES)?;
        let maps =
            (0..plan.logs).map(|log| Map::open(&dir.join(format!("log-{log}")), bytes, READY));
        Ok(Self { maps: maps.collect::<Outcome<_>>()?, plan: plan.clone() })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<'_>> {
        let map = self.maps.get(self.plan.log_of(worker)).ok_or("no such map")?;
        // A reader needs no lock.
        let plan = Plan { followed: false, ..self.plan.clone() };
        Ok(Writer { map, tail: Hold::of(&map.tail, &plan) })
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<'_, CHECKED>> {
        let map = self.maps.get(log).ok_or("no such map")?;
        Ok(Reader { map, position: START, records_max })
    }
}

struct Writer<'log> {
    map: &'log Map,
    tail: Hold<'log, Tail>,
}

impl Write for Writer<'_> {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        let length = u32::try_from(value.len())?.to_le_bytes();
        let checksum = crc32fast::hash(value).to_le_bytes();
        let map = self.map;
        self.tail.with(|tail| {
            map.copy(tail, &[&length, &checksum, value])?;
            map.published().store(u64::try_from(tail.end)?, Ordering::Release);
            Ok(())
        })
    }

    /// One checksum for all, and a length for each.
    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        let length = u32::try_from(values.size)?.to_le_bytes();
        let checksum = crc32fast::hash(values.bytes).to_le_bytes();
        let map = self.map;
        self.tail.with(|tail| {
            map.copy(tail, &[&checksum])?;
            values.iter().try_for_each(|value| map.copy(tail, &[&length, value]))?;
            map.published().store(u64::try_from(tail.end)?, Ordering::Release);
            Ok(())
        })
    }
}

struct Reader<'log, const CHECKED: bool> {
    map: &'log Map,
    position: usize,
    records_max: usize,
}

impl<const CHECKED: bool> Read for Reader<'_, CHECKED> {
    #[inline]
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let published = usize::try_from(self.map.published().load(Ordering::Acquire))?;
        let end = published.min(self.position + READ_BYTES);
        let (count, bytes) =
            walk::<CHECKED>(self.map.slice(self.position, end), self.records_max, see)?;
        self.position += bytes;
        Ok(count)
    }
}

/// Shows the whole records of these bytes; returns how many these are, and how many bytes.
#[inline]
fn walk<const CHECKED: bool>(
    bytes: &[u8],
    records_max: usize,
    see: &mut impl FnMut(&[u8]),
) -> Outcome<(u64, usize)> {
    let (mut rest, mut count) = (bytes, 0);
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let Some((checksum, behind)) = behind.split_first_chunk() else { break };
        let Some((value, behind)) = behind.split_at_checked(length) else { break };
        // A map that is longer than what was written ends in zeros.
        if length == 0 || count == records_max {
            break;
        }
        if CHECKED && crc32fast::hash(value) != u32::from_le_bytes(*checksum) {
            return Err("a checksum does not match".into());
        }
        see(value);
        count += 1;
        rest = behind;
    }
    Ok((u64::try_from(count)?, bytes.len() - rest.len()))
}

/// The same file, read by system calls into a buffer that stays in the core's own cache.
mod pread {
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::{Map, Maps, START, walk};
    use crate::log::{Log, Outcome, Plan, Read};

    const BUFFER_BYTES: usize = 256 << 10;

    pub(super) struct Preads(Maps<false, true>);

    impl Log for Preads {
        type Writer<'log> = super::Writer<'log>;
        type Reader<'log> = Reader<'log>;

        fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
            Ok(Self(Maps::open(dir, plan)?))
        }

        fn writer(&self, worker: usize) -> Outcome<super::Writer<'_>> {
            self.0.writer(worker)
        }

        fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<'_>> {
            let map = self.0.maps.get(log).ok_or("no such map")?;
            let position = u64::try_from(START)?;
            Ok(Reader { map, position, records_max, buffer: vec![0; BUFFER_BYTES] })
        }
    }

    pub(super) struct Reader<'log> {
        map: &'log Map,
        position: u64,
        records_max: usize,
        buffer: Vec<u8>,
    }

    impl Read for Reader<'_> {
        fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
            let length = self.map.file.read_at(&mut self.buffer, self.position)?;
            let bytes = self.buffer.get(..length).unwrap_or_default();
            let (count, bytes) = walk::<true>(bytes, self.records_max, see)?;
            self.position += u64::try_from(bytes)?;
            Ok(count)
        }
    }
}
