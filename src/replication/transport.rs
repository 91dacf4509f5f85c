//! `Transport`: what an application plugs in, so that members reach each other.

use super::wire::Frame;
use crate::error::TransportError;
use crate::record::NodeId;

/// Carries frames from this member of a replicated group to the others. An application implements it
/// over whatever it has: TCP, a message bus, channels in a test.
///
/// Frames that arrive are given to
/// [`ReplicationHandle::receive`](crate::ReplicationHandle::receive), or, by threads that may wait for
/// the disk, to [`receive_and_tick`](crate::ReplicationHandle::receive_and_tick).
///
/// # The contract
///
/// - A transport **may** lose frames, repeat them, delay them and deliver them in another order. What is
///   lost is asked for again.
/// - It **must not** hand a frame to another member than `to`, and `from` of `receive` must be the
///   member that sent it. (Frames for other members and damaged ones are refused there, and what
///   other groups say is dropped. But a member that belongs to no group yet cannot know that it is
///   of another one.)
/// - `send` is called by one thread at a time, which may be one that appends, and **must not block for long**: while it does, this
///   member does nothing. A transport with connections has a queue with a limit, and drops what does
///   not fit. [`FrameClass::Control`](crate::FrameClass::Control) deserves a queue of its own, because
///   a leader whose beats wait behind megabytes of records is taken for dead.
/// - It has no time-outs: a member that is not heard is noticed by the others.
/// - An error says only that the frame is lost. It is not repeated, and nothing depends on it.
/// - A panic is caught, and counts as a lost frame.
/// - `send` may call the handle of this member or of another in the process, and close the broker. A
///   [`confirm`](crate::ReplicationHandle::confirm) or
///   [`wait_leading`](crate::ReplicationHandle::wait_leading) of this member returns an error there, and
///   an append that waits for a majority times out, because the member does nothing meanwhile.
pub trait Transport: Send + Sync + 'static {
    /// Sends a frame to a member.
    ///
    /// # Errors
    ///
    /// The frame is lost. The error is not shown.
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError>;
}

impl<T: Transport + ?Sized> Transport for std::sync::Arc<T> {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        (**self).send(to, frame)
    }
}
