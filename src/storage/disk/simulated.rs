//! A disk that loses power: the crash tests run the engine on it.
//!
//! Owns a model of what a file system may do to bytes and names that were not synced, and the
//! faults that a test injects. Must not know what the bytes mean. Deterministic: one seed, no
//! time, no threads of its own; one lock around everything.
//!
//! 1. After a successful `sync` of a file its bytes and length, as they were at the call, survive
//!    every power cut. Names survive only after `sync_dir` of the directory that holds them.
//! 2. Without it each page survives in any of its versions since the last sync ([`image`]).
//! 3. A failed sync makes each page durable or not, and all of them clean: the next sync returns
//!    Ok and writes nothing of them. The page may also revert to what is durable.
//! 4. Every change goes through one counter, [`store_points`](SimulatedDisk::store_points), at
//!    each value of which the disk can be made to stop.
//! 5. A disk made by a crash shares nothing with the one before.
//! 6. A disk that [lies](SimulatedDisk::lie) says that it has synced, and has not.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::faults::Faults;
#[cfg(not(test))]
use self::faults::Operation;
use self::file::SimulatedFile;
use self::image::Change;
use self::page::Content;
use super::names::{Names, Node};
use super::{Access, Disk, DiskFile, Entry, EntryKind};
use crate::random::Random;
use crate::sync::Mutex;

#[cfg(test)]
mod exact;
mod faults;
mod file;
mod image;
mod page;

pub(crate) use self::image::PowerCut;
#[cfg(test)]
#[allow(
    unused_imports,
    reason = "the vocabulary of power cuts, for the tests of higher rooms"
)]
pub(crate) use self::{
    exact::Images,
    faults::{Fault, Operation},
    image::{Metadata, Pages},
};

/// The marker of everything that fails because the power is off.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the simulated machine is off")]
struct PowerIsOff;

/// A disk in the heap that can lose, tear and refuse. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

type FileId = u64;

#[derive(Debug, Clone)]
struct State {
    names: Names<FileId>,
    journal: Journal,
    files: BTreeMap<FileId, Content>,
    next_file: FileId,
    points: Points,
    faults: Faults,
    /// Whether syncs return Ok and do nothing.
    lies: bool,
    limit: Option<u64>,
    random: Random,
    /// How often the machine was started.
    boots: u64,
}

/// What a power cut leaves of the names.
#[derive(Debug, Clone, Default)]
struct Journal {
    /// The names that survive for certain.
    durable: Names<FileId>,
    /// What happened to names since, in order.
    pending: Vec<Change<FileId>>,
}

