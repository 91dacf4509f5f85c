//! A rebalance that a test asks for: every member gives up everything, then all is divided again.
//!
//! Owns: nothing; two steps of a [`GroupState`]. Must not know: who asks for it.

use super::GroupState;

/// Takes the plan back: each member has to give up all of its partitions.
pub(crate) fn begin(state: &mut GroupState) {
    let _owned = state.owners.clear_targets(|_| false);
    state.wake_members_that_are_due();
    divide_if_done(state);
}

/// Makes a new plan when no partition has an owner any more.
pub(super) fn divide_if_done(state: &mut GroupState) {
    if state.owners.are_without_plan() {
        state.plan();
    }
}
