//! What a replicated log offers beside appends and reads: its history of leader epochs, its
//! batches as they are stored, and appends of batches that a leader has stored.
//!
//! | part | what it does |
//! |---|---|
//! | [`walk`] | reads the batches of one segment, each checked before it is used |
//! | [`history`] | finds in which leader epoch a batch was appended, and where an epoch ends |
//! | [`feed`] | reads whole batches for a follower |
//! | [`under`] | what must be known of a segment to check a copy of its batches |
//! | [`received`] | checks what was received, before any lock is taken |
//! | [`append`] | appends what was checked, byte for byte except for the local part of each batch |
//! | [`cut`] | truncates, and begins anew at another offset |
//! | [`refusal`] | why something is not done |
//!
//! Must not know: members, leadership, frames. None of it is used by a log that is not replicated,
//! and nothing of it is stored beside the batches: they bear the epoch of their leader.

pub(crate) mod append;
pub(crate) mod cut;
pub(crate) mod feed;
pub(crate) mod history;
pub(crate) mod received;
pub(crate) mod refusal;
pub(crate) mod under;
mod walk;
