//! A log that cannot be used in this run, because its directory, or a file in it, is missing or
//! cannot be read. The broker lists it with its known ends and changes no file of it. The next run
//! tries to open it again.

use std::io;
use std::sync::Arc;

use super::ends::Ends;
use super::open::{Known, PartitionRecovery};
use super::{Log, LogEnv, LogIdentity, LogOptions, Parts};
use crate::error::{Corruption, CorruptionKind, Error};
use crate::record::TopicPartition;

/// The damage of the files that made an opening of the log fail. `None` if the cause is another one
/// (no space, no descriptors, another format), which may be over at the next opening.
pub(crate) fn damage_of(identity: &LogIdentity, error: &Error) -> Option<Corruption> {
    match error {
        Error::Corrupt(damage) => Some(damage.clone()),
        Error::Io { operation, path, source } if is_of_files(operation, source) => {
            let reason = format!("cannot {operation} it: {source}");
            Some(Corruption {
                partition: Some(TopicPartition::clone(&identity.origin)),
                file: path.clone(),
                position: 0,
                offsets: None,
                kind: CorruptionKind::Unreadable(reason.into()),
            })
        }
        _ => None,
    }
}

/// Whether an error concerns the files themselves: they cannot be read, or may not be used. A
/// failed write says nothing about stored data.
fn is_of_files(operation: &str, source: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, PermissionDenied, TimedOut, WouldBlock};
    /// ENFILE and EMFILE: of the system, and of the process.
    const DESCRIPTORS: [i32; 2] = [23, 24];
    let lacks_descriptors = source.raw_os_error().is_some_and(|code| DESCRIPTORS.contains(&code));
    let reads = operation.starts_with("read") || ["list", "open", "look at"].contains(&operation);
    match source.kind() {
        Interrupted | OutOfMemory | TimedOut | WouldBlock => false,
        PermissionDenied => true,
        _ => reads && !lacks_descriptors,
    }
}

/// A log without segments, with the known ends.
pub(crate) fn unavailable_log(
    env: &Arc<LogEnv>,
    identity: LogIdentity,
    options: LogOptions,
    known: &Known,
    damage: &Corruption,
) -> (Log, PartitionRecovery) {
    let start = known.start().unwrap_or(0);
    let end = known.checkpoint.as_ref().map_or(0, |point| point.end_offset).max(start);
    let report = PartitionRecovery {
        topic: Arc::clone(&identity.origin.topic),
        partition: identity.origin.partition,
        end_offset: end,
        cut_bytes: 0,
        corrupt: vec![damage.clone()],
        cuts_batches: false,
    };
    let mut parts = Parts::empty(env, identity, options);
    parts.ends = Ends::found(start, end, end);
    (Log::new(parts), report)
}
