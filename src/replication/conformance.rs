//! Whether a transport keeps the contract of [`Transport`].

use std::sync::Arc;
use std::time::Duration;

use super::frame::{Batches, Frame as Parcel};
use super::handle::{ReplicationHandle, Shared};
use super::log_key::LogKey;
use super::membership::{DirectoryId, MemberRun};
use super::message::{Body, Envelope, Fetch, Fetched, Found};
use super::signal::{Sign, Signal};
use super::transport::Transport;
use super::wire::{Frame, Said, pack};
use crate::clock::real_now;
use crate::foreign;
use crate::log::replica::under::Under;
use crate::record::{LeaderEpoch, NodeId};

/// One member's side of a transport that is checked: its node, the transport that it sends with, and what
/// has frames for this member given to a handle.
pub type Side = (NodeId, Arc<dyn Transport>, Box<dyn FnOnce(ReplicationHandle)>);

/// LIMIT: for a transport that connects, backs off and connects again.
const PATIENCE: Duration = Duration::from_secs(20);
/// LIMIT: how long all calls of the check that nobody reads may take: a hundred times what a queue needs.
const NOT_BLOCKING: Duration = Duration::from_secs(10);
/// How many bytes of records the frames have that are sent.
const SIZES: [usize; 4] = [0, 1, 1 << 20, 9 << 20];
/// How many frames are sent to a member that reads none.
const UNREAD: usize = 20_000;

/// Checks whether a transport keeps the [contract](Transport#the-contract): frames arrive as they were
/// sent, at the right member and from the right one, small and large ones; `send` does not block, also when
/// the other side does not read; a member that does not exist is no panic. Losses are allowed, so each
/// frame is sent again until it arrives.
///
/// `make` is called once, with the nodes that the check uses, and returns a side of the transport
/// for each.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// use logpond::replication::{Side, conformance};
/// use logpond::{Frame, NodeId, ReplicationHandle, Transport, TransportError};
///
/// /// Hands frames over at once, in one process.
/// struct Direct(NodeId, Arc<Mutex<HashMap<NodeId, ReplicationHandle>>>);
///
/// impl Transport for Direct {
///     fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
///         let member = self.1.lock().unwrap().get(&to).cloned();
///         let member = member.ok_or(TransportError::Unreachable)?;
///         member.receive(self.0, frame).map_err(TransportError::new)
///     }
/// }
///
/// let members = Arc::new(Mutex::new(HashMap::new()));
/// conformance(|nodes| {
///     let side = |node: &NodeId| -> Side {
///         let (node, attached) = (*node, Arc::clone(&members));
///         let attach = move |handle| drop(attached.lock().unwrap().insert(node, handle));
///         (node, Arc::new(Direct(node, Arc::clone(&members))), Box::new(attach))
///     };
///     nodes.iter().map(side).collect()
/// })
/// .unwrap();
/// ```
///
/// # Errors
///
/// What the transport has done, in words.
///
/// # Blocking
///
/// For the transport; half a minute if it loses everything.
pub fn conformance(make: impl FnOnce(&[NodeId]) -> Vec<Side>) -> Result<(), String> {
    check(make, PATIENCE)
}

fn check(make: impl FnOnce(&[NodeId]) -> Vec<Side>, patience: Duration) -> Result<(), String> {
    let nodes = [1, 2, u64::MAX - 1].map(NodeId);
    let mut ends = Vec::new();
    for (node, transport, attach) in make(&nodes) {
        let shared = Arc::new(Shared::new(node));
        attach(ReplicationHandle::new(Arc::clone(&shared)));
        ends.push(End { node, transport, shared });
    }
    for node in nodes {
        if ends.iter().filter(|end| end.node == node).count() != 1 {
            return Err(format!("there is not one side for member {node}"));
        }
    }
    let mut number = 0;
    for (from, to) in pairs(&ends) {
        for size in SIZES {
            number += 1;
            arrives(&ends, (from, to), &frame(from.node, to.node, number, size)?, patience)?;
        }
    }
    for end in &ends {
        nobody_there(end)?;
    }
    for (from, to) in pairs(&ends) {
        unread(from, to)?;
    }
    Ok(())
}

struct End {
    node: NodeId,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
}

