//! Calls of the operating system beyond std, and their replacement on other platforms than Linux.
//!
//! Owns flags, file identity, space and positional I/O. Must not know: disks, regions. They call
//! it, as the directory lock does, from any thread, holding at most a lock of their own file. On Linux
//! this is rustix; elsewhere std alone, which compiles and is declared untested.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What a directory entry is. Symbolic links are not followed: they are [`EntryKind::Other`], as
/// are FIFOs, sockets and devices, and nothing of that kind is ever opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Other,
}

/// How a file is opened or mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Which file this is, whatever name led to it. Equal for all files where the system cannot tell.
pub(super) type Identity = (u64, u64);

/// LIMIT: how many zeros are written by one call where a file system cannot allocate.
const ZEROS: usize = 64 * 1024;

#[cfg(unix)]
pub(super) fn identity(metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(super) fn identity(_metadata: &std::fs::Metadata) -> Identity {
    (0, 0)
}

/// How many names a file has.
#[cfg(unix)]
pub(super) fn names(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
pub(super) fn names(_metadata: &std::fs::Metadata) -> u64 {
    1
}

/// Whether every user of the machine may make, rename and remove entries of a directory.
#[cfg(unix)]
pub(super) fn is_open_to_all(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o002 != 0
}

#[cfg(not(unix))]
pub(super) fn is_open_to_all(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// What tells this boot of the machine from any other.
#[cfg(target_os = "linux")]
pub(super) fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn boot_id() -> Option<String> {
    None
}

/// Makes a call again that a signal interrupted: std does so for reads, writes and syncs, and not
/// for names, locks and metadata.
pub(super) fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        let result = call();
        let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        if !result.as_ref().is_err_and(interrupted) {
            return result;
        }
    }
}

pub(super) fn metadata(file: &File) -> io::Result<std::fs::Metadata> {
    retried(|| file.metadata())
}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    retried(|| builder.create(path))
}

/// Refuses what is not a regular file. A FIFO or device must not have been waited for by `open`.
fn regular(file: File) -> io::Result<File> {
    if metadata(&file)?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// For file systems that cannot refuse to replace. The directory lock (M5) keeps anybody from
/// coming between the two steps.
#[expect(clippy::disallowed_methods, reason = "the real disk is who may")]
fn checked_rename(from: &Path, to: &Path) -> io::Result<()> {
    match retried(|| std::fs::symlink_metadata(to)) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            retried(|| std::fs::rename(from, to))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn kind(kind: std::fs::FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::Other
    }
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled: usize = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = position.checked_add(filled as u64).ok_or(io::ErrorKind::InvalidInput)?;
        match read_some(file, rest, at) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(super) fn write_at(file: &File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = match write_some(file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes = bytes.get(count..).unwrap_or_default();
        position = position.checked_add(count as u64).ok_or(io::ErrorKind::InvalidInput)?;
    }
    Ok(())
}

/// Allocates by writing, for file systems and systems that know no other way. Space that merely
/// counts as length would fail later, at a store, as a signal.
fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut position = range.start;
    while position < range.end {
        let left = usize::try_from(range.end - position).unwrap_or(ZEROS).min(ZEROS);
        write_at(file, zeros.get(..left).unwrap_or_default(), position)?;
        position = position.saturating_add(left as u64);
    }
    Ok(())
}

#[cfg(unix)]
fn read_some(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, position)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, position)
}

#[cfg(windows)]
fn read_some(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, position)
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, position)
}

