//! The transports of the examples keep the contract.

#[path = "../../examples/three_members/channels.rs"]
mod channels;
#[path = "../../examples/replicated/tcp.rs"]
mod tcp;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use logpond::replication::{Side, conformance};
use logpond::{NodeId, TransportError};

use channels::Channels;
use tcp::Tcp;

#[test]
fn channels_conform() {
    let checked = conformance(|nodes| {
        let channels = Channels::new(nodes);
        let side = |node: &NodeId| -> Side {
            let (node, channels) = (*node, Arc::clone(&channels));
            (node, channels.of(node), Box::new(move |member| channels.attach(node, member)))
        };
        nodes.iter().map(side).collect()
    });
    checked.unwrap();
}

#[test]
fn tcp_conforms() {
    let checked = conformance(|nodes| {
        let bound = |node: &NodeId| (*node, TcpListener::bind("127.0.0.1:0").unwrap());
        let listeners: Vec<_> = nodes.iter().map(bound).collect();
        let addresses: Vec<(NodeId, SocketAddr)> =
            listeners.iter().map(|(node, it)| (*node, it.local_addr().unwrap())).collect();
        let side = |(node, listener): (NodeId, TcpListener)| -> Side {
            let attach = move |member| Tcp::listen(listener, member);
            (node, Arc::new(Tcp::new(node, &addresses)), Box::new(attach))
        };
        listeners.into_iter().map(side).collect()
    });
    checked.unwrap();
}

/// The check itself notices a transport that breaks the contract.
#[test]
fn transports_that_break_the_contract_are_noticed() {
    use logpond::{Frame, ReplicationHandle, Transport};
    use std::sync::Mutex;
    type Members = Arc<Mutex<Vec<(NodeId, ReplicationHandle)>>>;
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        WrongSender,
        WrongMember,
        Panics,
    }
    struct Faulty(NodeId, Members, Fault);
    impl Transport for Faulty {
        fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
            let members = self.1.lock().unwrap().clone();
            let find = |node| members.iter().find(|(it, _)| *it == node);
            let (_, right) = find(to).ok_or(TransportError::Unreachable)?;
            match self.2 {
                Fault::WrongSender => drop(right.receive(NodeId(99), frame)),
                Fault::WrongMember => {
                    let other = members.iter().find(|(it, _)| *it != to && *it != self.0);
                    drop(other.unwrap().1.receive(self.0, frame));
                }
                Fault::Panics => panic!("a transport that panics"),
            }
            Ok(())
        }
    }
    let check = |fault| {
        let members: Members = Arc::default();
        conformance(|nodes| {
            let side = |node: &NodeId| -> Side {
                let (node, attached) = (*node, Arc::clone(&members));
                let attach = move |handle| attached.lock().unwrap().push((node, handle));
                (node, Arc::new(Faulty(node, Arc::clone(&members), fault)), Box::new(attach))
            };
            nodes.iter().map(side).collect()
        })
    };
    for (fault, says) in [
        (Fault::WrongSender, "as one of 99"),
        (Fault::WrongMember, "arrived at"),
        (Fault::Panics, "panics"),
    ] {
        let error = check(fault).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(conformance(|_| Vec::new()).is_err());
}
