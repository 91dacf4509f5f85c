//! Replication: a group of members, each with a whole copy of the broker, one of which leads.
//!
//! So far: the state machine of a member, which is pure, and its exploration. Owns: the protocol.
//! Must not know: how the records of a log are stored.

mod candidate;
mod compare;
mod effect;
mod elector;
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
mod state;

#[cfg(test)]
mod explore;
