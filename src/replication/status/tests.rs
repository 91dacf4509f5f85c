//! Each event of a member, as a subscriber of `tracing` hears it.

use super::*;
use crate::trace::heard::Heard;

/// The events, and the lines of them.
fn all() -> Vec<(ReplicationEvent, &'static str)> {
    let (epoch, leader) = (LeaderEpoch(3), NodeId(1));
    let partition = TopicPartition::from(("orders", 2));
    let (cut, refused) = (partition.clone(), partition.clone());
    vec![
        (ReplicationEvent::Leading { epoch }, "INFO: leading member=7 epoch=3"),
        (ReplicationEvent::MayWrite { epoch }, "INFO: may write member=7 epoch=3"),
        (
            ReplicationEvent::Following { epoch, leader },
            "INFO: following member=7 epoch=3 leader=1",
        ),
        (ReplicationEvent::LeadershipLost { epoch }, "WARN: leadership lost member=7 epoch=3"),
        (ReplicationEvent::NoMajority, "WARN: no majority member=7"),
        (ReplicationEvent::MajorityBack, "INFO: majority back member=7"),
        (ReplicationEvent::MemberJoined(NodeId(2)), "INFO: member joined member=7 other=2"),
        (ReplicationEvent::MemberLagging(NodeId(2)), "WARN: member lagging member=7 other=2"),
        (ReplicationEvent::MemberBack(NodeId(2)), "INFO: member back member=7 other=2"),
        (
            ReplicationEvent::Truncated { partition: cut, range: 4..9 },
            "WARN: truncated member=7 partition=orders-2 start=4 end=9",
        ),
        (
            ReplicationEvent::Repaired { partition, range: 4..9 },
            "WARN: repaired member=7 partition=orders-2 start=4 end=9",
        ),
        (
            ReplicationEvent::CutRefused { partition: refused },
            "ERROR: cut refused member=7 partition=orders-2",
        ),
        (ReplicationEvent::Failed(Error::Closed), "ERROR: member failed member=7 error="),
    ]
}

// RED: src/replication/status.rs
//   - note!(trace, Member { me, change });
//   + let _ = (trace, me, change);
#[test]
fn each_event_is_one_of_tracing_too() {
    let heard = Heard::default();
    let lines = || std::mem::take(&mut *heard.lines.lock());
    for (event, expected) in all() {
        let trace = Outbox::default();
        tracing::subscriber::with_default(heard.clone(), || {
            note_event(&trace, NodeId(7), &event);
            trace.deliver();
            trace.deliver();
        });
        let lines = lines();
        assert!(lines.len() == 1 && lines[0].starts_with(expected), "{lines:?}: {expected}");
    }
}
