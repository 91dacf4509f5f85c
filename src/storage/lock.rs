//! The lock of a data directory: one broker per directory.
//!
//! Owns the file `LOCK` in it, and the list of the directories that this process has open. Must
//! not know what else is in the directory. Called when a broker opens and closes, from any thread,
//! without other locks.
//!
//! 1. At most one [`DirLock`] exists per directory, whatever path led to it: the system's lock
//!    keeps other processes out, the list by (device, inode) this one, where a lock taken twice
//!    is easily given back by the first close.
//! 2. The engine never deletes `LOCK`: a process that opened the deleted file and one that creates
//!    a new file would both have a lock. In case another program deletes it, the directory itself
//!    is locked too, and a lock counts only while the locked file is the one with this name.
//! 3. The kernel frees both locks when the process dies.
//! 4. A broker that maps files never locks a directory that every user may write to.
//!
//! A forked child inherits the descriptors, and with them a share of the locks: they stay taken
//! until the parent releases them, or both have ended (or the child runs another program, which
//! closes them). The child never unlocks.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Weak};
use std::time::Duration;

use super::platform::{self, Access, Identity};
use crate::clock::real_now;
use crate::error::{Error, LockHolder, Result};
use crate::sync::{Condvar, LockLevel, Mutex};

const FILE_NAME: &str = "LOCK";

/// LIMIT: how long an opening waits for the lock unless a setting says otherwise: for a process that
/// is about to end, not for one that continues.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_millis(250);

/// LIMIT: how long `acquire` waits at least for a holder in this process that is closing: its last
/// syncs and thread joins.
const CLOSING_WAIT: Duration = Duration::from_secs(1);

/// LIMIT: how often a lock is tried again that another process has: it cannot notify this one
/// when it releases the lock.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// LIMIT: how often a lock file that is replaced while it is being locked is tried again.
const ATTEMPTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Staying,
    Closing,
}

/// Which directory; by path where the system has no identity for it.
type Key = (Identity, PathBuf);

/// What counts the handles of a broker: it is held once by each of them.
pub(crate) type Handles = Weak<dyn Any + Send + Sync>;

#[derive(Debug)]
struct Entry {
    holder: Holder,
    /// `None` until the broker is open.
    handles: Option<Handles>,
}

#[derive(Debug)]
struct Registry {
    holders: Mutex<BTreeMap<Key, Entry>>,
    freed: Condvar,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry {
    holders: Mutex::at_level(LockLevel::LockedDirs, BTreeMap::new()),
    freed: Condvar::new(),
});

/// A directory that is ours until this is dropped.
pub(crate) struct DirLock {
    entry: RegistryEntry,
    files: Files,
    path: PathBuf,
    process: u32,
}

impl DirLock {
    /// Takes the lock. Waits up to `wait` for any holder, in this process or another, and at least
    /// a second for one in this process that has said that it is closing; then it is
    /// [`Error::Locked`].
    pub(crate) fn acquire(dir: &Path, wait: Duration) -> Result<Self> {
        Self::take(dir, check_owner, Files::lock, for_at_most(wait))
    }

    /// Takes the lock of a directory in which nothing may be written, by what is there: `LOCK`, if
    /// any broker was ever in it, and the directory itself. Whose it is does not matter to who maps
    /// nothing of it. Otherwise as [`acquire`](Self::acquire) with the default wait.
    pub(crate) fn acquire_read_only(dir: &Path) -> Result<Self> {
        Self::take(dir, |_, _| Ok(()), Files::lock_what_is_there, for_at_most(DEFAULT_WAIT))
    }

    /// Each attempt looks anew at what the path leads to, and holds nothing until the next. `wait`
    /// returns when it is time for that; false when there is to be none.
    fn take(
        dir: &Path,
        check: impl Fn(&Path, &Metadata) -> Result<()>,
        lock: impl Fn(&Path) -> Result<Files>,
        mut wait: impl FnMut(Holder) -> bool,
    ) -> Result<Self> {
        loop {
            let metadata = platform::retried(|| std::fs::metadata(dir))
                .map_err(|error| Error::io("open", dir, error))?;
            check(dir, &metadata)?;
            let (holder, by) = match RegistryEntry::take(dir, &metadata)? {
                Ok(entry) => match lock(dir) {
                    Ok(files) => {
                        let (path, process) = (dir.to_path_buf(), std::process::id());
                        return Ok(Self { entry, files, path, process });
                    }
                    Err(Error::Locked { holder, .. }) => (Holder::Staying, holder),
                    Err(error) => return Err(error),
                },
                Err((holder, handles)) => {
                    let is_closing = holder == Holder::Closing;
                    (holder, LockHolder::ThisProcess { handles, is_closing })
                }
            };
            if !wait(holder) {
                return Err(locked(dir, by));
            }
        }
    }

    /// Lets `acquire` in this process wait for the lock from now on.
    pub(crate) fn announce_closing(&self) {
        if let Some(entry) = REGISTRY.holders.lock().get_mut(&self.entry.key) {
            entry.holder = Holder::Closing;
        }
    }

    /// Counts the handles that keep the holder open, for the error of who else wants the lock.
    pub(crate) fn count_handles(&self, handles: Handles) {
        if let Some(entry) = REGISTRY.holders.lock().get_mut(&self.entry.key) {
            entry.handles = Some(handles);
        }
    }

