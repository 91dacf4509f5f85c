//! Reading a topic's files again, all of them.

use serde::Serialize;

use super::Admin;
use crate::error::{Corruption, Result};
use crate::log::verify::Findings;

/// What [`Admin::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many whole batches there are.
    pub batches: u64,
    /// How many records are in them.
    pub records: u64,
    /// What is damaged, by partition and then in the order of the log.
    pub damage: Vec<Corruption>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Admin {
    /// Reads everything that is published in a topic again, from its files and not from memory.
    /// Checks every header, checksum, offset, timestamp, index and footer, and returns the damage
    /// as values.
    ///
    /// It stops at no damage, changes nothing and blocks nobody: appends, reads and retention
    /// continue, and a segment that is removed meanwhile does not count. It can also verify the
    /// internal logs `__meta`, `__offsets` and `__local`.
    ///
    /// ```
    /// # use logpond::{Broker, Record, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("emails", TopicConfig::new(1))?;
    /// # broker.producer().send(Record::to("emails").value("welcome!"))?;
    /// let report = broker.admin().verify("emails")?;
    /// assert!(report.is_ok(), "{:?}", report.damage);
    /// assert_eq!(report.records, 1);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic), also if the topic is deleted meanwhile;
    /// [`Error::Io`](crate::Error::Io) if the disk cannot be read;
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Blocking
    ///
    /// For the disk: reads every byte of the topic once, a megabyte at a time.
    pub fn verify(&self, topic: &str) -> Result<VerifyReport> {
        let engine = self.run();
        let own = engine.logs().partitions().into_iter().filter(|own| *own.origin.topic == *topic);
        let own: Vec<_> = own.collect();
        let partitions = if own.is_empty() { engine.topic(topic)?.partitions.clone() } else { own };
        let mut findings = Findings::default();
        for partition in &partitions {
            partition.reader().verify(&mut findings)?;
        }
        let Findings { batches, records, damage } = findings;
        Ok(VerifyReport { batches, records, damage })
    }
}
