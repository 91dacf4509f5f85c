//! The table of named producers of a log, by which a retry is recognised.
//!
//! It has one entry per producer id: its epoch and its last sequence number. The table is stored in
//! the opening batch and in the footer of every segment, so neither retention nor compaction
//! removes it.

use std::collections::HashMap;

use crate::clock::Moment;
use crate::format::ProducerState;

/// Which number the records of a batch take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// None. Only the source assigns numbers, so a record without one must not use one up.
    Absent,
    /// This number. If it is not above the last one, the record is a duplicate.
    At(u64),
    /// Rising numbers, one for each record, from the first to the last. If the first is not above
    /// the last one known, at least one record is a duplicate.
    Rising { first: u64, last: u64 },
}

/// Whether the table admits a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new; its first record takes this number, if any.
    Append { base_sequence: Option<u64> },
    /// It is stored already, at or before `last_offset`.
    Duplicate { last_sequence: u64, last_offset: u64 },
    /// A newer holder of the id has taken over.
    Fenced { current: u32 },
    /// The numbers are used up.
    Exhausted,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ProducerTable(HashMap<u64, Row>);

#[derive(Debug, Clone, Copy)]
struct Row {
    /// The stored form: its time of last use is the wall clock's.
    state: ProducerState,
    /// The last use in the time of this run.
    used: u64,
}

impl ProducerTable {
    pub(crate) fn from_states(states: impl IntoIterator<Item = ProducerState>) -> Self {
        let row = |state: ProducerState| (state.id, Row { state, used: state.last_timestamp });
        Self(states.into_iter().map(row).collect())
    }

    /// The entries, by id: the same table is always written as the same bytes.
    pub(crate) fn states(&self) -> Vec<ProducerState> {
        let mut states: Vec<_> = self.0.values().map(|row| row.state).collect();
        states.sort_unstable_by_key(|state| state.id);
        states
    }

    /// The entries as they are stored at `now`. A row that was used while the wall clock was slow
    /// must not look idle once the clock is right.
    pub(crate) fn states_at(&self, now: Moment) -> Vec<ProducerState> {
        let mut states = self.states();
        for state in &mut states {
            let used = self.0.get(&state.id).map_or(now.run, |row| row.used);
            state.last_timestamp =
                Moment { wall: state.last_timestamp, run: used }.latest_wall(now);
        }
        states
    }

    pub(crate) fn get(&self, id: u64) -> Option<&ProducerState> {
        self.0.get(&id).map(|row| &row.state)
    }

    pub(crate) fn admit(&self, id: u64, epoch: u32, sequence: Sequence, records: u32) -> Admission {
        let known = self.get(id);
        if let Some(state) = known.filter(|state| state.epoch > epoch) {
            return Admission::Fenced { current: state.epoch };
        }
        let duplicate_of = |state: &ProducerState| Admission::Duplicate {
            last_sequence: state.last_sequence,
            last_offset: state.last_offset,
        };
        let more = u64::from(records.saturating_sub(1));
        let number = match (sequence, known) {
            (Sequence::Absent, _) => return Admission::Append { base_sequence: None },
            (Sequence::At(number), Some(state)) if number <= state.last_sequence => {
                return duplicate_of(state);
            }
            (Sequence::Rising { first, .. }, Some(state)) if first <= state.last_sequence => {
                return duplicate_of(state);
            }
            (Sequence::At(number), _) => number,
            // FORMAT: a batch stores one number, from which its last one follows; only that is
            // remembered. Rising numbers are at least as far apart as their records.
            (Sequence::Rising { last, .. }, _) => last.saturating_sub(more),
        };
        match number.checked_add(more) {
            Some(_) => Admission::Append { base_sequence: Some(number) },
            None => Admission::Exhausted,
        }
    }

    /// Records that a producer appended without a number, so that it does not count as idle.
    pub(crate) fn note_use(&mut self, id: u64, now: Moment) {
        if let Some(row) = self.0.get_mut(&id) {
            row.state.last_timestamp = row.state.last_timestamp.max(now.wall);
            row.used = row.used.max(now.run);
        }
    }

    /// Adds a batch of the log.
    pub(crate) fn note(&mut self, state: ProducerState, used: u64) {
        let row = Row { state, used };
        let entry = self.0.entry(state.id).or_insert(row);
        let known = &entry.state;
        if state.epoch >= known.epoch && state.last_sequence >= known.last_sequence {
            *entry = row;
        }
    }

    /// Adds the producers of a later part of the log.
    pub(crate) fn merge(&mut self, later: &Self) {
        for row in later.0.values() {
            self.note(row.state, row.used);
        }
    }

    /// Counts all as used at `now`: a scan finds only the records' timestamps, which do not say
    /// when they were appended.
    pub(crate) fn touch(&mut self, now: Moment) {
        for row in self.0.values_mut() {
            row.state.last_timestamp = row.state.last_timestamp.max(now.wall);
            row.used = now.run;
        }
    }

    /// Converts the stored times for a run whose time is `now`: no use was later than that.
    pub(crate) fn begin_run(&mut self, now: u64) {
        for row in self.0.values_mut() {
            row.used = Moment::from_stored(row.state.last_timestamp, now).run;
        }
    }

    /// Drops those that have been idle since before `deadline`, in the time of this run.
    pub(crate) fn expire(&mut self, deadline: u64) {
        self.0.retain(|_, row| row.used >= deadline);
    }
}

#[cfg(test)]
mod tests;
