//! Makes space before an append needs it: file blocks ahead of the writer, and the next segment.
//!
//! Functions over the shared log. The lock is held to decide, and to take over a new segment, never
//! while the disk works.

use super::shared::SharedLog;
use crate::error::Result;
use crate::log::appender::Shortening;
use crate::log::tasks::PrepareTask;

/// Grows the active segment, or the next one, if requested. A failure is not reported: the append
/// that needs the space will get it.
pub(super) fn make_ahead(log: &SharedLog) {
    let growth = log.lock().log().appender().growth_needed();
    let Some(growth) = growth else { return };
    let Ok(_running) = log.begin_disk_work() else { return };
    let _ = growth.run();
}

/// Makes the next segment, if requested. A failure is not reported: the append that needs the segment
/// will get it.
pub(super) fn prepare_next(log: &SharedLog) {
    let Ok(_running) = log.begin_disk_work() else { return };
    let task = {
        let mut state = log.state().lock_for_change();
        if state.has_ended() || !state.log().appender().wants_next() {
            return;
        }
        state.log_mut().factory_mut().begin_prepare()
    };
    let _ = task.and_then(|task| prepare(log, task));
}

/// Makes the next segment, so that rolling needs no disk under the lock.
///
/// # Errors
///
/// The error of the disk, or of a closed partition.
pub(super) fn make_next(log: &SharedLog) -> Result<()> {
    let _running = log.begin_disk_work()?;
    let task = {
        let mut state = log.lock_for_writing()?;
        if !state.log().appender().prepared().is_empty() {
            return Ok(());
        }
        let mut task = state.log_mut().factory_mut().begin_prepare()?;
        // Once it exists, older segments can be removed; without it, a budget that is used up would
        // remain so.
        task.new.exceeds_budget = true;
        task
    };
    prepare(log, task)
}

/// At a clean close, once appends have ended: shortens the last file to little more than its data.
/// What fails costs space, and nothing else.
///
/// Before the last sync, which then has less to write.
pub(crate) fn give_back(log: &SharedLog) {
    let Ok(_running) = log.begin_disk_work() else { return };
    let shortening = {
        let mut state = log.lock();
        // After a failure the files are evidence.
        if !state.has_ended() || state.failure().is_some() || !log.status().is_available() {
            return;
        }
        state.log_mut().appender_mut().end_space()
    };
    let _ = shortening.map_or(Ok(()), Shortening::run);
}

fn prepare(log: &SharedLog, task: PrepareTask) -> Result<()> {
    let prepared = task.run()?;
    let mut state = log.state().lock_for_change();
    if state.has_ended() {
        // The topic may be deleted, and its directory with it.
        prepared.discard(&*state.log().env().disk);
        return Err(log.status().closed());
    }
    if let Some(late) = state.log_mut().appender_mut().finish_prepare(prepared) {
        late.discard(&*state.log().env().disk);
    }
    Ok(())
}
