//! The checker: says whether a history is one that a replicated queue may have. It knows nothing but
//! the history and the logs at the end.

mod groups;
mod rising;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use rising::Rising;

use crate::history::{Answer, By, End, Event, Run, Value, What};

/// What a history without violations contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Records that were acknowledged by a majority.
    pub(crate) acknowledged: usize,
    /// Records whose outcome was open; how many of them are there.
    pub(crate) open: usize,
    pub(crate) open_there: usize,
    pub(crate) refused: usize,
    /// Records that readers and groups saw.
    pub(crate) read: usize,
    pub(crate) commits: usize,
    /// Reads and polls before which the member confirmed that it leads.
    pub(crate) confirmed: usize,
}

/// Reports at most so many violations: one fault breaks many rules.
const SHOWN: usize = 12;

struct Violations(Vec<String>);

impl Violations {
    fn add(&mut self, violation: String) {
        if self.0.len() < SHOWN {
            self.0.push(violation);
        }
    }
}

/// A record that a client sent.
struct Sent {
    from: u64,
    to: u64,
    partition: usize,
    by: By,
    answer: Answer,
}

impl Sent {
    /// Whether it must be there.
    fn is_certain(&self) -> bool {
        self.by != By::Leader && matches!(self.answer, Answer::At(_) | Answer::Duplicate)
    }
}

/// What all members have at the end: the numbers of the records by partition and offset.
struct Logs {
    partitions: Vec<Vec<u64>>,
    /// By the number of the record: partition and offset.
    positions: HashMap<u64, (usize, u64)>,
}

impl Logs {
    fn get(&self, partition: usize, offset: u64) -> Option<u64> {
        let offset = usize::try_from(offset).ok()?;
        self.partitions.get(partition)?.get(offset).copied()
    }

    fn end(&self, partition: usize) -> u64 {
        self.partitions.get(partition).map_or(0, |log| log.len() as u64)
    }
}

/// # Errors
///
/// The rules that the history breaks.
pub(crate) fn check(history: &[Event], end: &End) -> Result<Summary, Vec<String>> {
    let mut violations = Violations(Vec::new());
    let logs = agreed(end, &mut violations);
    let sent = sent(history, &mut violations);
    check_contents(&logs, &sent, &mut violations);
    check_answers(&logs, &sent, &mut violations);
    check_order(&logs, &sent, &mut violations);
    check_readers(history, &logs, &mut violations);
    check_watermarks(history, &logs, &sent, &mut violations);
    groups::check(history, end, &logs, &mut violations);
    for event in history {
        if let What::Strange(what) = &event.what {
            violations.add(format!("at {}: {what}", event.from));
        }
    }
    if violations.0.is_empty() { Ok(summary(history, &logs, &sent)) } else { Err(violations.0) }
}

/// All members have the same records, without gaps.
fn agreed(end: &End, violations: &mut Violations) -> Logs {
    let mut logs = Logs { partitions: Vec::new(), positions: HashMap::new() };
    let Some(first) = end.logs.first() else {
        violations.add("no member has a log".to_owned());
        return logs;
    };
    for (member, copy) in end.logs.iter().enumerate() {
        for (partition, (mine, others)) in first.iter().zip(copy).enumerate() {
            if mine != others {
                let at = mine.iter().zip(others).position(|(mine, other)| mine != other);
                violations.add(format!(
                    "partition {partition}: members 0 and {member} differ at {at:?}, of {} and {}",
                    mine.len(),
                    others.len()
                ));
            }
        }
    }
    for (partition, records) in first.iter().enumerate() {
        let mut log = Vec::new();
        for (rank, (offset, value)) in records.iter().enumerate() {
            if *offset != rank as u64 {
                violations.add(format!("partition {partition}: {offset} is not {rank}: a gap"));
            }
            match value {
                Value::Record(number) => {
                    let before = logs.positions.insert(*number, (partition, *offset));
                    if let Some(before) = before {
                        let now = (partition, offset);
                        violations.add(format!("record {number} is at {before:?} and at {now:?}"));
                    }
                    log.push(*number);
                }
                Value::Wrong(text) => {
                    violations.add(format!("{partition}/{offset} has wrong bytes: {text:?}"));
                    log.push(u64::MAX);
                }
            }
        }
        logs.partitions.push(log);
    }
    logs
}

