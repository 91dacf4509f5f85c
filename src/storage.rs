//! Bytes at rest: memory that readers share, disks that hold files, and the lock on a directory.
//!
//! Owns every operating-system call of the crate that concerns files, and all of its unsafe code
//! (the folder `region/`). Must not know what the bytes mean: no segments, batches, offsets or topics.
//!
//! | file | owns |
//! |---|---|
//! | `platform.rs` | what differs between Linux and the portable fallback |
//! | `region.rs` | the memory of a file or a copy, one writer, any number of readers |
//! | `disk.rs` | the traits; below it the real disk, the heap and the simulated disk |
//! | `region_writer.rs` | the one writer: the file first, then memory |
//! | `lock.rs` | one broker per directory |
//! | `process.rs` | whether this is a forked child |

pub(crate) mod disk;
pub(crate) mod lock;
mod platform;
pub(crate) mod process;
pub(crate) mod region;
pub(crate) mod region_writer;
