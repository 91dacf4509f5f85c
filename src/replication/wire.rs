//! `Frame`: the bytes that a transport carries from one member to another.
//!
//! Owns: their form, and the checks of what arrives: no byte is used before the size, the version and
//! the checksum are as they should be. Pure. Must not know: what members do with messages, and how
//! frames travel.
//!
//! ```text
//! offset  size
//!      0     3  "lpf"
//!      3     1  version: 3 (2 did not say what producers want synced, 1 had no log start in questions)
//!      4     1  class: 0 control, 1 data
//!      5     3  zero
//!      8     4  checksum of all that follows, but for the batches, which have checksums of their own
//!     12     4  size of the head
//!     16        the head: the messages, and the sizes of their batches, encoded by bincode
//!      .        the batches, one after the other, as they are stored
//! ```
//!
//! Numbers are little endian. A frame has messages to one member.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::frame::{Batches, Frame as Parcel};
use super::membership::Membership;
use super::message::{Ask, Body, Envelope, Found};
use super::signal::Signal;
use crate::codec::{Bincode, Codec};
use crate::error::TransportError;
use crate::format::Checksum;
use crate::log::replica::under::Under;
use crate::record::NodeId;

const MAGIC: &[u8; 3] = b"lpf";
const VERSION: u8 = 3;
const CONTROL: u8 = 0;
const DATA: u8 = 1;
const CHECKSUM_AT: usize = 8;
const COVERED_AT: usize = 12;
const HEAD_AT: usize = 16;

/// Which queue a frame belongs into, if a transport has two: so that the signs of life of a leader do not
/// wait behind megabytes of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameClass {
    /// Small and urgent: beats, questions of a candidate, promises.
    Control,
    /// Records, and questions for them.
    Data,
}

/// A frame: opaque bytes for another member. Cheap to clone.
///
/// A transport sends [`as_bytes`](Self::as_bytes), and makes a frame of what arrives with
/// [`from_bytes`](Self::from_bytes), to give it to
/// [`ReplicationHandle::receive`](crate::ReplicationHandle::receive).
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    class: FrameClass,
    bytes: Bytes,
}

impl Frame {
    /// LIMIT: how many bytes a frame has at most: a megabyte of records, or one batch, which a segment
    /// must hold; and the head.
    pub const MAX_BYTES: usize = (1 << 30) + (64 << 20);

    /// Returns which queue the frame belongs into.
    #[must_use]
    pub fn class(&self) -> FrameClass {
        self.class
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes to send, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Makes a frame of bytes that have arrived.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if they are no frame, one of another version, or the messages in it were
    /// changed on the way. The records in it are checked when they are used, because each batch has
    /// a checksum of its own: an answer with changed records is dropped then, and asked for again.
    /// A change of the [class](Self::class), which only chooses a queue, or of the three unused
    /// bytes after it is not noticed, and has no effect on a log. Missing and additional bytes are
    /// noticed here or by the member, which refuses the frame.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, TransportError> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_BYTES {
            return Err(refused("is too large"));
        }
        let head = head_of(&bytes)?;
        let covered = bytes.get(COVERED_AT..HEAD_AT).unwrap_or_default();
        if Checksum::of_both(covered, head).value() != number_at(&bytes, CHECKSUM_AT)? {
            return Err(refused("was changed on its way"));
        }
        let class = match bytes.get(4) {
            Some(&CONTROL) => FrameClass::Control,
            Some(&DATA) => FrameClass::Data,
            _ => return Err(refused("is of an unknown class")),
        };
        Ok(Self { class, bytes })
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("class", &self.class).field("len", &self.bytes.len()).finish()
    }
}

fn refused(what: &str) -> TransportError {
    TransportError::new(format_args!("the frame {what}"))
}

fn number_at(bytes: &[u8], at: usize) -> Result<u32, TransportError> {
    let four = at.checked_add(4).and_then(|end| bytes.get(at..end));
    let four = four.and_then(|four| <[u8; 4]>::try_from(four).ok());
    four.map(u32::from_le_bytes).ok_or_else(|| refused("is too short"))
}

fn head_of(bytes: &[u8]) -> Result<&[u8], TransportError> {
    if bytes.get(..3) != Some(MAGIC) {
        return Err(refused("is none"));
    }
    if bytes.get(3) != Some(&VERSION) {
        return Err(refused("is of another version"));
    }
    let size = number_at(bytes, COVERED_AT)? as usize;
    let end = HEAD_AT.checked_add(size).ok_or_else(|| refused("is too short"))?;
    bytes.get(HEAD_AT..end).ok_or_else(|| refused("is too short"))
}

/// What one member says to another.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Signal(Signal),
    Parcel(Box<Parcel>),
}

impl Said {
    pub(crate) fn to(&self) -> NodeId {
        match self {
            Self::Signal(signal) => signal.to,
            Self::Parcel(parcel) => parcel.envelope.to,
        }
    }

    pub(crate) fn from(&self) -> NodeId {
        match self {
            Self::Signal(signal) => signal.from.node,
            Self::Parcel(parcel) => parcel.envelope.from.node,
        }
    }

