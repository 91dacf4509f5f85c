//! Opens a data directory: to look at it, beside any process that writes to it; or to write, alone.

use std::path::Path;
use std::time::Duration;

use logpond::{Broker, Error, RecoveryPolicy};

use crate::failure::Failure;
use crate::holder;
use crate::output::note;

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
        note(&format!("{damaged} damaged partitions; `logpond verify` lists the damage"));
    }
}

/// Opens an existing directory for writing. The caller has looked at it read-only before: an opening
/// for writing would make a directory of a mistyped path.
pub(crate) fn for_writing(dir: &Path, wait: Duration) -> Result<Broker, Failure> {
    let builder = Broker::builder().data_dir(dir).lock_wait(wait);
    // Which groups have expired is for the service to say, by its own settings.
    match builder.group_expiry(Duration::MAX).open() {
        Err(error) => Err(explain_lock(dir, error)),
        Ok(broker) => Ok(broker),
    }
}

/// Adds to an error about a lock which process has it.
pub(crate) fn explain_lock(dir: &Path, error: Error) -> Failure {
    match error {
        Error::Locked { path, .. } => Failure::InUse { path, holder: holder::describe(dir) },
        error => error.into(),
    }
}

/// The library makes an empty directory a data directory, and reads one as such. Here it is more
/// likely that the path is wrong.
fn check_is_data_dir(dir: &Path) -> Result<(), Failure> {
    check_is_dir(dir)?;
    if STATE.iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    let reason = "it is not a data directory of logpond: it has no `__meta`";
    Err(Failure::NoDirectory { path: dir.to_path_buf(), reason })
}

/// All that is asked of a directory to be salvaged.
pub(crate) fn check_is_dir(dir: &Path) -> Result<(), Failure> {
    let reason = match dir.metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a directory",
        Err(_) => "there is no such directory",
    };
    Err(Failure::NoDirectory { path: dir.to_path_buf(), reason })
}

/// Whether a new data directory may be made at a path: nothing is there, or an empty directory.
pub(crate) fn is_free(dir: &Path) -> bool {
    match dir.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
