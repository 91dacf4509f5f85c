//! What a script does to a group, step by step.
//!
//! Owns: nothing; each step is one of a [`Group`]'s machine or of the network. Must not know: what
//! must be true.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::log_key::LogKey;
use super::super::message::Body;
use super::super::shell::Catalog;
use super::group::Group;
use super::machine::SEGMENT_BYTES;
use super::truth::Violation;
use crate::config::TopicConfig;
use crate::error::CorruptionKind;
use crate::record::LeaderEpoch;

/// A byte of the header of a file, which says under what its checksums hold.
const IN_THE_HEADER: u64 = 8;

impl Group {
    /// Starts all, has the first machine lead, and creates the log that it returns.
    pub(super) fn begin(&mut self) -> Result<LogKey, Violation> {
        for index in 0..self.machines.len() {
            self.start(index)?;
        }
        self.lead(0, LeaderEpoch(1))?;
        self.flush()?;
        let mut key = LogKey::Meta;
        self.with(0, |run| {
            let config = TopicConfig::new(1).segment_bytes(SEGMENT_BYTES);
            let _ =
                run.broker.run().topics().begin_create("plain", config, &BTreeMap::new()).unwrap();
            run.shell.notice(LogKey::Meta);
            key = run.key("plain", 0).unwrap();
        })?;
        self.flush()?;
        Ok(key)
    }

    /// Appends so many records to the log of [`begin`](Self::begin), one by one, if the machine leads.
    pub(super) fn write(&mut self, index: usize, records: u64) -> Result<(), Violation> {
        for _ in 0..records {
            self.write_all(index, 1)?;
        }
        Ok(())
    }

    /// Appends a batch of so many records to that log.
    pub(super) fn write_batch(&mut self, index: usize, records: u64) -> Result<(), Violation> {
        self.write_all(index, records)
    }

    fn write_all(&mut self, index: usize, records: u64) -> Result<(), Violation> {
        let values: Vec<String> = (0..records)
            .map(|number| format!("{number} of a batch after {}", self.appended))
            .collect();
        self.appended += records;
        self.with(index, |run| {
            if Self::leads(run) {
                let key = run.key("plain", 0).unwrap();
                run.append(key, &values).unwrap();
                run.shell.notice(key);
            }
        })
    }

    /// Changes so much of the internal logs of the first machine that both are cleaned up, below a trim
    /// that a majority has.
    pub(super) fn clean_up(&mut self) -> Result<(), Violation> {
        for _ in 0..100 {
            self.flood(0)?;
            self.flush()?;
            if self.cleaned.0 > 0 && self.cleaned.1 > 0 {
                return Ok(());
            }
        }
        Err(Violation("the internal logs are not cleaned up".to_owned()))
    }

    /// The first machine creates a topic with one record, if it leads.
    pub(super) fn create(&mut self, name: &str) -> Result<LogKey, Violation> {
        let mut key = LogKey::Meta;
        self.with(0, |run| {
            let config = TopicConfig::new(1).segment_bytes(SEGMENT_BYTES);
            let _ = run.broker.run().topics().begin_create(name, config, &BTreeMap::new()).unwrap();
            run.shell.notice(LogKey::Meta);
            key = run.key(name, 0).unwrap();
            run.append(key, &[format!("the first of {name}")]).unwrap();
            run.shell.notice(key);
        })?;
        self.flush()?;
        Ok(key)
    }

