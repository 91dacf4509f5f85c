//! A transport over channels, for members in one process.
//!
//! Each member has a queue with a limit and a thread that reads it. What does not fit is dropped,
//! because whatever is lost is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased};
use logpond::{Frame, FrameClass, NodeId, ReplicationHandle, Transport, TransportError};

/// How many frames wait for a member.
const QUEUE: usize = 1024;

type Addressed = (NodeId, Frame);

struct Queue {
    control: (Sender<Addressed>, Receiver<Addressed>),
    data: (Sender<Addressed>, Receiver<Addressed>),
}

/// The queues of all members.
pub(crate) struct Channels(HashMap<NodeId, Queue>);

impl Channels {
    pub(crate) fn new(nodes: &[NodeId]) -> Arc<Self> {
        let queue =
            |node: &NodeId| (*node, Queue { control: bounded(QUEUE), data: bounded(QUEUE) });
        Arc::new(Self(nodes.iter().map(queue).collect()))
    }

    /// What this member sends with.
    pub(crate) fn of(self: &Arc<Self>, from: NodeId) -> Arc<dyn Transport> {
        Arc::new(Channel { from, all: Arc::clone(self) })
    }

    /// Gives everything that arrives for a member to its handle.
    pub(crate) fn attach(&self, node: NodeId, member: ReplicationHandle) {
        let Some(queue) = self.0.get(&node) else { return };
        let (control, data) = (queue.control.1.clone(), queue.data.1.clone());
        thread::spawn(move || {
            loop {
                // What is small and urgent overtakes records.
                let next = select_biased! {
                    recv(control) -> next => next,
                    recv(data) -> next => next,
                };
                let Ok((from, frame)) = next else { return };
                // Where there is no room the frame is lost, and asked for again.
                let _ = member.receive_and_tick(from, frame);
            }
        });
    }
}

struct Channel {
    from: NodeId,
    all: Arc<Channels>,
}

impl Transport for Channel {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        let queue = self.all.0.get(&to).ok_or(TransportError::Unreachable)?;
        let queue = match frame.class() {
            FrameClass::Control => &queue.control.0,
            FrameClass::Data => &queue.data.0,
        };
        queue.try_send((self.from, frame)).map_err(|_| TransportError::Failed)
    }
}
