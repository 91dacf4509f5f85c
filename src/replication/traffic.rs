//! `Traffic`: counts the frames between a member and the others.
//!
//! Owns: the counters. Must not know: what is in a frame.

use crate::broker::replication_metrics::FrameMetrics;
use crate::sync::{AtomicU64, Ordering};

/// Frames of one kind.
///
/// ORDERING: counters that publish nothing, Relaxed.
#[derive(Debug, Default)]
struct Count {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: Count,
    unsent: Count,
    received: Count,
    refused: Count,
}

impl Traffic {
    /// A frame was given to the transport; whether that took it.
    pub(super) fn sent(&self, bytes: usize, is_taken: bool) {
        if is_taken { &self.sent } else { &self.unsent }.add(bytes);
    }

    /// A frame has arrived; whether it was taken.
    pub(super) fn received(&self, bytes: usize, is_taken: bool) {
        if is_taken { &self.received } else { &self.refused }.add(bytes);
    }

    pub(super) fn metrics(&self) -> FrameMetrics {
        let (sent, sent_bytes) = self.sent.read();
        let (unsent, _) = self.unsent.read();
        let (received, received_bytes) = self.received.read();
        let (refused, refused_bytes) = self.refused.read();
        FrameMetrics { sent, sent_bytes, unsent, received, received_bytes, refused, refused_bytes }
    }
}
