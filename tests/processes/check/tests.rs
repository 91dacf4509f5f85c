//! Histories written by hand: a good one, and one violation of each rule.

use super::*;

fn record(number: u64) -> Value {
    Value::Record(number)
}

fn sent(times: (u64, u64), number: u64, by: By, answer: Answer) -> Event {
    let (from, to) = times;
    Event { from, to, what: What::Sent { partition: 0, number, by, answer } }
}

fn acknowledged(times: (u64, u64), number: u64, offset: u64) -> Event {
    sent(times, number, By::Quorum, Answer::At(offset))
}

fn read(times: (u64, u64), records: &[(u64, u64)], mark: u64, is_confirmed: bool) -> Event {
    let at = Run { member: 1, run: 1 };
    let records = records.iter().map(|(offset, number)| (*offset, record(*number))).collect();
    let mark = Some(mark);
    let what = What::Read { at, session: 1, partition: 0, records, mark, is_confirmed };
    Event { from: times.0, to: times.1, what }
}

fn polled(times: (u64, u64), records: &[(u64, u64)]) -> Event {
    let records = records.iter().map(|(offset, number)| (0, *offset, record(*number))).collect();
    let what = What::Polled { group: 1, records, is_confirmed: true };
    Event { from: times.0, to: times.1, what }
}

fn committed(times: (u64, u64), position: u64) -> Event {
    let what = What::Committed { group: 1, positions: vec![(0, position)] };
    Event { from: times.0, to: times.1, what }
}

/// Three members with these records in partition 0.
fn end(numbers: &[u64], committed: u64) -> End {
    let log: Vec<_> = (0..).zip(numbers.iter().map(|number| record(*number))).collect();
    End { logs: vec![vec![log]; 3], committed: [((1, 0), committed)].into() }
}

const NEVER: u64 = u64::MAX;

/// Records 10, 11, 12 of clients that wait; 20 to 22 of one that does not; 30 and 31 with numbers.
fn good() -> (Vec<Event>, End) {
    let queue = |index| By::Queue { batch: 1, index };
    let sequence = |sequence| By::Sequence { producer: 1, sequence };
    let history = vec![
        acknowledged((1, 2), 10, 0),
        acknowledged((3, 4), 11, 1),
        sent((5, 6), 40, By::Quorum, Answer::Refused),
        sent((7, NEVER), 41, By::Quorum, Answer::Unknown),
        sent((8, 9), 42, By::Leader, Answer::At(2)),
        acknowledged((8, 12), 12, 2),
        sent((10, 11), 20, queue(0), Answer::At(3)),
        sent((10, NEVER), 21, queue(1), Answer::Unknown),
        sent((10, 11), 22, queue(2), Answer::At(4)),
        sent((13, 20), 30, sequence(1), Answer::Duplicate),
        sent((21, 22), 31, sequence(2), Answer::At(6)),
        read((5, 6), &[(0, 10)], 1, false),
        read((7, 8), &[(1, 11)], 2, false),
        read((23, 24), &[(2, 12), (3, 20)], 7, true),
        polled((9, 10), &[(0, 10), (1, 11)]),
        committed((11, 12), 2),
        polled((13, 14), &[(2, 12), (3, 20)]),
        polled((25, 26), &[(2, 12), (3, 20), (4, 22), (5, 30), (6, 31)]),
        committed((27, 28), 7),
    ];
    (history, end(&[10, 11, 12, 20, 22, 30, 31], 7))
}

#[test]
fn a_good_history_has_no_violation() {
    let (history, end) = good();
    let summary = check(&history, &end).unwrap();
    let expected = Summary {
        acknowledged: 7,
        open: 3,
        open_there: 0,
        refused: 1,
        read: 13,
        commits: 2,
        confirmed: 4,
    };
    assert_eq!(summary, expected);
}

/// The good history after a change, and a word of the violation that must be found.
#[track_caller]
fn refused(word: &str, change: impl FnOnce(&mut Vec<Event>, &mut End)) {
    let (mut history, mut end) = good();
    change(&mut history, &mut end);
    let violations = check(&history, &end).expect_err(word);
    assert!(violations.iter().any(|it| it.contains(word)), "{word}: {violations:?}");
}

fn set(end: &mut End, offset: usize, number: u64) {
    for log in &mut end.logs {
        log[0][offset].1 = record(number);
    }
}

fn push(end: &mut End, number: u64) {
    for log in &mut end.logs {
        let offset = log[0].len() as u64;
        log[0].push((offset, record(number)));
    }
}

#[test]
fn an_acknowledged_record_that_is_lost_moved_or_doubled_is_found() {
    refused("was acknowledged at (0, 2)", |_, end| set(end, 2, 41));
    refused("was acknowledged at (0, 4)", |_, end| {
        end.logs.iter_mut().for_each(|log| drop(log[0].remove(4)));
    });
    refused("is at (0, 0) and at", |_, end| push(end, 10));
    refused("was a duplicate, and is missing", |_, end| set(end, 5, 41));
    refused("has wrong bytes", |_, end| {
        end.logs.iter_mut().for_each(|log| log[0][1].1 = Value::Wrong("x".to_owned()));
    });
    refused("is at 0/7", |history, end| {
        let what = What::Sent { partition: 1, number: 50, by: By::Leader, answer: Answer::Unknown };
        history.push(Event { from: 30, to: NEVER, what });
        push(end, 50);
    });
}

