//! What is to run beside a broker that is being opened: see [`attached`](super::attached).

use std::sync::Arc;

use super::attached::Attached;
use super::handle::Broker;
use crate::error::Result;
use crate::partition::leadership::Leadership;

/// Something that will run beside a broker, once that is open.
pub(crate) trait Attachment: Send {
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config): a setting cannot work.
    fn validate(&self) -> Result<()>;

    fn leadership(&self) -> Arc<Leadership>;

    /// Begins. `broker` does not keep the run alive. Without `background` threads, it runs when it is
    /// [called](Attached::run).
    ///
    /// # Errors
    ///
    /// Nothing runs then.
    fn begin(self: Box<Self>, broker: Broker, background: bool) -> Result<Arc<dyn Attached>>;
}