/// The store points of a disk.
#[derive(Debug, Clone, Default)]
struct Points {
    passed: u64,
    stop_after: Option<u64>,
    /// The disk as it was after each change since it was asked to record them.
    history: Option<Vec<State>>,
}

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        Self::with_seed(1)
    }

    /// The seed decides what a failed sync does to each page.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self::with_state(State::new(Names::default(), BTreeMap::new(), seed))
    }

    fn with_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many changes the disk has seen: each is a point at which a crash can be tried.
    pub(crate) fn store_points(&self) -> u64 {
        self.state.lock().points.passed
    }

    /// Makes the disk stop after its `point`-th change: every later call fails.
    pub(crate) fn crash_at(&self, point: u64) {
        self.state.lock().points.stop_after = Some(point);
    }

    /// Whether a call has failed because of `crash_at`, or the next change would.
    pub(crate) fn is_off(&self) -> bool {
        self.state.lock().is_off()
    }

    /// Whether an error means that the simulated machine is off.
    #[cfg(test)]
    pub(crate) fn is_crash(error: &io::Error) -> bool {
        error.get_ref().is_some_and(
            <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<
                PowerIsOff,
            >,
        )
    }

    /// Adds a fault; several may wait at once.
    #[cfg(test)]
    pub(crate) fn inject(&self, fault: Fault) {
        self.state.lock().faults.inject(fault);
    }

    /// Removes all faults that are still to come.
    #[cfg(test)]
    pub(crate) fn heal(&self) {
        self.state.lock().faults.heal();
    }

    /// Whether an injected fault has made a call fail.
    #[cfg(test)]
    pub(crate) fn has_fired(&self) -> bool {
        self.state.lock().faults.has_fired()
    }

    /// How many faults are still to come.
    #[cfg(test)]
    pub(crate) fn faults_to_come(&self) -> usize {
        self.state.lock().faults.to_come()
    }

    /// Limits the sum of all files' lengths; `None` lifts the limit.
    #[cfg(test)]
    pub(crate) fn limit_capacity(&self, bytes: Option<u64>) {
        self.state.lock().limit = bytes;
    }

    /// The disk after a power cut: one of the images that may be found then.
    pub(crate) fn power_cut(&self, random: &mut impl FnMut() -> u64, how: PowerCut) -> Self {
        let state = self.state.lock();
        let names = image::names(&state.journal.durable, &state.journal.pending, random, how);
        let files = image::files(&state.files, &names, random, how);
        Self::with_state(state.after_cut(names, files, random()))
    }

    /// Remembers what the disk is after each change from now on.
    #[cfg(test)]
    pub(crate) fn record(&self) {
        self.state.lock().points.history = Some(Vec::new());
    }

    /// The disks of which [`record`](Self::record) took note: the first as it was then, each as it
    /// was before the next change, and the last as it is now.
    #[cfg(test)]
    pub(crate) fn recorded(&self) -> Vec<Self> {
        let mut state = self.state.lock();
        let mut states = state.points.history.take().unwrap_or_default();
        states.push(state.clone());
        states.into_iter().map(Self::with_state).collect()
    }

    /// From now on syncs, of files and of directories, return Ok and make nothing durable.
    #[cfg(test)]
    pub(crate) fn lie(&self) {
        self.state.lock().lies = true;
    }

    /// The disk after the death of the process: everything written is there, and what was not
    /// synced can still be lost by a later power cut.
    pub(crate) fn kill9(&self) -> Self {
        let mut state = self.state.lock().without_history();
        state.points = Points::default();
        state.faults = Faults::default();
        Self::with_state(state)
    }

    /// All paths of files, sorted.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.files().map(|(path, _)| path.clone()).collect()
    }

    /// A file's bytes.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let content = state.content_at(path)?;
        let mut bytes = vec![0; usize::try_from(content.length).unwrap_or_default()];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Flips bits of one byte on the medium, past every rule.
    pub(crate) fn corrupt(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.content_at(path)?;
        if position >= content.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut byte = [0];
        content.read(&mut byte, position);
        content.write(&byte.map(|byte| byte ^ mask), position);
        content.make_durable();
        Ok(())
    }

    /// Sets a file's length on the medium, past every rule.
    #[cfg(test)]
    pub(crate) fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.content_at(path)?;
        content.truncate(length);
        content.make_durable();
        Ok(())
    }

    /// Makes everything durable but the files that are left out: a later power cut can still take
    /// what was not synced of them.
    #[cfg(feature = "testing")]
    pub(crate) fn sync_all_but(&self, is_left_out: impl Fn(&Path) -> bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (_, file) in state.names.files().filter(|(path, _)| !is_left_out(path)) {
            if let Some(content) = state.files.get_mut(file) {
                content.make_durable();
            }
        }
        let pending = std::mem::take(&mut state.journal.pending);
        image::apply(&mut state.journal.durable, pending);
    }

    fn handle(&self, file: FileId, path: &Path, access: Access) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile::new(self, file, path, access))
    }
}

impl State {
    /// All of it durable, on a machine that starts for the first time.
    fn new(names: Names<FileId>, files: BTreeMap<FileId, Content>, seed: u64) -> Self {
        Self {
            journal: Journal { durable: names.clone(), pending: Vec::new() },
            names,
            files,
            next_file: 0,
            points: Points::default(),
            faults: Faults::default(),
            lies: false,
            limit: None,
            random: Random::new(seed),
            boots: 1,
        }
    }

