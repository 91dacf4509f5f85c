//! What runs beside the engine of a broker and uses it: the member of a replicated group.
//!
//! Owns: the interface by which the broker begins and ends it. The rooms above implement it, so that this one
//! does not know them.

use std::any::Any;

use super::replication_metrics::ReplicationMetrics;
use crate::error::Result;
use crate::partition::leadership::PartitionId;

/// Something that runs beside a broker.
pub(crate) trait Attached: Send + Sync {
    /// Does what there is to do, for a broker without background threads.
    fn run(&self);

    /// Ends: nothing is read, written or sent any more, but for what a thread is doing now. `gives_way`:
    /// others are notified, so that they need not find out.
    fn stop(&self, gives_way: bool);

    /// Whether this thread may wait for other members.
    ///
    /// # Errors
    ///
    /// It is called by code of the application that the member waits for.
    fn check_wait(&self) -> Result<()>;

    /// Waits until a majority has noted, durably, that a partition begins at `start` or above, as it does
    /// here since it was led in `epoch`.
    ///
    /// # Errors
    ///
    /// A majority may have noted it or not.
    fn wait_start(&self, partition: PartitionId, start: u64, epoch: u32) -> Result<()>;

    /// What the metrics of the broker say of it. Waits for no disk, and not for what it is doing.
    fn metrics(&self) -> ReplicationMetrics;

    /// What the application holds of it.
    fn handle(&self) -> Box<dyn Any>;
}