fn sent(history: &[Event], violations: &mut Violations) -> HashMap<u64, Sent> {
    let mut all = HashMap::new();
    for event in history {
        let What::Sent { partition, number, by, answer } = event.what else { continue };
        let sent = Sent { from: event.from, to: event.to, partition, by, answer };
        if all.insert(number, sent).is_some() {
            violations.add(format!("the history has two sends of record {number}"));
        }
    }
    all
}

/// What is there was sent, and to that partition.
fn check_contents(logs: &Logs, sent: &HashMap<u64, Sent>, violations: &mut Violations) {
    for (number, (partition, offset)) in &logs.positions {
        match sent.get(number) {
            None => violations.add(format!("{partition}/{offset}: nobody sent record {number}")),
            Some(sent) if sent.partition != *partition => violations.add(format!(
                "record {number} was sent to partition {} and is at {partition}/{offset}",
                sent.partition
            )),
            Some(_) => {}
        }
    }
}

/// What was acknowledged is there, at the offset of the answer; what was refused is not.
fn check_answers(logs: &Logs, sent: &HashMap<u64, Sent>, violations: &mut Violations) {
    for (number, sent) in sent {
        let found = logs.positions.get(number).copied();
        let what = || format!("record {number} (sent at {} by {:?})", sent.from, sent.by);
        match sent.answer {
            Answer::At(offset) if sent.by != By::Leader => {
                if found != Some((sent.partition, offset)) {
                    let answer = (sent.partition, offset);
                    let there = logs.get(sent.partition, offset);
                    violations.add(format!(
                        "{} was acknowledged at {answer:?} and is at {found:?}; there is {there:?}",
                        what()
                    ));
                }
            }
            Answer::Duplicate if found.is_none() => {
                violations.add(format!("{} was a duplicate, and is missing", what()));
            }
            Answer::Refused if found.is_some() => {
                violations.add(format!("{} was refused, and is at {found:?}", what()));
            }
            Answer::At(_) | Answer::Duplicate | Answer::Refused | Answer::Unknown => {}
        }
    }
}

/// A record that was acknowledged before another one was sent is before it in their partition. Records
/// of one producer are in its order, also those that did not wait for each other.
fn check_order(logs: &Logs, sent: &HashMap<u64, Sent>, violations: &mut Violations) {
    for (partition, log) in logs.partitions.iter().enumerate() {
        let mut latest = (0, 0);
        let mut last = HashMap::<(bool, u64), u64>::new();
        for (number, sent) in log.iter().filter_map(|number| Some((number, sent.get(number)?))) {
            if sent.to < latest.0 {
                violations.add(format!(
                    "partition {partition}: record {number} was acknowledged at {}, and is after \
                     record {}, which was sent at {}",
                    sent.to, latest.1, latest.0
                ));
            }
            latest = latest.max((sent.from, *number));
            let (producer, rank) = match sent.by {
                By::Queue { batch, index } => ((false, batch), index as u64),
                By::Sequence { producer, sequence } => ((true, producer), sequence),
                By::Quorum | By::Leader => continue,
            };
            if let Some(before) = last.insert(producer, rank)
                && before >= rank
            {
                violations.add(format!(
                    "partition {partition}: record {number}, {:?}, is after number {before}",
                    sent.by
                ));
            }
        }
    }
}

fn check_record(
    logs: &Logs,
    (partition, offset): (usize, u64),
    value: &Value,
    who: &str,
    violations: &mut Violations,
) {
    let there = logs.get(partition, offset);
    let is_same = matches!(value, Value::Record(number) if there == Some(*number));
    if !is_same {
        violations.add(format!("{who} saw {value:?} at {partition}/{offset}; there is {there:?}"));
    }
}