#[cfg(not(any(unix, windows)))]
fn read_some(_file: &File, _buffer: &mut [u8], _position: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(any(unix, windows)))]
fn write_some(_file: &File, _bytes: &[u8], _position: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
pub(super) use self::linux::*;
#[cfg(not(target_os = "linux"))]
pub(super) use self::portable::*;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::path::Path;

    use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags, fallocate, renameat_with};
    use rustix::io::{Errno, retry_on_intr};
    use rustix::process::{Resource, getrlimit};

    use super::{Access, checked_rename, regular, write_zeros};

    /// LIMIT: file systems known to keep an allocated block where it is until it is stored into.
    /// Anything else (btrfs, ZFS, bcachefs, overlay, NFS, FUSE, and what comes next) may need
    /// space again at the store; XFS after a reflink copy too, which a copier has to answer for.
    const IN_PLACE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

    fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
        // A link in the last component is not followed: another user who may write to the directory
        // must not be able to point us at another file.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(retry_on_intr(|| rustix::fs::open(path, flags, mode))?.into())
    }

    pub(in super::super) fn create(path: &Path) -> io::Result<File> {
        open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    pub(in super::super) fn open(path: &Path, access: Access) -> io::Result<File> {
        let access = match access {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // NONBLOCK: opening a FIFO returns at once, and is then refused.
        regular(open_with(path, access | OFlags::NONBLOCK)?)
    }

    pub(in super::super) fn open_or_create(path: &Path) -> io::Result<File> {
        regular(open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK)?)
    }

    pub(in super::super) fn open_dir(path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?.into())
    }

    pub(in super::super) fn sync_dir(path: &Path) -> io::Result<()> {
        open_dir(path)?.sync_all()
    }

    pub(in super::super) fn allocate(file: &File, range: Range<u64>) -> io::Result<()> {
        let Some(length) = range.end.checked_sub(range.start).filter(|length| *length > 0) else {
            return Ok(());
        };
        // EINVAL must mean that the file system cannot, not that the range is out of bounds: the
        // fallback would write zeros until the disk is full.
        if i64::try_from(range.end).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), range.start, length)) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => write_zeros(file, range),
            result => Ok(result?),
        }
    }

    /// Runs a `MADV_POPULATE_WRITE` until it is done; see `Region::populate`.
    pub(in super::super) fn populated(advise: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            let Err(error) = advise() else { return Ok(()) };
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::INTR | Errno::AGAIN) => {}
                // The kernel does not know the advice; the caller has allocated.
                Some(Errno::INVAL) => return Ok(()),
                // What a store would have died of: no block could be had, or the medium failed.
                // The kernel does not say which; the first is more common, and can pass.
                Some(Errno::FAULT) => {
                    return Err(io::Error::new(io::ErrorKind::StorageFull, error));
                }
                _ => return Err(error),
            }
        }
    }

    pub(in super::super) fn release(file: &File, range: Range<u64>) -> io::Result<()> {
        let Some(length) = range.end.checked_sub(range.start).filter(|length| *length > 0) else {
            return Ok(());
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(file, flags, range.start, length)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(in super::super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
        match retry_on_intr(|| renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)) {
            Err(Errno::INVAL | Errno::NOSYS) => checked_rename(from, to),
            result => Ok(result?),
        }
    }

    pub(in super::super) fn keeps_blocks_in_place(dir: &Path) -> bool {
        let answer = retry_on_intr(|| rustix::fs::statfs(dir));
        answer.is_ok_and(|answer| u64::try_from(answer.f_type).is_ok_and(is_in_place))
    }

    /// Whether a file system, by the type that `statfs` gives, keeps an allocated block in place.
    pub(super) fn is_in_place(magic: u64) -> bool {
        IN_PLACE.contains(&magic)
    }

    /// The machine's own: 4 KiB, or 16 or 64 on some ARM and POWER systems.
    pub(in super::super) fn page_size() -> usize {
        rustix::param::page_size()
    }

    /// How many descriptors the process may have; `None` without a limit.
    pub(in super::super) fn descriptor_limit() -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::ops::Range;
    use std::path::Path;

    use super::{Access, checked_rename, regular, write_zeros};

    /// Refuses a link by asking first: std has no flag for it.
    fn no_link(path: &Path) -> io::Result<()> {
        match super::retried(|| std::fs::symlink_metadata(path)) {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
    }

    pub(in super::super) fn create(path: &Path) -> io::Result<File> {
        options().write(true).create_new(true).open(path)
    }

    pub(in super::super) fn open(path: &Path, access: Access) -> io::Result<File> {
        no_link(path)?;
        regular(options().write(access == Access::ReadWrite).open(path)?)
    }

    pub(in super::super) fn open_or_create(path: &Path) -> io::Result<File> {
        no_link(path)?;
        regular(options().write(true).create(true).truncate(false).open(path)?)
    }

    #[cfg(unix)]
    pub(in super::super) fn open_dir(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    /// Elsewhere a directory cannot be opened as a file.
    #[cfg(not(unix))]
    pub(in super::super) fn open_dir(_path: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(unix)]
    pub(in super::super) fn sync_dir(path: &Path) -> io::Result<()> {
        open_dir(path)?.sync_all()
    }

    /// Windows logs names in its journal and has no call for more.
    #[cfg(not(unix))]
    pub(in super::super) fn sync_dir(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn allocate(file: &File, range: Range<u64>) -> io::Result<()> {
        write_zeros(file, range)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of the Linux function")]
    pub(in super::super) fn release(_file: &File, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
        checked_rename(from, to)
    }

    pub(in super::super) fn keeps_blocks_in_place(_dir: &Path) -> bool {
        false
    }

    /// LIMIT: a guess that every system allows.
    #[expect(clippy::unnecessary_wraps, reason = "the shape of the Linux function")]
    pub(in super::super) fn descriptor_limit() -> Option<u64> {
        Some(256)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