#[test]
fn a_record_that_nobody_sent_or_that_was_refused_is_found() {
    refused("nobody sent record 77", |_, end| push(end, 77));
    refused("record 40 (sent at 5 by Quorum) was refused", |_, end| push(end, 40));
}

/// What may be there may be there, once.
#[test]
fn an_open_outcome_is_open() {
    let (mut history, mut end) = good();
    push(&mut end, 41);
    history.push(polled((30, 31), &[(7, 41)]));
    assert_eq!(check(&history, &end).unwrap().open_there, 1);
    refused("is at (0, 7) and at", |_, end| {
        push(end, 41);
        push(end, 41);
    });
}

#[test]
fn members_that_differ_are_found() {
    refused("members 0 and 2 differ at Some(3)", |_, end| end.logs[2][0][3].1 = record(41));
    refused("members 0 and 1 differ at None", |_, end| drop(end.logs[1][0].pop()));
    refused("a gap", |_, end| end.logs.iter_mut().for_each(|log| log[0][6].0 = 8));
    refused("no member", |_, end| end.logs.clear());
}

#[test]
fn a_wrong_order_is_found() {
    // 11 was sent after 10 was acknowledged.
    refused("is after record 11", |history, end| {
        history[0] = acknowledged((1, 2), 10, 1);
        history[1] = acknowledged((3, 4), 11, 0);
        set(end, 0, 11);
        set(end, 1, 10);
    });
    // One producer, two records that overlap.
    refused("is after number 2", |history, end| {
        set(end, 3, 22);
        set(end, 4, 20);
        history[6] = sent((10, 11), 20, By::Queue { batch: 1, index: 0 }, Answer::At(4));
        history[8] = sent((10, 11), 22, By::Queue { batch: 1, index: 2 }, Answer::At(3));
    });
    refused("is after number 1", |history, _| {
        let by = By::Sequence { producer: 1, sequence: 1 };
        history[10] = sent((21, 22), 31, by, Answer::At(6));
    });
}

#[test]
fn a_reader_that_sees_what_is_not_there_is_found() {
    refused("a reader at", |history, _| history[11] = read((5, 6), &[(0, 41)], 1, false));
    refused("a reader at", |history, _| history[13] = read((23, 24), &[(7, 41)], 8, false));
    refused("above the mark", |history, _| history[12] = read((7, 8), &[(1, 11)], 1, false));
    refused("read 3 of partition 0", |history, _| {
        history[13] = read((23, 24), &[(3, 20)], 7, true);
    });
    refused("group 1 saw", |history, _| history[14] = polled((9, 10), &[(0, 10), (1, 41)]));
}

#[test]
fn a_watermark_that_falls_or_is_behind_is_found() {
    refused("fell from 2 to 1", |history, _| history.push(read((9, 10), &[], 1, false)));
    refused("confirmed a watermark of 6", |history, _| {
        history.push(read((25, 26), &[], 6, true));
        history.remove(13);
    });
    refused("had a watermark of 9", |history, _| history.push(read((30, 31), &[], 9, false)));
    // Not confirmed, at the same time as another look, or in another run: no violation.
    let (mut history, end) = good();
    history.push(read((7, 30), &[], 1, false));
    let mut other = read((40, 41), &[], 0, false);
    if let What::Read { at, .. } = &mut other.what {
        at.run = 2;
    }
    history.push(other);
    check(&history, &end).unwrap();
}

#[test]
fn a_lost_commit_is_found() {
    refused("7 was committed, and the position is 2", |_, end| {
        end.committed.insert((1, 0), 2);
    });
    refused("1 was polled at 25, and 2 was committed", |history, _| {
        history[17] = polled((25, 26), &[(1, 11), (2, 12), (3, 20), (4, 22), (5, 30), (6, 31)]);
    });
}

#[test]
fn a_group_that_skips_is_found() {
    refused("4 was polled at 26, and 2 was not", |history, _| {
        history[16] = polled((13, 14), &[]);
        history[17] = polled((25, 26), &[(4, 22), (5, 30), (6, 31)]);
    });
    refused("6 records of 7 were read", |history, end| {
        history[17] = polled((25, 26), &[(2, 12), (3, 20), (4, 22), (5, 30)]);
        history.pop();
        end.committed.insert((1, 0), 6);
    });
    refused("7 is committed, and 6 records were read", |history, _| {
        history[17] = polled((25, 26), &[(2, 12), (3, 20), (4, 22), (5, 30)]);
    });
}

#[test]
fn a_strange_answer_is_found() {
    refused("it failed", |history, _| {
        history.push(Event { from: 9, to: 9, what: What::Strange("it failed".to_owned()) });
    });
}