/// What anybody saw is there, and no session missed a record.
fn check_readers(history: &[Event], logs: &Logs, violations: &mut Violations) {
    let mut sessions = BTreeMap::<(u64, usize), Vec<(u64, &[(u64, Value)])>>::new();
    for event in history {
        match &event.what {
            What::Read { at, session, partition, records, mark, .. } => {
                let who = format!("a reader at {at:?}");
                for (offset, value) in records {
                    check_record(logs, (*partition, *offset), value, &who, violations);
                    if mark.is_some_and(|mark| *offset >= mark) {
                        violations.add(format!("{who} saw {offset} above the mark {mark:?}"));
                    }
                }
                sessions.entry((*session, *partition)).or_default().push((event.from, records));
            }
            What::Polled { group, records, .. } => {
                for (partition, offset, value) in records {
                    let who = format!("group {group}");
                    check_record(logs, (*partition, *offset), value, &who, violations);
                }
            }
            _ => {}
        }
    }
    for ((session, partition), mut reads) in sessions {
        reads.sort_by_key(|(from, _)| *from);
        let offsets = reads.iter().flat_map(|(_, records)| records.iter().map(|it| it.0));
        let mut before = None;
        for offset in offsets {
            if before.is_some_and(|before| offset != before + 1) {
                violations.add(format!(
                    "session {session} read {offset} of partition {partition} after {before:?}"
                ));
            }
            before = Some(offset);
        }
    }
}

/// In one run of a member a high watermark does not fall. If the member has confirmed that it leads, the
/// watermark then covers all that was acknowledged before it was asked.
fn check_watermarks(
    history: &[Event],
    logs: &Logs,
    sent: &HashMap<u64, Sent>,
    violations: &mut Violations,
) {
    let mut seen = BTreeMap::<(Run, usize), Vec<(u64, u64)>>::new();
    let mut acknowledged = BTreeMap::<usize, Vec<(u64, u64)>>::new();
    for (number, sent) in sent.iter().filter(|(_, sent)| sent.is_certain()) {
        if let Some((partition, offset)) = logs.positions.get(number) {
            acknowledged.entry(*partition).or_default().push((sent.to, offset + 1));
        }
    }
    let marks = || {
        history.iter().filter_map(|event| match &event.what {
            What::Read { at, partition, mark: Some(mark), is_confirmed, .. } => {
                Some((event, *at, *partition, *mark, *is_confirmed))
            }
            _ => None,
        })
    };
    for (event, at, partition, mark, _) in marks() {
        seen.entry((at, partition)).or_default().push((event.to, mark));
    }
    let seen: BTreeMap<_, _> = seen.into_iter().map(|(at, seen)| (at, Rising::new(seen))).collect();
    let acknowledged: BTreeMap<_, _> =
        acknowledged.into_iter().map(|(at, all)| (at, Rising::new(all))).collect();
    for (event, at, partition, mark, is_confirmed) in marks() {
        let before = seen.get(&(at, partition)).map_or(0, |seen| seen.before(event.from));
        if mark < before {
            violations.add(format!(
                "partition {partition}: the high watermark of {at:?} fell from {before} to {mark}"
            ));
        }
        let certain = acknowledged.get(&partition).map_or(0, |all| all.before(event.from));
        if is_confirmed && mark < certain {
            violations.add(format!(
                "partition {partition}: {at:?} confirmed a watermark of {mark} at {}, and {certain} \
                 was acknowledged before",
                event.from
            ));
        }
        if mark > logs.end(partition) {
            violations.add(format!("partition {partition}: {at:?} had a watermark of {mark}"));
        }
    }
}

fn summary(history: &[Event], logs: &Logs, sent: &HashMap<u64, Sent>) -> Summary {
    let mut summary = Summary::default();
    for (number, sent) in sent {
        let is_open = sent.answer == Answer::Unknown || sent.by == By::Leader;
        let is_there = logs.positions.contains_key(number);
        summary.acknowledged += usize::from(sent.is_certain());
        summary.refused += usize::from(sent.answer == Answer::Refused);
        summary.open += usize::from(is_open && sent.answer != Answer::Refused);
        summary.open_there += usize::from(is_open && is_there);
    }
    for event in history {
        match &event.what {
            What::Read { records, is_confirmed, .. } => {
                summary.read += records.len();
                summary.confirmed += usize::from(*is_confirmed);
            }
            What::Polled { records, is_confirmed, .. } => {
                summary.read += records.len();
                summary.confirmed += usize::from(*is_confirmed);
            }
            What::Committed { .. } => summary.commits += 1,
            What::Sent { .. } | What::Strange(_) => {}
        }
    }
    summary
}
