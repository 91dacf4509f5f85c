//! What opening does without [`Rule::NewSegment`]: for the tests that have to notice it.

use super::super::Checkpoint;
use super::*;
use crate::rules::Rule;

/// Takes the position of the cut for the end that a clean close has left.
pub(super) fn without_new_segment(
    mut inventory: Inventory,
    known: &Known,
    decision: &Decision,
) -> (Inventory, Known) {
    let mut known = known.clone();
    let last = decision.last_kept().filter(|_| !Rule::NewSegment.holds());
    if let Some((index, action)) =
        last.and_then(|index| Some((index, decision.actions.get(index)?)))
        && let Action::Keep { data_end, next_offset, .. } = *action
        && let Some(found) = inventory.found.get(index)
        && found.footer.is_none()
    {
        known.checkpoint = Some(Checkpoint {
            log_start: known.start().unwrap_or(0),
            end_offset: next_offset,
            segment: found.header.number,
            position: data_end,
            last_batch: 0,
            times: None,
            producers: Vec::new(),
            ages: None,
            is_of_one_run: false,
        });
        inventory.resumable = Some(index);
    }
    (inventory, known)
}