    /// What is on the disk when the machine starts again.
    fn after_cut(&self, names: Names<FileId>, files: BTreeMap<FileId, Content>, seed: u64) -> Self {
        let (next_file, limit, boots) = (self.next_file, self.limit, self.boots + 1);
        Self { next_file, limit, boots, ..Self::new(names, files, seed) }
    }

    fn without_history(&mut self) -> Self {
        let history = self.points.history.take();
        let state = self.clone();
        self.points.history = history;
        state
    }

    /// Counts a call, and lets it fail if that was asked for.
    fn enter(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other(PowerIsOff));
        }
        if operation.is_change() {
            if let Some(mut history) = self.points.history.take() {
                history.push(self.clone());
                self.points.history = Some(history);
            }
            self.points.passed += 1;
        }
        self.faults.meet(operation, path)
    }

    fn is_off(&self) -> bool {
        self.points.stop_after.is_some_and(|point| self.points.passed >= point)
    }

    fn content(&mut self, file: FileId) -> io::Result<&mut Content> {
        self.files.get_mut(&file).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// A write-back of the file's pages has failed: some of them are lost, and all count as clean.
    fn lose_writes(&mut self, file: FileId) -> io::Result<()> {
        let mut coins = self.random.next();
        self.content(file)?.fail_sync(|| {
            coins = coins.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            coins >> 33
        });
        Ok(())
    }

    fn content_at(&mut self, path: &Path) -> io::Result<&mut Content> {
        let file = *self.names.file(path)?;
        self.content(file)
    }

    /// How far a file may grow; `wanted` without a limit.
    fn room(&self, file: FileId, wanted: u64) -> u64 {
        let Some(limit) = self.limit else {
            return wanted;
        };
        let others = self.names.files().filter(|(_, id)| **id != file);
        let used: u64 = others.filter_map(|(_, id)| self.files.get(id)).map(|c| c.length).sum();
        wanted.min(limit.saturating_sub(used))
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Operation::CreateDir, path)?;
        state.names.insert(path, Node::Directory)?;
        state.journal.pending.push(Change::CreateDir(path.to_path_buf()));
        Ok(())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let mut state = self.state.lock();
        state.enter(Operation::Open, path)?;
        Ok(state.names.kind(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock();
        state.enter(Operation::Read, dir)?;
        state.names.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.names.directory(dir)?;
        state.enter(Operation::SyncDir, dir)?;
        if state.lies {
            return Ok(());
        }
        let pending = std::mem::take(&mut state.journal.pending);
        let (synced, others) = pending.into_iter().partition(|change| change.dir() == Some(dir));
        state.journal.pending = others;
        image::apply(&mut state.journal.durable, synced);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Operation::Rename, from)?;
        let file = *state.names.file(from)?;
        state.names.rename(from, to)?;
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        if from.parent() == to.parent() {
            state.journal.pending.push(Change::Rename { from, to, file });
        } else {
            // Each of the directories has its part of it, and is synced alone.
            state.journal.pending.push(Change::Create { path: to, file });
            state.journal.pending.push(Change::Remove { path: from, file });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Operation::Remove, path)?;
        let file = state.names.remove_file(path)?;
        state.journal.pending.push(Change::Remove { path: path.to_path_buf(), file });
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Operation::Remove, path)?;
        state.names.remove_dir(path)?;
        state.journal.pending.push(Change::RemoveDir(path.to_path_buf()));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.enter(Operation::Create, path)?;
        let file = state.next_file;
        state.names.insert(path, Node::File(file))?;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.journal.pending.push(Change::Create { path: path.to_path_buf(), file });
        Ok(self.handle(file, path, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.enter(Operation::Open, path)?;
        let file = *state.names.file(path)?;
        Ok(self.handle(file, path, access))
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.state.lock().boots.to_string())
    }

    /// Every store has to come through `write_at`, where it is a store point.
    fn supports_mapped_writes(&self, _dir: &Path) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
