//! `Inbox`: what arrives for a member, until the member takes it.
//!
//! Owns: the frames that were received, small and urgent ones first, and the wake-up of the thread that
//! waits for them. Putting a frame in waits for nothing but this lock. Must not know: what is in a
//! frame.

use std::collections::VecDeque;
use std::time::Instant;

use super::wire::{Frame, FrameClass};
use crate::record::NodeId;
use crate::sync::{Condvar, LockLevel, Mutex};

/// LIMIT: how many bytes of frames wait at most. What does not fit is lost, as by any transport, and
/// asked for again.
const BYTES_MAX: usize = 64 << 20;
/// LIMIT: what a frame takes beside its bytes; so that many small ones are bounded, too.
const FRAME_ROOM: usize = 128;

/// LIMIT: how many urgent frames are taken in a row while others wait: so that these have their
/// turn.
const URGENT_IN_A_ROW: u32 = 64;

#[derive(Debug, Default)]
struct Arrived {
    control: VecDeque<(NodeId, Frame)>,
    data: VecDeque<(NodeId, Frame)>,
    bytes: usize,
    /// How many urgent frames were taken since another one was.
    urgent: u32,
    /// How often something else was to be looked at: a clock has moved, a partition has news, an end.
    calls: u64,
}

#[derive(Debug)]
pub(super) struct Inbox {
    arrived: Mutex<Arrived>,
    called: Condvar,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let arrived = Mutex::at_level(LockLevel::ReplicationInbox, Arrived::default());
        Self { arrived, called: Condvar::new() }
    }

    /// Puts a frame in, and wakes the thread that waits. False if there is no room.
    pub(super) fn put(&self, from: NodeId, frame: Frame) -> bool {
        let is_put = self.put_quietly(from, frame);
        if is_put {
            self.called.notify_all();
        }
        is_put
    }

    /// Puts a frame in, for a thread that runs the member itself. False if there is no room.
    pub(super) fn put_quietly(&self, from: NodeId, frame: Frame) -> bool {
        let size = frame.as_bytes().len().saturating_add(FRAME_ROOM);
        let mut arrived = self.arrived.lock();
        let bytes = arrived.bytes.saturating_add(size);
        // One that is larger than all the room is taken if nothing else is there.
        if bytes > BYTES_MAX && arrived.bytes > 0 {
            return false;
        }
        arrived.bytes = bytes;
        let queue = match frame.class() {
            FrameClass::Control => &mut arrived.control,
            FrameClass::Data => &mut arrived.data,
        };
        queue.push_back((from, frame));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        let arrived = self.arrived.lock();
        arrived.control.is_empty() && arrived.data.is_empty()
    }

    /// Wakes the threads that wait, and those that are about to.
    pub(super) fn call(&self) {
        let mut arrived = self.arrived.lock();
        arrived.calls = arrived.calls.wrapping_add(1);
        drop(arrived);
        self.called.notify_all();
    }

    /// How often it was called. To be asked before the look whose result a thread then
    /// [waits](Self::wait) with: several may wait, and none takes the call of another.
    pub(super) fn calls(&self) -> u64 {
        self.arrived.lock().calls
    }

    pub(super) fn take(&self) -> Option<(NodeId, Frame)> {
        let mut arrived = self.arrived.lock();
        let is_due = arrived.urgent >= URGENT_IN_A_ROW && !arrived.data.is_empty();
        let urgent = if is_due { None } else { arrived.control.pop_front() };
        arrived.urgent = if urgent.is_some() { arrived.urgent.saturating_add(1) } else { 0 };
        let next = urgent.or_else(|| arrived.data.pop_front())?;
        let size = next.1.as_bytes().len().saturating_add(FRAME_ROOM);
        arrived.bytes = arrived.bytes.saturating_sub(size);
        Some(next)
    }

    /// Waits until something arrives, this is called once more than `calls` times, or the deadline has
    /// passed; without one, for as long as it takes.
    pub(super) fn wait(&self, calls: u64, deadline: Option<Instant>) {
        let mut arrived = self.arrived.lock();
        loop {
            let is_empty = arrived.control.is_empty() && arrived.data.is_empty();
            if arrived.calls != calls || !is_empty {
                return;
            }
            let Some(deadline) = deadline else {
                arrived = self.called.wait(arrived);
                continue;
            };
            let (guard, has_timed_out) = self.called.wait_until(arrived, deadline);
            arrived = guard;
            if has_timed_out {
                return;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::membership::{DirectoryId, MemberRun};
    use super::super::message::{Body, Envelope};
    use super::super::wire::{Said, pack};
    use super::*;
    use crate::record::LeaderEpoch;

    fn frame(body: Body, batch: usize) -> Frame {
        let from = MemberRun { node: NodeId(1), directory: DirectoryId(1), session: 1 };
        let (group, to, epoch) = (None, NodeId(2), LeaderEpoch(1));
        let envelope = Envelope { group, from, to, epoch, body };
        let under = crate::log::replica::under::Under { salt: 0, features: 0 };
        let batches = vec![super::super::frame::Batches { under, bytes: vec![0; batch].into() }];
        let parcel = super::super::frame::Frame { envelope, batches };
        pack(vec![Said::Parcel(Box::new(parcel))]).unwrap()
    }

    fn data(batch: usize) -> Frame {
        use super::super::log_key::LogKey;
        use super::super::message::Fetch;
        let (log, before) = (LogKey::Meta, None);
        frame(
            Body::Fetch(Fetch {
                log,
                from: 0,
                before,
                adopted: false,
                synced: 0,
                held: 0,
                start: 0,
            }),
            batch,
        )
    }

    #[test]
    fn what_is_urgent_comes_first() {
        let inbox = Inbox::new();
        assert!(inbox.put(NodeId(1), data(10)) && inbox.put(NodeId(2), data(10)));
        assert!(inbox.put(NodeId(3), frame(Body::Beat, 0)));
        inbox.wait(inbox.calls(), None);
        let order: Vec<_> = std::iter::from_fn(|| inbox.take()).map(|(from, _)| from.0).collect();
        assert_eq!(order, [3, 1, 2]);
        // Each of those that look has the call.
        let calls = inbox.calls();
        inbox.call();
        inbox.wait(calls, None);
        inbox.wait(calls, None);
    }

    // RED: src/replication/inbox.rs
    //   - let is_due = arrived.urgent >= URGENT_IN_A_ROW && !arrived.data.is_empty();
    //   + let is_due = false;
    #[test]
    fn what_is_not_urgent_has_its_turn() {
        let inbox = Inbox::new();
        assert!(inbox.put(NodeId(1), data(10)));
        let beat = || frame(Body::Beat, 0);
        assert!((0..200).all(|_| inbox.put(NodeId(2), beat())));
        let order: Vec<_> = std::iter::from_fn(|| inbox.take()).map(|(from, _)| from.0).collect();
        assert_eq!(order.iter().position(|from| *from == 1), Some(64));
        assert_eq!(order.len(), 201);
    }

    /// A member that is slow, or has failed, must not take the memory of the process.
    #[test]
    fn what_waits_is_bounded() {
        let inbox = Inbox::new();
        assert!(inbox.put(NodeId(1), data(BYTES_MAX + 1)), "alone");
        assert!(!inbox.put(NodeId(1), data(1)));
        assert!(!inbox.put(NodeId(1), frame(Body::Beat, 0)));
        assert!(inbox.take().is_some() && inbox.take().is_none());
        let taken = (0..200).filter(|_| inbox.put(NodeId(1), data(1 << 20))).count();
        assert_eq!(taken, 63);
    }
}
