//! The system call, and what its errors mean.

use super::*;

#[test]
fn a_range_is_written_back_and_a_closed_pipe_is_no_file_to_write_back() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    for call in [WriteBack::Start, WriteBack::Wait] {
        write_back(&file, 0..1 << 20, call).unwrap();
        write_back(&file, 5..5, call).unwrap();
        assert!(write_back(&file, 0..u64::MAX, call).is_err());
    }
    let (reader, _writer) = io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    let refused = write_back(&pipe, 0..1, WriteBack::Start).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

/// Symptom: under a filter of system calls that refuses this one, every partition was poisoned
/// by its first background sync: the refusal counted as a failed write. Rule: what is refused
/// was not begun, and the sync that follows writes everything.
// RED: src/storage/region/write_back.rs
//   - | libc::EPERM
#[test]
fn row_d19_a_refused_call_is_not_a_failed_write() {
    use io::ErrorKind::Unsupported;
    let kind = |code| failure(io::Error::from_raw_os_error(code)).kind();
    for code in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP] {
        assert_eq!(kind(code), Unsupported, "{code}");
    }
    for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EBADF] {
        assert_ne!(kind(code), Unsupported, "{code}");
    }
}