    /// It deletes a topic, of which nothing remains.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), Violation> {
        self.with(0, |run| {
            let _ = run.broker.run().topics().begin_delete(name).unwrap();
            run.shell.notice(LogKey::Meta);
        })?;
        self.flush()?;
        let clock = self.machines[0].clock.clone();
        self.with(0, |run| {
            clock.advance(Duration::from_secs(100));
            run.broker.tick().unwrap();
            run.notice_all();
            assert!(run.broker.topic(name).is_err());
        })?;
        self.flush()
    }

    /// It adds a partition to a topic.
    pub(super) fn grow(&mut self, name: &str) -> Result<(), Violation> {
        self.with(0, |run| {
            let total = run.broker.topic(name).unwrap().partitions() + 1;
            let _ = run.broker.run().begin_add_partitions(name, total).unwrap();
            run.shell.notice(LogKey::Meta);
        })?;
        self.flush()
    }

    /// Removes the records below an offset from the log of [`begin`](Self::begin).
    pub(super) fn remove_below(&mut self, index: usize, start: u64) -> Result<(), Violation> {
        let Some(run) = &self.machines[index].run else { return Ok(()) };
        let Some(key) = run.key("plain", 0) else { return Ok(()) };
        self.truth.asks(key, start);
        self.with(index, |run| {
            let (topic, core) = run.catalog.partition(key).unwrap();
            run.broker.run().space().retention().raise_start(topic, &core, start).unwrap();
            run.shell.notice(key);
        })
    }

    /// Cuts a machine off in both directions, and loses what is on the way.
    pub(super) fn sever(&mut self, index: usize) {
        self.flight.clear();
        self.cut.extend((0..self.machines.len()).flat_map(|it| [(index, it), (it, index)]));
    }

    /// Loses the questions about a log that are on the way.
    pub(super) fn lose(&mut self, log: LogKey) {
        self.flight.retain(|frame| match &frame.envelope.body {
            Body::Fetch(fetch) => fetch.log != log,
            _ => true,
        });
    }

    /// Loses the answers with records that are on the way.
    pub(super) fn lose_answers(&mut self) {
        self.flight.retain(|frame| frame.batches.is_empty());
    }

    /// How many bytes of records are on the way to a machine.
    pub(super) fn bytes_to(&self, index: usize) -> usize {
        let node = self.machines[index].make.node;
        let frames = self.flight.iter().filter(|frame| frame.envelope.to == node);
        frames.flat_map(|frame| &frame.batches).map(|batches| batches.bytes.len()).sum()
    }

    /// All can reach each other again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// A machine beats twice: what it said before, and was lost, is not on the way any more.
    pub(super) fn beat_twice(&mut self, index: usize) -> Result<(), Violation> {
        self.resend(index)?;
        self.resend(index)
    }

    /// A machine dies, and its disk rots so that the next opening finds that it does not know the
    /// epochs of a log.
    pub(super) fn rot_and_die(&mut self, index: usize, log: LogKey) -> Result<(), Violation> {
        self.has_rotten = true;
        self.has_lost = true;
        self.crash(index, None);
        self.machines[index].rot_at("plain", 0, IN_THE_HEADER);
        self.start(index)?;
        let run = self.machines[index].run.as_ref().unwrap();
        let log = run.shell.member().state().logs().get(log).unwrap();
        assert!(log.damaged, "the opening has not found it");
        Ok(())
    }

    /// A machine finds that it cannot read a log.
    pub(super) fn damage(&mut self, index: usize, log: LogKey) -> Result<(), Violation> {
        self.has_rotten = true;
        self.has_lost = true;
        self.with(index, |run| {
            let first = run.core(log).unwrap().log().segments().first().unwrap();
            run.shell.damaged(log, first.corruption(0, None, CorruptionKind::Magic).into());
        })
    }

    pub(super) fn resend(&mut self, index: usize) -> Result<(), Violation> {
        self.with(index, |run| run.shell.resend())
    }

    /// Delivers frames, and what they cause, so often; the rest is lost.
    pub(super) fn exchange(&mut self, turns: usize) -> Result<(), Violation> {
        for _ in 0..turns {
            self.deliver_once()?;
        }
        self.flight.clear();
        Ok(())
    }

    /// Delivers the frames that are on the way now.
    pub(super) fn deliver_once(&mut self) -> Result<(), Violation> {
        for frame in std::mem::take(&mut self.flight) {
            self.arrive(&frame)?;
        }
        Ok(())
    }
}
