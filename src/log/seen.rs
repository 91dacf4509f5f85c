//! What a look at the files of a log has found, as far as it shows whether another process has
//! changed them since.
//!
//! Owns: the numbers of the files, and where new bytes would be. Must not know: what is in the
//! files; a look decides that.
//!
//! A writer changes a log in three ways: it appends behind the last batch, it begins to use a file
//! that was prepared, or it makes and removes files. Each shows in the names, or in one word of a
//! file that was zero before. File names are never used again.

use std::io;
use std::path::{Path, PathBuf};

use super::{Log, LogEnv};
use crate::format::{
    ALIGNMENT, BatchHeader, SegmentHeader, parse_segment_file_name, segment_file_name,
};
use crate::storage::disk::{Access, EntryKind};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    dir: PathBuf,
    numbers: Vec<u64>,
    /// The words that are zero as long as nothing is appended: the number of the file, and where.
    ends: Vec<(u64, u32)>,
}

impl Seen {
    /// The numbers of the segment files in a directory, in their order. To be asked for before the
    /// files are read: what changes in between is found by the next look.
    ///
    /// # Errors
    ///
    /// That of the disk.
    pub(crate) fn numbers(env: &LogEnv, dir: &Path) -> io::Result<Vec<u64>> {
        let entries = env.disk.list(dir)?;
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let mut numbers: Vec<u64> =
            files.filter_map(|entry| parse_segment_file_name(&entry.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What a look has found that made this log of these files.
    pub(crate) fn of(numbers: Vec<u64>, log: &Log) -> Self {
        let last = log.segments().last();
        let is_prepared = |number: &&u64| last.as_ref().is_none_or(|last| **number > last.number);
        let prepared = numbers.iter().filter(is_prepared);
        let mut ends: Vec<_> =
            prepared.map(|number| (*number, SegmentHeader::END_POSITION)).collect();
        ends.extend(last.as_ref().and_then(|it| Some((it.number, it.sealed()?.data_end))));
        let dir = log.factory().identity().dir.clone();
        Self { dir, numbers, ends }
    }

    /// Whether the files are as they were. Where that cannot be read they are not.
    pub(crate) fn still_holds(&self, env: &LogEnv) -> bool {
        let is_zero = |(number, position): &(u64, u32)| {
            let path = self.dir.join(segment_file_name(*number));
            let file = env.disk.open(&path, Access::Read)?;
            let mut word = [0; ALIGNMENT];
            let read = file.read_at(&mut word, u64::from(*position))?;
            let size = BatchHeader::declared_size(word.get(..read).unwrap_or_default());
            Ok::<bool, io::Error>(size.unwrap_or(0) == 0)
        };
        let are_same = Self::numbers(env, &self.dir).is_ok_and(|now| now == self.numbers);
        are_same && self.ends.iter().all(|end| is_zero(end).unwrap_or(false))
    }
}