    #[cfg(test)]
    /// Whether `LOCK` is still the file that was locked: not deleted and not replaced.
    pub(crate) fn is_intact(&self) -> bool {
        let lock = self.files.lock.as_ref();
        lock.is_some_and(|lock| names_the_file(&self.path.join(FILE_NAME), lock))
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // A child that unlocked would unlock for its parent: the lock belongs to the open file,
        // which they share. The parent unlocks, rather than only closing, because a child that
        // it started may hold the descriptor for a long time.
        if self.process == std::process::id() {
            self.files.unlock();
        }
        // `entry` is dropped after this, so who waits for it finds the files unlocked.
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirLock").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The waits between the attempts of an opening that waits so long in all, in real time.
fn for_at_most(wait: Duration) -> impl FnMut(Holder) -> bool {
    let begun = real_now();
    move |holder| {
        let wait = match holder {
            Holder::Staying => wait,
            Holder::Closing => wait.max(CLOSING_WAIT),
        };
        let now = real_now();
        let left = wait.saturating_sub(now.saturating_duration_since(begun));
        if left.is_zero() {
            return false;
        }
        // A holder in this process notifies when it is dropped. If it did before this waits, or is
        // another process, the next attempt comes soon.
        let holders = REGISTRY.holders.lock();
        drop(REGISTRY.freed.wait_until(holders, now + left.min(TRY_EVERY)));
        true
    }
}

/// An entry in the list of this process.
#[derive(Debug)]
struct RegistryEntry {
    key: Key,
}

impl RegistryEntry {
    /// The entry; or what its holder does, and how many handles keep it open.
    fn take(dir: &Path, metadata: &Metadata) -> Result<std::result::Result<Self, (Holder, usize)>> {
        let path = if cfg!(unix) {
            PathBuf::new()
        } else {
            dir.canonicalize().map_err(|error| Error::io("open", dir, error))?
        };
        let key = (platform::identity(metadata), path);
        let mut holders = REGISTRY.holders.lock();
        if let Some(entry) = holders.get(&key) {
            let handles = entry.handles.as_ref().map_or(0, Weak::strong_count);
            return Ok(Err((entry.holder, handles)));
        }
        holders.insert(key.clone(), Entry { holder: Holder::Staying, handles: None });
        Ok(Ok(Self { key }))
    }
}

impl Drop for RegistryEntry {
    fn drop(&mut self) {
        REGISTRY.holders.lock().remove(&self.key);
        REGISTRY.freed.notify_all();
    }
}

/// The locks that other processes see.
struct Files {
    /// `None` where nothing may be made and no broker has been.
    lock: Option<File>,
    /// `None` where a directory cannot be locked.
    dir: Option<File>,
}

impl Files {
    fn lock(dir: &Path) -> Result<Self> {
        Self::lock_by(dir, |path| platform::open_or_create(path).map(Some))
    }

    fn lock_what_is_there(dir: &Path) -> Result<Self> {
        Self::lock_by(dir, |path| match platform::open(path, Access::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        })
    }

    fn lock_by(dir: &Path, open: impl Fn(&Path) -> io::Result<Option<File>>) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let lock_dir = platform::open_dir(dir).ok();
        let lock_dir = match lock_dir.as_ref().map(try_lock) {
            Some(Ok(())) => lock_dir,
            Some(Err(TryLockError::WouldBlock)) => {
                return Err(locked(dir, LockHolder::OtherProcess));
            }
            // Some network file systems lock only what is open for writing; `LOCK` remains.
            Some(Err(TryLockError::Error(_))) | None => None,
        };
        for _ in 0..ATTEMPTS {
            let lock = open(&path).map_err(|error| Error::io("open", &path, error))?;
            let Some(lock) = lock else {
                return Ok(Self { lock, dir: lock_dir });
            };
            match try_lock(&lock) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(locked(dir, LockHolder::OtherProcess)),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
            // Between opening and locking the file can have been deleted, and another created.
            if names_the_file(&path, &lock) {
                return Ok(Self { lock: Some(lock), dir: lock_dir });
            }
        }
        Err(locked(dir, LockHolder::OtherProcess))
    }

    /// Best effort: closing the descriptors does it as well, unless a child has them too.
    fn unlock(&self) {
        for file in self.lock.iter().chain(&self.dir) {
            let _closing_follows = file.unlock();
        }
    }
}

fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    loop {
        match file.try_lock() {
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn names_the_file(path: &Path, file: &File) -> bool {
    let named = platform::retried(|| std::fs::symlink_metadata(path));
    match (named, platform::metadata(file)) {
        (Ok(named), Ok(held)) => platform::identity(&named) == platform::identity(&held),
        _ => false,
    }
}

/// Refuses a directory in which anybody could put files of their own where ours are looked for:
/// the bytes of a map are ours only as long as the file is.
fn check_owner(dir: &Path, metadata: &Metadata) -> Result<()> {
    if !platform::is_open_to_all(metadata) {
        return Ok(());
    }
    let reason = format!(
        "every user may change what is in {}; a directory of its own below it is made for one user",
        dir.display()
    );
    Err(Error::config("data_dir", reason))
}

fn locked(dir: &Path, holder: LockHolder) -> Error {
    Error::Locked { path: dir.to_path_buf(), holder }
}

#[cfg(test)]
mod tests;