impl End {
    fn send(&self, to: NodeId, frame: &Frame) -> Result<(), String> {
        let sent = foreign::call(|| self.transport.send(to, frame.clone()));
        sent.map(drop).ok_or_else(|| format!("`send` to member {to} panics"))
    }
}

fn pairs(ends: &[End]) -> impl Iterator<Item = (&End, &End)> {
    let others = move |from: &End| {
        let from = from.node;
        ends.iter().filter(move |to| to.node != from)
    };
    ends.iter().flat_map(move |from| others(from).map(move |to| (from, to)))
}

/// A frame that no other one is equal to: with records, or small and urgent.
fn frame(from: NodeId, to: NodeId, number: u64, size: usize) -> Result<Frame, String> {
    let from = MemberRun { node: from, directory: DirectoryId(1), session: number };
    let (group, epoch) = (None, LeaderEpoch(1));
    let said = if size == 0 {
        Said::Signal(Signal { group, from, to, epoch, sign: Sign::Missing })
    } else {
        let (log, before) = (LogKey::Meta, None);
        let asked =
            Fetch { log, from: number, before, adopted: false, synced: 0, held: 0, start: 0 };
        let found = Found::Records { ranges: Vec::new(), changes: Vec::new() };
        let body = Body::Fetched(Fetched { to: from, asked, start: 0, led: None, found });
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
        let under = Under { salt: number, features: 0 };
        let envelope = Envelope { group, from, to, epoch, body };
        let batches = vec![Batches { under, bytes: bytes.into() }];
        Said::Parcel(Box::new(Parcel { envelope, batches }))
    };
    pack(vec![said]).ok_or_else(|| "a frame cannot be made".to_owned())
}

/// Sends a frame until it arrives; nothing else may.
fn arrives(
    ends: &[End],
    (from, to): (&End, &End),
    sent: &Frame,
    patience: Duration,
) -> Result<(), String> {
    let deadline = real_now().checked_add(patience);
    let mut pause = Duration::from_millis(5);
    loop {
        let calls = to.shared.inbox.calls();
        from.send(to.node, sent)?;
        to.shared.inbox.wait(calls, real_now().checked_add(pause));
        pause = pause.saturating_mul(2).min(Duration::from_secs(1));
        let mut has_arrived = false;
        for end in ends {
            while let Some((sender, frame)) = end.shared.inbox.take() {
                let is_it = end.node == to.node && sender == from.node;
                if frame == *sent && !is_it {
                    let (node, right) = (end.node, to.node);
                    return Err(format!(
                        "a frame from {} to {right} arrived at {node} as one of {sender}",
                        from.node
                    ));
                }
                has_arrived |= frame == *sent;
            }
        }
        if has_arrived {
            return Ok(());
        }
        if deadline.is_none_or(|deadline| real_now() >= deadline) {
            let (size, node) = (sent.as_bytes().len(), to.node);
            return Err(format!("a frame of {size} bytes does not arrive at member {node}"));
        }
    }
}

/// A member that does not exist.
fn nobody_there(end: &End) -> Result<(), String> {
    end.send(NodeId(77), &frame(end.node, NodeId(77), 0, 1)?)
}

/// The other side reads nothing.
fn unread(from: &End, to: &End) -> Result<(), String> {
    let begun = real_now();
    let small = frame(from.node, to.node, 0, 0)?;
    let large = frame(from.node, to.node, 0, 64 << 10)?;
    for number in 0..UNREAD {
        from.send(to.node, if number % 8 == 0 { &large } else { &small })?;
    }
    if begun.elapsed() > NOT_BLOCKING {
        return Err(format!("`send` blocks: {UNREAD} calls took {:?}", begun.elapsed()));
    }
    while to.shared.inbox.take().is_some() {}
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::error::TransportError;

    struct LosesAll;

    impl Transport for LosesAll {
        fn send(&self, _: NodeId, _: Frame) -> Result<(), TransportError> {
            Ok(())
        }
    }

    #[test]
    fn a_transport_that_loses_everything_does_not_conform() {
        let side = |node: &NodeId| -> Side { (*node, Arc::new(LosesAll), Box::new(drop)) };
        let make = |nodes: &[NodeId]| nodes.iter().map(side).collect();
        let error = check(make, Duration::from_millis(20)).unwrap_err();
        assert!(error.contains("does not arrive"), "{error}");
    }
}
