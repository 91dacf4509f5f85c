//! Write-back of a range of a file: what goes to the device, and is waited for there.
//!
//! Must not know what is in the file. Only the system call needs unsafe code: neither std nor
//! rustix has it.
//!
//! - D1 **The call is given a descriptor and numbers, and touches no memory**. The descriptor is
//!   open: its file is borrowed for the call.
#![allow(unsafe_code, reason = "a system call that neither std nor rustix has")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::invalid;

/// One of the two calls that write a range back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum WriteBack {
    /// Has the kernel write the changed pages of the range. Waits only if the device's queue is full.
    Start,
    /// Waits until the device has what was started of the range.
    Wait,
}

/// Makes one of the two calls. What is written back is not durable: the device may still hold it in
/// its cache, and the file's length and blocks are metadata, which is not written.
///
/// # Errors
///
/// `Unsupported` where the kernel or the file system cannot. Otherwise the error of the device: the
/// kernel then reports nothing of it to this descriptor's next sync.
pub(in crate::storage) fn write_back(
    file: &File,
    range: Range<u64>,
    call: WriteBack,
) -> io::Result<()> {
    let too_long = |_| invalid("beyond what a file can be long");
    let start = i64::try_from(range.start).map_err(too_long)?;
    let length = range.end.checked_sub(range.start).filter(|length| *length > 0);
    let Some(length) = length else { return Ok(()) };
    let length = i64::try_from(length).map_err(too_long)?;
    let flags = match call {
        WriteBack::Start => libc::SYNC_FILE_RANGE_WRITE,
        WriteBack::Wait => libc::SYNC_FILE_RANGE_WAIT_BEFORE,
    };
    // SAFETY: (D1) numbers, and the descriptor of a file that is borrowed until the call returns.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, flags) };
    if result == 0 {
        return Ok(());
    }
    Err(failure(io::Error::last_os_error()))
}

/// What an error of the call means: that it cannot be made here, or that bytes were not written.
fn failure(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        // The last two are those of a filter of system calls that does not know this one.
        Some(
            libc::ENOSYS
            | libc::EINVAL
            | libc::ESPIPE
            | libc::EOPNOTSUPP
            | libc::EPERM
            | libc::EACCES,
        ) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
