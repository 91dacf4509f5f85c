//! Verification: reads all files of a topic again.

use serde::Serialize;

use super::Admin;
use crate::error::{Corruption, Result};
use crate::log::verify::Findings;

/// The result of [`Admin::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many undamaged batches (units of append and checksum) the topic has.
    pub batches: u64,
    /// How many records are in them.
    pub records: u64,
    /// All damage, by partition and then in the order of the log.
    pub damage: Vec<Corruption>,
}

impl VerifyReport {
    /// Returns whether nothing is damaged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Admin {
    /// Reads all records of a topic from its files and checks every header, checksum, offset,
    /// timestamp and index. Returns all damage as values.
    ///
    /// It does not stop at damage and changes nothing. Appends, reads and retention continue
    /// meanwhile; a segment that is removed during the call is left out. The names `__meta`,
    /// `__offsets` and `__local` verify the logs in which the broker stores its own state.
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
