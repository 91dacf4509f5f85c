//! Opens a data directory: to look at it, beside any process that writes to it; or to write, alone.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logpond::{Broker, Error, RecoveryPolicy};

use crate::failure::Failure;
use crate::holder;
use crate::output::note;
use crate::units::counted;

/// The directories of the broker's own state, one of which every data directory has, however
/// damaged.
const STATE: [&str; 3] = ["__meta", "__offsets", "__local"];

/// Opens a directory for reading. Takes no lock, writes nothing.
pub(crate) fn read_only(dir: &Path) -> Result<Broker, Failure> {
    check_is_data_dir(dir)?;
    let policy = RecoveryPolicy::ReadAroundDamage;
    Ok(Broker::builder().data_dir(dir).read_only(true).recovery(policy).open()?)
}

/// Says on standard error what an opening has found damaged.
pub(crate) fn note_damage(broker: &Broker) {
    let partitions = broker.recovery().partitions.iter();
    let damaged = partitions.filter(|partition| !partition.corrupt.is_empty()).count();
    if damaged > 0 {
        let partitions = counted(damaged as u64, "damaged partition");
        note(&format!("{partitions}; `logpond verify` lists the damage"));
    }
}

/// Opens an existing directory for writing. The caller has looked at it read-only before: an opening
/// for writing would make a directory of a mistyped path.
pub(crate) fn for_writing(dir: &Path, wait: Duration) -> Result<Broker, Failure> {
    let builder = Broker::builder().data_dir(dir).lock_wait(wait);
    // Which groups have expired is for the service to say, by its own settings.
    match builder.group_expiry(Duration::MAX).open() {
        Err(error) => Err(explain_lock(dir, error, true)),
        Ok(broker) => Ok(broker),
    }
}

/// Adds to an error about a lock which process has it. `waits`: the command has `--wait`.
pub(crate) fn explain_lock(dir: &Path, error: Error, waits: bool) -> Failure {
    match error {
        Error::Locked { path, .. } => Failure::InUse { path, holder: holder::describe(dir), waits },
        error => error.into(),
    }
}

/// The library makes an empty directory a data directory, and reads one as such. Here it is more
/// likely that the path is wrong.
fn check_is_data_dir(dir: &Path) -> Result<(), Failure> {
    check_is_dir(dir)?;
    if has_state(dir)? {
        return Ok(());
    }
    let reason = "it is not a data directory of logpond: it has no `__meta`";
    Err(Failure::NoDirectory { path: dir.to_path_buf(), reason })
}

/// Refuses to salvage a directory of something else. One that has lost all of the broker's own
/// state has topics, with files below `TOPIC/PARTITION`.
pub(crate) fn check_has_logs(dir: &Path) -> Result<(), Failure> {
    check_is_dir(dir)?;
    let is_partition = |path: &Path| path.file_name().is_some_and(is_number);
    let has_log = |path: PathBuf| entries(&path).any(|it| it.extension() == Some("log".as_ref()));
    let has_logs = |topic: PathBuf| entries(&topic).filter(|it| is_partition(it)).any(has_log);
    if has_state(dir)? || entries(dir).any(has_logs) {
        return Ok(());
    }
    let reason = "it is not a data directory of logpond: it has no `__meta` and no topic";
    Err(Failure::NoDirectory { path: dir.to_path_buf(), reason })
}

fn is_number(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// What is in a directory; nothing if it cannot be listed.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    dir.read_dir().into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether there is one of the directories that every data directory has.
fn has_state(dir: &Path) -> Result<bool, Failure> {
    for name in STATE {
        let path = dir.join(name);
        match path.try_exists() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(source) => return Err(Failure::Path { path, source }),
        }
    }
    Ok(false)
}

fn check_is_dir(dir: &Path) -> Result<(), Failure> {
    let reason = match dir.metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a directory",
        Err(error) if error.kind() == ErrorKind::NotFound => "there is no such directory",
        Err(source) => return Err(Failure::Path { path: dir.to_path_buf(), source }),
    };
    Err(Failure::NoDirectory { path: dir.to_path_buf(), reason })
}

/// Whether a new data directory may be made at a path: nothing is there, or an empty directory.
pub(crate) fn is_free(dir: &Path) -> bool {
    match dir.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
