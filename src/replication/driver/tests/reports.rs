//! Goal: what members report is what has happened, once; and what is refused changes nothing.
//!
//! Method: the group of the tests beside this file.

use super::super::super::status::error_of;
use super::*;

/// A member that still took frames while its broker was being closed reported that as a failure.
// RED: src/replication/driver/shown.rs
//   - Some(error_of(failure)).filter(|error| !matches!(error, Error::Closed))
//   + Some(error_of(failure))
// RED: src/replication/shell.rs
//   - leadership.note_leader(None);
#[test]
fn a_broker_that_is_closed_has_not_failed() {
    for closed in [0, 1] {
        let mut group = Group::led(false);
        group.brokers[closed].clone().close().unwrap();
        group.members[1 - closed].resign(None, group.now);
        group.members[2].lead(LeaderEpoch(2), group.now).unwrap();
        for _ in 0..3 {
            group.pass(HEARTBEAT, |_| true);
        }
        let failure = group.members[closed].shell.failure().map(error_of);
        assert!(matches!(failure, Some(Error::Closed)), "{failure:?}");
        let failed = |event: &ReplicationEvent| matches!(event, ReplicationEvent::Failed(_));
        assert!(!group.events[closed].iter().any(failed), "{:?}", group.events[closed]);
        assert_eq!(group.status(closed).failure, None);
        let refused = group.members[closed].leadership.check();
        assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
    }
}
