//! Verification: reads all files of a topic again.

use std::sync::Arc;

use serde::Serialize;

use super::Admin;
use crate::broker::internal_logs::INTERNAL_NAMES;
use crate::error::{Corruption, Error, Result};
use crate::log::verify::Findings;
use crate::partition::PartitionCore;
use crate::partition::reader::LOOKS;
use crate::record::TopicPartition;

/// The result of [`Admin::verify`] and [`Admin::verify_partition`].
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
    /// `__offsets` and `__local` verify the logs in which the broker stores its own state. A read-only
    /// broker [refreshes](crate::Broker::refresh) before it calls these damaged: the broker that writes
    /// replaces their files all the time.
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
        self.settled(topic, || report_on(self.named(topic)?.iter()))
    }

    /// Reads all records of one partition from its files and checks them, as
    /// [`verify`](Self::verify) does for all of a topic. Between the calls for the partitions of a
    /// topic, a program can show how far it is.
    ///
    /// ```
    /// # use logpond::{Broker, Record, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("emails", TopicConfig::new(4))?;
    /// # broker.producer().send(Record::to("emails").value("welcome!"))?;
    /// for number in 0..broker.topic("emails")?.partitions() {
    ///     println!("partition {number} of 4");
    ///     assert!(broker.admin().verify_partition(("emails", number))?.is_ok());
    /// }
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic), also if the topic is deleted meanwhile;
    /// [`Error::UnknownPartition`](crate::Error::UnknownPartition);
    /// [`Error::Io`](crate::Error::Io) if the disk cannot be read;
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Blocking
    ///
    /// For the disk: reads every byte of the partition once, a megabyte at a time.
    pub fn verify_partition(&self, partition: impl Into<TopicPartition>) -> Result<VerifyReport> {
        let partition = partition.into();
        self.settled(&partition.topic, || {
            let partitions = self.named(&partition.topic)?;
            match partitions.get(partition.partition as usize) {
                Some(core) => report_on([core]),
                None => Err(Error::UnknownPartition(partition.clone())),
            }
        })
    }

    /// Verifies. In a read-only broker, damage of an internal log counts once two looks have found the
    /// same, since another broker replaces its files. (Those of topics are listed again by the reads
    /// themselves.)
    fn settled(
        &self,
        topic: &str,
        verify: impl Fn() -> Result<VerifyReport>,
    ) -> Result<VerifyReport> {
        let mut found = verify();
        if !self.run().context().settings.read_only || !INTERNAL_NAMES.contains(&topic) {
            return found;
        }
        for _ in 0..LOOKS {
            if found.as_ref().is_ok_and(VerifyReport::is_ok) {
                break;
            }
            let before = format!("{found:?}");
            // The state itself cannot be read: that is in what was found.
            if self.broker.refresh_unreported().is_err() {
                break;
            }
            found = verify();
            if format!("{found:?}") == before {
                break;
            }
        }
        found
    }

    /// The partitions of a topic or of an internal log.
    fn named(&self, topic: &str) -> Result<Vec<Arc<PartitionCore>>> {
        let engine = self.run();
        let own = engine.logs().partitions().into_iter().filter(|own| *own.origin.topic == *topic);
        let own: Vec<_> = own.collect();
        if own.is_empty() { Ok(engine.topic(topic)?.partitions.clone()) } else { Ok(own) }
    }
}

fn report_on<'p>(
    partitions: impl IntoIterator<Item = &'p Arc<PartitionCore>>,
) -> Result<VerifyReport> {
    let mut findings = Findings::default();
    for partition in partitions {
        partition.reader().verify(&mut findings)?;
    }
    let Findings { batches, records, damage } = findings;
    Ok(VerifyReport { batches, records, damage })
}
