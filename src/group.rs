//! Consumer groups: who owns which partition, and how far each group has come.
//!
//! What is decided here is decided by pure code: [`assignor`] answers who should own what,
//! [`state`] leads a group from who owns it now to who should, one hand-over at a time. Neither
//! does I/O, takes a lock, reads a clock or calls user code; both are values in, values out, and
//! are tested as such. The coordinator around them holds the group's lock for the time of one
//! call, and runs the callbacks between two calls, under no lock.

mod agenda;
pub(crate) mod assignor;
pub(crate) mod coordinator;
pub(crate) mod expiry;
pub(crate) mod inspect;
pub(crate) mod interest;
pub(crate) mod membership;
pub(crate) mod offsets;
pub(crate) mod progress;
mod roster;
pub(crate) mod state;
