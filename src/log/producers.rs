//! What the log remembers of named producers, so that a retry is stored once.
//!
//! One entry per producer id: its epoch and the last sequence number. The table is written at the
//! head and in the footer of every segment, so neither retention nor compaction can forget it.

use std::collections::HashMap;

use crate::format::ProducerState;

/// Which number the records of a batch take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// The number after the last one; the first is 1, so that the last number of a producer that
    /// only ever sends is the count of its records.
    Next,
    /// This number. Not above the last one: the record is a duplicate.
    At(u64),
}

/// What the table says of a batch that wants to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new; its first record takes this number.
    Append { base_sequence: u64 },
    /// It is there already, at or before `last_offset`.
    Duplicate { last_sequence: u64, last_offset: u64 },
    /// A newer holder of the id has taken over.
    Fenced { current: u32 },
    /// The numbers are used up.
    Exhausted,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ProducerTable(HashMap<u64, ProducerState>);

impl ProducerTable {
    pub(crate) fn from_states(states: impl IntoIterator<Item = ProducerState>) -> Self {
        Self(states.into_iter().map(|state| (state.id, state)).collect())
    }

    /// The entries, by id: the same table is always written as the same bytes.
    pub(crate) fn states(&self) -> Vec<ProducerState> {
        let mut states: Vec<_> = self.0.values().copied().collect();
        states.sort_unstable_by_key(|state| state.id);
        states
    }

    pub(crate) fn get(&self, id: u64) -> Option<&ProducerState> {
        self.0.get(&id)
    }

    pub(crate) fn admit(&self, id: u64, epoch: u32, sequence: Sequence, records: u32) -> Admission {
        let known = self.0.get(&id);
        if let Some(state) = known.filter(|state| state.epoch > epoch) {
            return Admission::Fenced { current: state.epoch };
        }
        let base_sequence = match (sequence, known) {
            (Sequence::Next, None) => 1,
            (Sequence::Next, Some(state)) => match state.last_sequence.checked_add(1) {
                Some(next) => next,
                None => return Admission::Exhausted,
            },
            (Sequence::At(number), Some(state)) if number <= state.last_sequence => {
                return Admission::Duplicate {
                    last_sequence: state.last_sequence,
                    last_offset: state.last_offset,
                };
            }
            (Sequence::At(number), _) => number,
        };
        match base_sequence.checked_add(u64::from(records.saturating_sub(1))) {
            Some(_) => Admission::Append { base_sequence },
            None => Admission::Exhausted,
        }
    }

    /// Takes note of a batch that is in the log.
    pub(crate) fn note(&mut self, state: ProducerState) {
        let entry = self.0.entry(state.id).or_insert(state);
        if state.epoch >= entry.epoch && state.last_sequence >= entry.last_sequence {
            *entry = state;
        }
    }

    /// Takes note of all that a later part of the log says.
    pub(crate) fn merge(&mut self, later: &Self) {
        for state in later.0.values() {
            self.note(*state);
        }
    }

    /// Counts all as used at `now`: what a scan finds bears the records' own timestamps, which say
    /// nothing about when they were appended.
    pub(crate) fn touch(&mut self, now: u64) {
        for state in self.0.values_mut() {
            state.last_timestamp = state.last_timestamp.max(now);
        }
    }

    /// Drops those that have been idle since before `deadline` (milliseconds since 1970).
    pub(crate) fn expire(&mut self, deadline: u64) {
        self.0.retain(|_, state| state.last_timestamp >= deadline);
    }
}

#[cfg(test)]
mod tests;
