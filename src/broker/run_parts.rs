//! The parts of a run that every service of a broker works with.
//!
//! Owns: nothing of its own; a clone shares the parts. Must not know: the services, which are made
//! from it.
//!
//! Invariant: all clones in one engine are of the same run: the engine makes one, and passes it on.

use std::sync::Arc;

use super::catalog_writer::CatalogWriter;
use super::context::{Context, Settings};
use super::gate::Gate;
use super::internal_logs::InternalLogs;
use super::live_topics::LiveTopics;
use crate::log::LogEnv;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct RunParts {
    context: Arc<Context>,
    gate: Arc<Gate>,
    logs: Arc<InternalLogs>,
    live: Arc<LiveTopics>,
}

impl RunParts {
    /// Of a run that is being opened: the table of topics is empty.
    pub(super) fn new(context: Arc<Context>, gate: Arc<Gate>, logs: Arc<InternalLogs>) -> Self {
        let live = Arc::new(LiveTopics::new(&gate));
        Self { context, gate, logs, live }
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// What the logs of the broker share.
    pub(super) fn env(&self) -> &Arc<LogEnv> {
        &self.context.env
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn logs(&self) -> &InternalLogs {
        &self.logs
    }

    /// What records changes of the catalog.
    pub(super) fn catalog_writer(&self) -> CatalogWriter<'_> {
        CatalogWriter::new(&self.context, &self.logs)
    }

    pub(super) fn live(&self) -> &LiveTopics {
        &self.live
    }
}
