//! The batch: the unit of append, checksum, fetch and replication.
//!
//! Owns: how records become bytes and bytes become records; see `docs/format.md` for the layout.
//! Must not know: segments, files, positions, producers' states. A batch has a portable part,
//! which replication copies byte for byte, and a local one (checksum and durable distance), which
//! [`reseal`] writes anew for another segment. Pure; every module says who calls it.

mod decode;
mod encode;
pub(in crate::format) mod header;
pub(in crate::format) mod record;
mod seal;
#[cfg(test)]
mod tests;

pub(crate) use decode::{BatchView, PausedRecords, Records};
pub(crate) use encode::{BatchEncoder, EncodedBatch, Placement, RECORDS_SIZE_MAX, TooLarge};
pub(in crate::format) use header::durable_distance;
pub(crate) use header::{ALIGNMENT, BatchHeader, FIXED_SIZE, ProducerStamp, SIZE_MAX};
pub(crate) use record::{HeaderFields, RecordView};
pub(crate) use seal::{Unsealed, reseal};
pub(in crate::format) use seal::{seal, write_header};
