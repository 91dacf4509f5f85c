//! Replication: a group of members, each with a whole copy of the broker, one of which leads.
//!
//! | floor | files |
//! |---|---|
//! | values | `log_key`, `membership`, `history`, `strict`, `rule`, `notes`, `message`, `effect` |
//! | what a member has and is | `logs`, `compare`, `state`; `candidate`, `leader`, `syncs`, `recovery`, `role`, `rounds` |
//! | the state machine, pure | `member`; `elector` beside it |
//! | over the engine | `frame`, `catalog`, `shell` |
//! | with a clock | `pulse`, `signal`, `view`, `driver` |
//! | for applications | `wire`, `transport`, `traffic`, `status`, `inbox`, `handle`, `settings`, `beside`, `conformance` |
//!
//! `explore` runs the state machine through all states of small worlds, `simulation` whole groups over
//! the engine. Owns: the protocol. Must not know: how the records of a log are stored, and how frames
//! travel.

mod beside;
mod candidate;
mod catalog;
mod compare;
mod conformance;
mod driver;
mod effect;
mod elector;
mod frame;
mod handle;
mod history;
mod inbox;
mod late;
mod leader;
mod log_key;
mod logs;
mod member;
mod membership;
mod message;
mod notes;
mod pulse;
mod recovery;
mod role;
mod rounds;
mod rule;
mod senders;
mod session;
mod settings;
mod shell;
mod signal;
mod state;
mod status;
mod strict;
mod syncs;
mod traffic;
mod transport;
mod view;
pub(crate) mod wire;

pub use self::conformance::{Side, conformance};
pub use self::handle::ReplicationHandle;
pub use self::settings::{Election, Replication};
pub use self::status::{
    ForcedLead, MemberState, MemberStatus, ReplicationEvent, ReplicationStatus, Role,
};
pub use self::transport::Transport;
pub use self::wire::{Frame, FrameClass};

#[cfg(test)]
mod explore;
#[cfg(test)]
mod simulation;
