//! Groups: a commit that was acknowledged is not lost, and no record is skipped.

use std::collections::BTreeMap;

use super::rising::Rising;
use super::{Logs, Violations};
use crate::history::{End, Event, What};

/// By group and partition.
type Key = (u32, usize);

pub(super) fn check(history: &[Event], end: &End, logs: &Logs, violations: &mut Violations) {
    let mut acknowledged = BTreeMap::<Key, Vec<(u64, u64)>>::new();
    for event in history {
        let What::Committed { group, positions } = &event.what else { continue };
        for (partition, position) in positions {
            acknowledged.entry((*group, *partition)).or_default().push((event.to, *position));
        }
    }
    let acknowledged: BTreeMap<Key, Rising> =
        acknowledged.into_iter().map(|(key, all)| (key, Rising::new(all))).collect();
    for (key, commits) in &acknowledged {
        let (last, now) = (commits.before(u64::MAX), end.committed.get(key).copied().unwrap_or(0));
        if now < last {
            violations.add(format!(
                "group {}, partition {}: {last} was committed, and the position is {now}",
                key.0, key.1
            ));
        }
    }
    check_resumes(history, &acknowledged, violations);
    check_coverage(history, end, logs, violations);
}

/// A group does not read again what it had committed before the poll. At a member that has lost its
/// leadership without noticing it may; but such a member does not confirm that it leads.
fn check_resumes(
    history: &[Event],
    acknowledged: &BTreeMap<Key, Rising>,
    violations: &mut Violations,
) {
    for event in history {
        let What::Polled { group, records, is_confirmed: true } = &event.what else { continue };
        for (partition, offset, _) in records {
            let commits = acknowledged.get(&(*group, *partition));
            let committed = commits.map_or(0, |commits| commits.before(event.from));
            if *offset < committed {
                violations.add(format!(
                    "group {group}, partition {partition}: {offset} was polled at {}, and \
                     {committed} was committed before",
                    event.from
                ));
            }
        }
    }
}

/// A group gets a record only after all before it, and a position is committed only after all records
/// below it were read; at the end all records were.
fn check_coverage(history: &[Event], end: &End, logs: &Logs, violations: &mut Violations) {
    let mut polls: Vec<_> = history
        .iter()
        .filter_map(|event| match &event.what {
            What::Polled { group, records, .. } => Some((event.to, *group, records)),
            _ => None,
        })
        .collect();
    polls.sort_by_key(|(to, ..)| *to);
    let mut covered = BTreeMap::<Key, u64>::new();
    for (to, group, records) in polls {
        for (partition, offset, _) in records {
            let covered = covered.entry((group, *partition)).or_default();
            if *offset > *covered {
                violations.add(format!(
                    "group {group}, partition {partition}: {offset} was polled at {to}, and \
                     {covered} was not"
                ));
            }
            *covered = (*covered).max(offset + 1);
        }
    }
    for ((group, partition), position) in &end.committed {
        let covered = covered.get(&(*group, *partition)).copied().unwrap_or(0);
        let all = logs.end(*partition);
        if covered < all {
            violations.add(format!(
                "group {group}, partition {partition}: {covered} records of {all} were read"
            ));
        }
        if *position > covered {
            violations.add(format!(
                "group {group}, partition {partition}: {position} is committed, and {covered} \
                 records were read"
            ));
        }
    }
}