    pub(crate) fn class(&self) -> FrameClass {
        match self {
            Self::Signal(_) => FrameClass::Control,
            Self::Parcel(parcel) => match &parcel.envelope.body {
                Body::Fetch(_) | Body::Fetched(_) => FrameClass::Data,
                Body::Ask(_)
                | Body::Promised(_)
                | Body::Refused { .. }
                | Body::Beat
                | Body::Superseded { .. } => FrameClass::Control,
            },
        }
    }

    /// About how many bytes it takes in a frame.
    pub(crate) fn size(&self) -> usize {
        /// LIMIT: more than the head of any message takes, but for a promise with many logs.
        const HEAD: usize = 256;
        let Self::Parcel(parcel) = self else { return HEAD };
        let batches = parcel.batches.iter().map(|it| it.bytes.len());
        let logs = match &parcel.envelope.body {
            Body::Promised(promised) => promised.logs.len().saturating_mul(64),
            _ => 0,
        };
        batches.fold(HEAD.saturating_add(logs), usize::saturating_add)
    }
}

/// The salt and the features that the batches were checksummed under, and their size.
type BatchesHead = (u64, u64, u32);

/// The stored form. Variants are only added at the end.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most are messages")]
enum Item {
    Signal(Signal),
    Message(Envelope, Vec<BatchesHead>),
}

/// Packs messages to one member into a frame. `None` if they are too large for one.
pub(crate) fn pack(all: Vec<Said>) -> Option<Frame> {
    let is_data = all.iter().any(|said| said.class() == FrameClass::Data);
    let class = if is_data { FrameClass::Data } else { FrameClass::Control };
    let (mut items, mut batches) = (Vec::new(), Vec::new());
    for said in all {
        items.push(match said {
            Said::Signal(signal) => Item::Signal(signal),
            Said::Parcel(parcel) => {
                let heads = heads_of(&parcel)?;
                let Parcel { envelope, batches: of_parcel } = *parcel;
                batches.extend(of_parcel);
                Item::Message(stripped(envelope), heads)
            }
        });
    }
    let mut head = Vec::new();
    Bincode.encode(&items, &mut head).ok()?;
    let size = u32::try_from(head.len()).ok()?.to_le_bytes();
    let checksum = Checksum::of_both(&size, &head).value();
    let of_batches = batches.iter().map(|it| it.bytes.len()).fold(0, usize::saturating_add);
    let total = HEAD_AT.checked_add(head.len())?.checked_add(of_batches)?;
    if total > Frame::MAX_BYTES {
        return None;
    }
    let mut bytes = BytesMut::with_capacity(total);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, if is_data { DATA } else { CONTROL }, 0, 0, 0]);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&size);
    bytes.extend_from_slice(&head);
    for it in &batches {
        bytes.extend_from_slice(&it.bytes);
    }
    Some(Frame { class, bytes: bytes.freeze() })
}

fn heads_of(parcel: &Parcel) -> Option<Vec<BatchesHead>> {
    let head = |it: &Batches| {
        let Under { salt, features } = it.under;
        Some((salt, features, u32::try_from(it.bytes.len()).ok()?))
    };
    parcel.batches.iter().map(head).collect()
}

/// Without what the receiver takes from the batches.
fn stripped(mut envelope: Envelope) -> Envelope {
    if let Body::Fetched(fetched) = &mut envelope.body
        && let Found::Records { ranges, changes } = &mut fetched.found
    {
        ranges.clear();
        changes.clear();
    }
    envelope
}

/// LIMIT: how many members a group has at most.
pub(crate) const MEMBERS_MAX: usize = 7;

/// Unpacks a frame. Its batches share its bytes, and are not checked yet.
///
/// # Errors
///
/// It is no frame, or has something that no member says.
pub(crate) fn unpack(frame: &Frame) -> Result<Vec<Said>, TransportError> {
    let head = head_of(&frame.bytes)?;
    let items: Vec<Item> =
        Bincode.decode(head).map_err(|_| refused("has a head that cannot be decoded"))?;
    let mut at = HEAD_AT.saturating_add(head.len());
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        all.push(match item {
            Item::Signal(signal) => Said::Signal(signal),
            Item::Message(envelope, heads) => {
                check(&envelope)?;
                let mut batches = Vec::with_capacity(heads.len());
                for (salt, features, size) in heads {
                    let end = at.checked_add(size as usize).filter(|end| *end <= frame.bytes.len());
                    let end = end.ok_or_else(|| refused("is too short"))?;
                    let under = Under { salt, features };
                    batches.push(Batches { under, bytes: frame.bytes.slice(at..end) });
                    at = end;
                }
                Said::Parcel(Box::new(Parcel { envelope, batches }))
            }
        });
    }
    if at == frame.bytes.len() { Ok(all) } else { Err(refused("is too long")) }
}

/// The frame that has this head, and no batches. A head may be anything.
#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(head: &[u8]) -> Vec<u8> {
    let size = u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = Checksum::of_both(&size, head).value().to_le_bytes();
    [&MAGIC[..], &[VERSION, CONTROL, 0, 0, 0], &checksum, &size, head].concat()
}

/// Whether the values of a message are possible.
fn check(envelope: &Envelope) -> Result<(), TransportError> {
    let is_possible =
        |membership: &Membership| (1..=MEMBERS_MAX).contains(&membership.nodes().count());
    match &envelope.body {
        Body::Ask(Ask::Lead(membership)) if !is_possible(membership) => {
            Err(refused("names an impossible number of members"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
