//! Which process has a directory open for writing, as far as Linux tells: `/proc/locks` lists locks
//! by inode, and the files that a process has open confirm it.
//!
//! For messages only. Nothing is decided by it: the process may have ended since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::text::escape;

/// The lock file of a data directory.
const LOCK: &str = "LOCK";

/// `process 4711 (mailer)`, or `another process` where it cannot be found out: a process of another
/// user, or in another container. The text is escaped.
pub(crate) fn describe(dir: &Path) -> String {
    let found =
        find(&dir.join(LOCK)).map(|pid| match fs::read_to_string(format!("/proc/{pid}/comm")) {
            // A process chooses its name itself.
            Ok(name) => format!("process {pid} ({})", escape(name.trim_end())),
            Err(_) => format!("process {pid}"),
        });
    found.unwrap_or_else(|| "another process".to_owned())
}

fn find(lock: &Path) -> Option<u32> {
    let file = fs::metadata(lock).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holders(&locks, file.ino()).into_iter().find(|pid| has_open(*pid, &file))
}

/// The processes that have a lock on a file with this number, on any file system.
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        // `1: FLOCK  ADVISORY  WRITE 4711 08:02:131076 0 EOF`
        let mut words = line.split_whitespace().skip(4);
        let (pid, file) = (words.next()?, words.next()?);
        let number: u64 = file.rsplit(':').next()?.parse().ok()?;
        if number == inode { pid.parse().ok() } else { None }
    };
    locks.lines().filter_map(holder).collect()
}

fn has_open(pid: u32, file: &fs::Metadata) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|descriptor| {
        let found = fs::metadata(descriptor.path());
        found.is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_an_inode_is_found() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4711 08:02:131076 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 9 08:02:131076 0 EOF\n\
                     2: POSIX  ADVISORY  READ 12 00:31:7 128 128\nmalformed\n";
        assert_eq!(holders(locks, 131_076), [4711]);
        assert_eq!(holders(locks, 7), [12]);
        assert!(holders(locks, 8).is_empty());
    }
}
