//! Replication: a group of members, each with a whole copy of the broker, one of which leads.
//!
//! | floor | files |
//! |---|---|
//! | values | `log_key`, `membership`, `history`, `rule`, `notes`, `message`, `effect` |
//! | what a member has and is | `logs`, `compare`, `state`; `candidate`, `leader`, `recovery`, `role` |
//! | the state machine, pure | `member`; `elector` beside it |
//! | over the engine | `frame`, `shell` |
//!
//! `explore` runs the state machine through all states of small worlds, `simulation` whole groups over
//! the engine. Owns: the protocol. Must not know: how the records of a log are stored, and how frames
//! travel.

mod candidate;
mod compare;
mod effect;
mod elector;
mod frame;
mod history;
mod leader;
mod log_key;
mod logs;
mod member;
mod membership;
mod message;
mod notes;
mod recovery;
mod role;
mod rule;
mod shell;
mod state;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod simulation;
