//! What the state machine wants done.
//!
//! Owns: the kinds of effects. The shell carries them out in order: an effect begins when those
//! before it are done, so what is sent rests on what was noted before it. Must not know: who does it,
//! and how.

use super::log_key::LogKey;
use super::membership::Membership;
use super::message::Envelope;
use super::notes::Note;
use crate::record::LeaderEpoch;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// The logs are synced up to their ends. Comes before the note that rests on it.
    Sync(Vec<LogKey>),
    /// The note is durable.
    Note(Note),
    /// The records of the answer in hand are appended, byte for byte.
    Append {
        log: LogKey,
        records: u64,
    },
    /// The records from `to` on are removed, durably before the next append.
    Truncate {
        log: LogKey,
        to: u64,
    },
    /// All records are removed, and the log continues at `start`, which is noted durably first.
    BeginAnew {
        log: LogKey,
        start: u64,
    },
    /// The records below `start` are no longer needed.
    RaiseStart {
        log: LogKey,
        start: u64,
    },
    /// The log is removed: its creation was.
    Remove(LogKey),
    /// The leader appends this record to `__meta`, in its epoch. Others may append before it, so where
    /// it is in the log is reported as with any other record.
    AppendMembership(Membership),
    /// The same, durably, as the first record of the epoch, before anything rests on that it leads.
    BeginGroup(Membership),
    /// Another run of this directory is noted, later than this one: it was put back from a copy. It
    /// notes that it is another directory from now on, and the run ends.
    Disown,
    /// The answer to a fetch is sent with the bytes of its records.
    Send(Box<Envelope>),
    /// Readers may see the records below.
    Watermark {
        log: LogKey,
        offset: u64,
    },
    /// A majority has synced what is below, of a log whose copies count without that.
    Synced {
        log: LogKey,
        offset: u64,
    },
    /// The log is synced, and the engine says so later.
    SyncSoon(LogKey),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// This run leads: its logs are those that the epoch begins with.
    Leading(LeaderEpoch),
    /// Readers at this leader see all that was acknowledged before its epoch began, in each log.
    Current(LeaderEpoch),
    LeadershipLost(LeaderEpoch, Declined),
    /// The epoch will not be led by this run.
    Declined(LeaderEpoch, Declined),
    Following(LeaderEpoch),
    /// An answer would have removed records below the high watermark, or from a log that has adopted
    /// the epoch. In a group in which all keep the rules it never occurs.
    CutRefused(LogKey),
    /// This member has what it may have lost.
    Whole,
    /// Records that no majority had are removed, between these offsets.
    Truncated(LogKey, u64, u64),
    /// A damaged log is removed, to be copied again; it had records between these offsets.
    Repaired(LogKey, u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Declined {
    /// A listed member belongs to a group already, or has records.
    Founded,
    /// One of its logs is damaged.
    Damaged,
    /// It was asked to.
    Resigned,
    /// Another run leads the epoch.
    Led,
    /// A greater epoch was promised meanwhile.
    Promised(LeaderEpoch),
    /// Its directory was put back from a copy.
    PutBack,
}
