//! What a member makes of frames that somebody else has sent.

use crate::replication::wire;

/// A frame. With an odd first byte the rest is the head of one, under a right checksum.
///
/// # Panics
///
/// When a frame that is accepted is not written as it was read.
pub fn frame(data: &[u8]) {
    let (mode, bytes) = super::mode(data);
    let bytes = if mode & 1 == 0 { bytes.to_vec() } else { wire::sealed(bytes) };
    let Some(once) = read(&bytes) else { return };
    let twice = read(once.as_bytes());
    assert_eq!(twice.as_ref(), Some(&once), "a frame reads back as another one");
}

/// Reads a frame, and writes what it says. `None` if it is refused.
fn read(bytes: &[u8]) -> Option<wire::Frame> {
    let frame = wire::Frame::from_bytes(bytes.to_vec()).ok()?;
    let all = wire::unpack(&frame).ok()?;
    for said in &all {
        if let wire::Said::Parcel(parcel) = said {
            let _ = parcel.check();
        }
    }
    let written = wire::pack(all);
    assert!(written.is_some(), "what was read can be written");
    written
}
