//! What is distinguished by what the system reports of itself.

use super::*;

/// The types that `statfs` gives, injected: what is not known to keep its blocks is written by
/// `pwrite`, what comes next included.
// RED: src/storage/platform.rs
//   - IN_PLACE.contains(&magic)
//   + !IN_PLACE.is_empty() || magic == 0
#[test]
fn row_f05_only_file_systems_that_keep_their_blocks_are_stored_into() {
    let (ext4, xfs, tmpfs) = (0xEF53, 0x5846_5342, 0x0102_1994);
    for magic in [ext4, xfs, tmpfs] {
        assert!(is_in_place(magic), "{magic:#x}");
    }
    let (nfs, cifs, smb2, plan9) = (0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997);
    let (fuse, overlay, btrfs, zfs) = (0x6573_5546, 0x794C_7630, 0x9123_683E, 0x2FC1_2FC1);
    let (bcachefs, ceph, unknown) = (0xCA45_1A4E, 0x00C3_6400, 0x1234_5678);
    for magic in [nfs, cifs, smb2, plan9, fuse, overlay, btrfs, zfs, bcachefs, ceph, unknown] {
        assert!(!is_in_place(magic), "{magic:#x}");
    }
    assert!(!keeps_blocks_in_place(Path::new("/nowhere/at/all")));
}
