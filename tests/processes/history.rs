//! The history of a round: what clients asked, what they were answered, and what is in the logs at
//! the end. Plain data, which the checker reads.

use std::collections::BTreeMap;

use crate::common::Rng;

/// The partitions of all topics, by number.
pub(crate) const PARTITIONS: [(&str, u32); 5] =
    [("os", 0), ("os", 1), ("os", 2), ("sync", 0), ("sync", 1)];

/// The value of a record as somebody read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// All bytes are those of the record with this number.
    Record(u64),
    /// The bytes of no record.
    Wrong(String),
}

impl Value {
    pub(crate) fn new(text: &str) -> Self {
        let number = text.split('~').next().and_then(|number| number.parse().ok());
        match number {
            Some(number) if value_of(number) == text => Self::Record(number),
            _ => Self::Wrong(text.to_owned()),
        }
    }
}

/// The bytes of a record follow from its number: so the history need not contain them. Most are
/// short; some fill a good part of a segment.
pub(crate) fn value_of(number: u64) -> String {
    let mut rng = Rng::new(!number);
    let length = if rng.one_in(50) { 4_000 } else { rng.index(300) };
    let mut text = format!("{number}~");
    text.extend(rng.bytes(length).into_iter().map(|byte| char::from(b'a' + byte % 26)));
    text
}

/// What a client asked for, when, and what it was answered. Times are counted by the controller: a
/// call began after all that was answered before its `from`.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) from: u64,
    /// When the answer arrived; `u64::MAX` if there was none, or one that leaves the outcome open:
    /// what was asked for may still happen later.
    pub(crate) to: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Sent {
        partition: usize,
        number: u64,
        by: By,
        answer: Answer,
    },
    /// Somebody read one partition of a member without a group. Sessions read without gaps.
    Read {
        at: Run,
        session: u64,
        partition: usize,
        records: Vec<(u64, Value)>,
        /// The high watermark, looked up after the records.
        mark: Option<u64>,
        /// Whether the member had confirmed that it leads, after it was asked.
        is_confirmed: bool,
    },
    /// A group got records: partition, offset, value.
    Polled {
        group: u32,
        records: Vec<(usize, u64, Value)>,
        is_confirmed: bool,
    },
    /// A commit was acknowledged: partition and position.
    Committed {
        group: u32,
        positions: Vec<(usize, u64)>,
    },
    /// A call returned what it must not return, or a member failed without a reason.
    Strange(String),
}

/// One run of a member: it ends when its process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) member: usize,
    pub(crate) run: u64,
}

/// How a record was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// `send` at `Acks::Quorum`.
    Quorum,
    /// `send` at `Acks::Leader`: such a record may be lost.
    Leader,
    /// `enqueue`: one of several that do not wait for each other.
    Queue { batch: u64, index: usize },
    /// `send_sequenced`, repeated until it was acknowledged, with the same number and bytes.
    Sequence { producer: u64, sequence: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    At(u64),
    /// Of a repeated send: the record was there.
    Duplicate,
    /// A definite error: nothing was appended.
    Refused,
    /// An error that is not definite, or no answer.
    Unknown,
}

/// What is there when everything was healed.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    /// For each member the records of each partition.
    pub(crate) logs: Vec<Vec<Vec<(u64, Value)>>>,
    /// By group and partition. The groups have read everything.
    pub(crate) committed: BTreeMap<(u32, usize), u64>,
}

#[test]
fn a_changed_value_is_noticed() {
    for number in [0, 7, u64::MAX] {
        let text = value_of(number);
        assert_eq!(Value::new(&text), Value::Record(number));
        for wrong in [format!("{text}a"), text.replace('~', "a~"), format!("1{text}")] {
            assert_eq!(Value::new(&wrong), Value::Wrong(wrong.clone()));
        }
    }
    assert_eq!(Value::new("no number"), Value::Wrong("no number".to_owned()));
}
