//! Consumer groups: which member owns which partition, and the committed offsets of each group.
//!
//! From the bottom up; no part names one above it:
//!
//! | part | what it is for |
//! |---|---|
//! | [`interest`], [`assignor`] | which topics a member wants, and which member should own which partition: pure |
//! | [`owners`], [`state`] | moves a group from its current assignment to its target, one hand-over at a time: pure |
//! | [`presence`], [`members`] | the live members, and the static members that are waited for |
//! | [`deadlines`], [`shared`], [`table`] | when a member is overdue; one group with its lock; all groups by name |
//! | [`offsets`], [`offset_store`], [`commit`] | committed offsets; the log of them; the one way to commit |
//! | [`coordinator`] | composes these, in the order of the locks |
//! | [`membership`], [`expiry`], [`inspect`], [`progress`] | the calls of a consumer, of the engine and of an administrator |
//!
//! The pure parts do no I/O, take no lock, read no clock and call no user code; they take and
//! return values. The coordinator holds the group's lock for the time of one call. Rebalance
//! callbacks run between two calls, under no lock.

pub(crate) mod assignor;
pub(crate) mod commit;
pub(crate) mod coordinator;
mod deadlines;
pub(crate) mod expiry;
pub(crate) mod inspect;
pub(crate) mod interest;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod offset_store;
pub(crate) mod offsets;
pub(crate) mod owners;
mod presence;
pub(crate) mod progress;
mod shared;
pub(crate) mod state;
mod table;
