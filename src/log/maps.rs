//! The budget of maps of a broker's sealed segments: how many there may be, and which are released.
//!
//! A map takes an entry of the process's limited table of maps, and 2 KiB of page tables for each
//! MiB that was read through it. So maps are released
//! 1. when there are too many, or too many bytes of them, oldest first,
//! 2. when no reader has used them for a minute or two,
//! 3. all of them, when the kernel refuses another one.
//!
//! A map that a message or a cursor holds is never released. A released map is made again when it
//! is needed. Must not know: why a segment is mapped, and by whom.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};

use super::segment::Segment;
use crate::sync::{LockLevel, Mutex};

/// LIMIT: how many maps are looked at under one lock, and in one call that an append waits for.
/// Where messages hold thousands of maps, the calls together go round, and the budget is exceeded
/// meanwhile.
const STEP: usize = 64;

#[derive(Debug)]
pub(crate) struct MapBudget {
    count_limit: usize,
    bytes_limit: u64,
    maps: Mutex<Maps>,
}

/// Least recently made first. A removed segment stays in the list until it is looked at.
#[derive(Debug, Default)]
struct Maps {
    queue: VecDeque<(Weak<Segment>, u64)>,
    bytes: u64,
}

impl Maps {
    fn push(&mut self, map: (Weak<Segment>, u64)) {
        self.bytes = self.bytes.saturating_add(map.1);
        self.queue.push_back(map);
    }

    fn pop(&mut self) -> Option<(Weak<Segment>, u64)> {
        let map = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(map.1);
        Some(map)
    }
}

/// Which of the unused maps are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that no reader has used since the last time.
    Unused,
}

impl MapBudget {
    /// LIMIT: a quarter of the kernel's default `vm.max_map_count` (65,530); active segments and
    /// the rest of the process need maps too.
    pub(crate) const DEFAULT_LIMIT: usize = 16 << 10;

    /// LIMIT: 32 MiB of page tables, which the kernel frees with the map alone.
    const BYTES_LIMIT: u64 = 16 << 30;

    pub(crate) fn new(count_limit: usize) -> Self {
        Self::of(count_limit, Self::BYTES_LIMIT)
    }

    pub(crate) fn of(count_limit: usize, bytes_limit: u64) -> Self {
        Self {
            count_limit,
            bytes_limit,
            maps: Mutex::at_level(LockLevel::MapBudget, Maps::default()),
        }
    }

    /// What is mapped, in bytes; with segments that went in the last minute.
    pub(crate) fn bytes(&self) -> u64 {
        self.maps.lock().bytes
    }

    /// Takes note of a map that was made. Never waits for a reader.
    pub(super) fn register(&self, segment: &Arc<Segment>) {
        let bytes = segment.sealed().map_or(0, |sealed| u64::from(sealed.data_end));
        let mut maps = self.maps.lock();
        maps.push((Arc::downgrade(segment), bytes));
        let mut candidates = maps.queue.len().min(STEP);
        while (maps.queue.len() > self.count_limit || maps.bytes > self.bytes_limit)
            && candidates > 0
        {
            candidates -= 1;
            let Some((oldest, bytes)) = maps.pop() else { break };
            let Some(oldest) = oldest.upgrade() else { continue };
            if !oldest.try_drop_map() {
                maps.push((Arc::downgrade(&oldest), bytes));
            }
        }
    }

    /// Makes a map. Where the kernel refuses it for want of memory or of maps, those that nobody
    /// holds are given up first: a reader must not be stuck on what it has read before.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub(super) fn make<T>(&self, map: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match map() {
            Err(refused) if refused.kind() == ErrorKind::OutOfMemory => {
                if self.give_up(Which::All) > 0 { map() } else { Err(refused) }
            }
            made => made,
        }
    }

    /// Gives up the maps that were not used since the last call.
    pub(crate) fn give_up_unused(&self) {
        self.give_up(Which::Unused);
    }

    /// Returns how many were given up. Takes each of those that there are now once, and no lock
    /// while one is unmapped.
    fn give_up(&self, which: Which) -> usize {
        let (mut left, mut given_up) = (self.maps.lock().queue.len(), 0);
        while left > 0 {
            let some: Vec<_> = {
                let mut maps = self.maps.lock();
                (0..left.min(STEP)).map_while(|_| maps.pop()).collect()
            };
            left = if some.is_empty() { 0 } else { left.saturating_sub(some.len()) };
            for (map, bytes) in some {
                let Some(segment) = map.upgrade() else { continue };
                let is_spared = which == Which::Unused && segment.was_used();
                if !is_spared && segment.try_drop_map() {
                    given_up += 1;
                } else {
                    self.maps.lock().push((map, bytes));
                }
            }
        }
        given_up
    }
}
