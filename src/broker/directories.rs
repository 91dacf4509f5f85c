//! Creates and removes the directories of a broker, each step durable before the next.
//!
//! Functions over a disk and a path. Must not know: the catalog, and why a directory is created or
//! removed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    SegmentHeader, TopicId, parse_segment_file_name, parse_temporary_segment_file_name,
};
use crate::record::TopicPartition;
use crate::rules::Rule;
use crate::storage::disk::{Access, Disk, EntryKind};

/// Creates a directory and its missing parents, from the top down, each durable in its parent.
/// Existing ones are synced too: the process that created them may have died before they were
/// durable.
pub(super) fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let above: Vec<&Path> = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    for dir in above.into_iter().rev() {
        let Some(parent) = dir.parent() else { continue };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let is_made = make_dir(disk, dir)?;
        match Rule::DataDirName.keep(|| sync_dir(disk, parent)) {
            Err(Error::Io { source, .. }) if !is_made && is_not_ours(source.kind()) => {}
            settled => settled?,
        }
    }
    check_dir(disk, dir)
}

/// Whether an error shows that the directory is not one of this crate.
fn is_not_ours(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// Creates a directory if nothing has its name. Whether it did.
pub(super) fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let found = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    if found.is_some() {
        return Ok(false);
    }
    match disk.create_dir(dir) {
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(|source| Error::io("create", dir, source)),
    }
}

fn check_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.kind(dir).map_err(|source| Error::io("look at", dir, source))? {
        Some(EntryKind::Directory) => Ok(()),
        // A link to a directory is the user's choice; every later step checks its target.
        Some(EntryKind::Other) if disk.list(dir).is_ok() => Ok(()),
        _ => Err(Error::io("open", dir, ErrorKind::NotADirectory.into())),
    }
}

/// Whether a log was ever begun in a directory. A directory that cannot be read is not empty: a new
/// log in it could destroy the old one.
pub(super) fn has_segments(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let is_segment = |name: &str| parse_segment_file_name(name).is_some();
    match disk.list(dir) {
        Ok(entries) => Ok(entries.iter().any(|entry| is_segment(&entry.name))),
        Err(source) if is_absent(source.kind()) => Ok(false),
        Err(source) => Err(Error::io("list", dir, source)),
    }
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The directory of an internal log is not there.
pub(super) fn missing(log: &str, dir: &Path) -> Corruption {
    Corruption {
        partition: Some(TopicPartition::from((log, 0))),
        file: dir.to_path_buf(),
        position: 0,
        offsets: None,
        kind: CorruptionKind::Missing,
    }
}

/// Creates a directory, or takes one that holds no segments: a deleted topic may have left it
/// because of foreign files.
pub(super) fn make_or_adopt_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.create_dir(dir) {
        Err(source) if source.kind() == ErrorKind::AlreadyExists => {
            if is_free(disk, dir).map_err(|source| Error::io("list", dir, source))? {
                return Ok(());
            }
            Err(Error::io("create", dir, source))
        }
        made => made.map_err(|source| Error::io("create", dir, source)),
    }
}

/// Whether a path is a directory without segments, in it or one level below.
fn is_free(disk: &dyn Disk, dir: &Path) -> std::io::Result<bool> {
    if disk.kind(dir)? != Some(EntryKind::Directory) {
        return Ok(false);
    }
    for entry in disk.list(dir)? {
        let is_segment = |name: &str| parse_segment_file_name(name).is_some();
        let below = match entry.kind {
            EntryKind::Directory => disk.list(&dir.join(&entry.name))?,
            _ => Vec::new(),
        };
        if is_segment(&entry.name) || below.iter().any(|entry| is_segment(&entry.name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
}

/// Removes the segments of a topic and then its directories, as far as they are empty. Only files
/// with the topic's id, or with a temporary name of this crate, are removed: files of another
/// program are kept, and so is their directory.
pub(super) fn remove_topic_files(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let kind = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    if kind == Some(EntryKind::Directory) {
        for entry in disk.list(dir).map_err(|source| Error::io("list", dir, source))? {
            if entry.kind == EntryKind::Directory {
                remove_partition_files(disk, &dir.join(&entry.name), id)?;
            }
        }
        Rule::DeletedPartitionNames.keep(|| sync_dir(disk, dir))?;
        remove_dir(disk, dir)?;
    }
    // DURABILITY: from the bottom up, so that nothing comes back under a name that is free again;
    // and also if the directory is missing: the process that removed it may have died before this.
    dir.parent().map_or(Ok(()), |parent| Rule::DeletedTopicName.keep(|| sync_dir(disk, parent)))
}

fn is_directory(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let kind = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    Ok(kind == Some(EntryKind::Directory))
}

/// Removes the segments of one partition of a topic and then its directory, which may be missing.
pub(super) fn remove_partition_files(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    if !is_directory(disk, dir)? {
        return Ok(());
    }
    remove_segments(disk, dir, id)?;
    Rule::DeletedSegmentNames.keep(|| sync_dir(disk, dir))?;
    remove_dir(disk, dir)
}

/// Removes the segments in the directories of a topic that is about to be created, but those of the
/// topics that `keep` names. The directory may be missing.
pub(super) fn remove_stray_topics(
    disk: &dyn Disk,
    dir: &Path,
    keep: &dyn Fn(TopicId) -> bool,
) -> Result<()> {
    if !is_directory(disk, dir)? {
        return Ok(());
    }
    for entry in disk.list(dir).map_err(|source| Error::io("list", dir, source))? {
        if entry.kind == EntryKind::Directory {
            remove_stray_files(disk, &dir.join(&entry.name), keep)?;
        }
    }
    Ok(())
}

/// The same for the directory of one partition.
pub(super) fn remove_stray_files(
    disk: &dyn Disk,
    dir: &Path,
    keep: &dyn Fn(TopicId) -> bool,
) -> Result<()> {
    if !is_directory(disk, dir)? {
        return Ok(());
    }
    let entries = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let path: PathBuf = dir.join(&entry.name);
        if parse_segment_file_name(&entry.name).is_some() {
            if topic_id(disk, &path)?.is_some_and(keep) {
                continue;
            }
        } else if parse_temporary_segment_file_name(&entry.name).is_none() {
            continue;
        }
        disk.remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
    }
    sync_dir(disk, dir)
}

/// Removes a directory, unless it holds something that is not ours.
fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.remove_dir(dir) {
        Err(source) if source.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed.map_err(|source| Error::io("remove", dir, source)),
    }
}

fn remove_segments(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let entries = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let path: PathBuf = dir.join(&entry.name);
        let temporary = parse_temporary_segment_file_name(&entry.name).is_some();
        let ours = parse_segment_file_name(&entry.name).is_some() && has_topic_id(disk, &path, id)?;
        if temporary || ours {
            disk.remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    Ok(())
}

/// Whether a file belongs to a topic. A file that cannot be read now may belong to it: an error is
/// returned, so that the file does not remain when the next topic gets the name.
fn has_topic_id(disk: &dyn Disk, path: &Path, id: TopicId) -> Result<bool> {
    Ok(topic_id(disk, path)? == Some(id))
}

/// The topic that a file belongs to; `None` if its header is not valid.
fn topic_id(disk: &dyn Disk, path: &Path) -> Result<Option<TopicId>> {
    let mut bytes = [0; SegmentHeader::SIZE];
    let read = disk.open(path, Access::Read).and_then(|file| file.read_at(&mut bytes, 0));
    read.map_err(|source| Error::io("read", path, source))?;
    Ok(SegmentHeader::decode(&bytes).ok().map(|header| header.topic_id))
}
