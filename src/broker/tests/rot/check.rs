//! What a damaged store may be, and what not.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::store::{
    End, Layout, PARTITIONS, Records, Store, partition, producer, read_around, sizes,
};
use crate::broker::Broker;
use crate::broker::tests::model::{DIR, open};
use crate::error::{Corruption, CorruptionKind, Error};
use crate::format::SegmentHeader;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::SimulatedDisk;

/// What has happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    Flip { at: u64, mask: u8 },
    Length(u64),
}

/// How often what came of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) harms: u64,
    pub(super) refused: u64,
    pub(super) losses: u64,
    pub(super) torn: u64,
    pub(super) found: u64,
    pub(super) quiet: u64,
    pub(super) failures: Vec<String>,
}

/// One damaged store.
pub(super) struct Trial<'a> {
    pub(super) store: &'a Store,
    pub(super) path: &'a Path,
    pub(super) harm: Harm,
}

/// What was seen of one partition.
struct Seen {
    records: Records,
    holes: Vec<Range<u64>>,
    corrupt: Vec<Corruption>,
    cut_bytes: u64,
}

impl Seen {
    /// All offsets that opening or reading said were lost.
    fn reported(&self) -> Vec<Range<u64>> {
        let of_report = self.corrupt.iter().filter_map(|it| it.offsets.clone());
        of_report.chain(self.holes.iter().cloned()).collect()
    }
}

impl Trial<'_> {
    pub(super) fn run(&self, tally: &mut Tally) {
        let context = &format!("{:?}, {:?}: {:?}", self.store.end, self.path, self.harm);
        let disk = self.store.disk.kill9();
        match self.harm {
            Harm::Flip { at, mask } => disk.corrupt(self.path, at, mask).unwrap(),
            Harm::Length(length) => disk.truncate(self.path, length).unwrap(),
        }
        let before = contents(&disk);
        tally.harms += 1;
        match open(&disk, 9) {
            Err(error) => {
                tally.refused += 1;
                let file = named(&error, context);
                let again = open(&disk, 10).err();
                let again = again.unwrap_or_else(|| panic!("{context}: healed after {error:?}"));
                assert_eq!(named(&again, context), file, "{context}: {again:?}");
            }
            Ok(broker) => self.survey(&disk, broker, context, tally),
        }
        let after = sizes(&disk);
        for (path, before) in before {
            let after = after.get(&path);
            let is_kept = after.is_some_and(|after| self.is_kept(&path, &before, *after));
            let may_go = self.store.superseded.contains(&path) || self.is_empty_now(&path);
            assert!(is_kept || may_go, "{context}: {path:?} was removed or shortened");
        }
    }

    /// A file is as long as it was; or the run continued in it, and its close has given back space
    /// that nobody had used.
    fn is_kept(&self, path: &Path, before: &[u8], after: u64) -> bool {
        let after = usize::try_from(after).unwrap();
        let may_end = self.store.layouts.get(path).is_some_and(|layout| layout.is_last);
        let unused = before.get(after..).unwrap_or_default();
        unused.is_empty() || (may_end && unused.iter().all(|byte| *byte == 0))
    }

    /// Cut off after its header, or in its opening batch if none came after it, a segment is as
    /// good as never used, and may go.
    fn is_empty_now(&self, path: &Path) -> bool {
        let Some(layout) = self.layout().filter(|_| path == self.path) else { return false };
        let first = layout.spans.first().map_or(0, |span| span.bytes.start);
        let header = SegmentHeader::SIZE as u64;
        matches!(self.harm, Harm::Length(length)
            if length == header || (length < first && layout.is_last))
    }

    fn layout(&self) -> Option<&Layout> {
        self.store.layouts.get(self.path)
    }

    /// The offsets that may be lost: of one batch, of what was cut off, or of the segment.
    fn tolerated(&self) -> BTreeSet<u64> {
        let header = SegmentHeader::SIZE as u64;
        let Some(layout) = self.layout() else { return BTreeSet::new() };
        let spans = layout.spans.iter().filter(|span| match self.harm {
            Harm::Flip { at, .. } => at < header || span.bytes.contains(&at),
            Harm::Length(length) => length < header || span.bytes.end > length,
        });
        spans.flat_map(|span| span.offsets.clone()).collect()
    }

    /// Whether nothing proves that what was harmed had ever been synced: the last batch of a
    /// broker that was killed; or, where the file ends, all after it, and what proved it.
    fn may_be_torn(&self) -> bool {
        let Some(layout) = self.layout().filter(|layout| layout.is_last) else { return false };
        let last = layout.spans.last().map_or(0, |last| last.bytes.start);
        let is_tail = match self.harm {
            Harm::Flip { at, .. } => at >= last,
            Harm::Length(length) => length >= SegmentHeader::SIZE as u64,
        };
        self.store.end == End::Killed && is_tail
    }

    fn survey(&self, disk: &SimulatedDisk, broker: Broker, context: &str, tally: &mut Tally) {
        let own_is_torn = self.check_own(&broker, context);
        let mut lost = BTreeSet::new();
        let mut first: Vec<Seen> = Vec::new();
        for of in PARTITIONS {
            if own_is_torn && broker.topic(of.0).is_err() {
                let unknown = &broker.recovery().unknown;
                assert!(unknown.contains(&Path::new(DIR).join(of.0)), "{context}: {unknown:?}");
                continue;
            }
            let seen = seen(&broker, of, context);
            lost.extend(self.check_records(of, &seen, context));
            first.push(seen);
        }
        tally.losses += u64::from(!lost.is_empty());
        let is_found = self.check_verify(&broker, &lost, context);
        tally.found += u64::from(is_found);
        tally.quiet += u64::from(!is_found);
        tally.torn += u64::from(own_is_torn || !broker.recovery().is_clean() && !is_found);
        let appended = append(&broker, context);
        if tally.harms.is_multiple_of(2) {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        let again = open(disk, 10).unwrap_or_else(|error| panic!("{context}: again: {error:?}"));
        for ((of, next, value), first) in appended.iter().zip(first) {
            let seen = seen(&again, *of, context);
            assert_eq!(seen.records.get(next), Some(value), "{context}: {of:?} at {next}");
            let older: Records = seen.records.range(..next).map(copied).collect();
            assert!(older == first.records, "{context}: {of:?} is not what it was");
            let reported = seen.reported();
            for hole in first.reported().iter().filter(|hole| hole.start < hole.end) {
                let is_reported = |at: u64| reported.iter().any(|gap| gap.contains(&at));
                // A log that has lost its first segment begins after it: what was in there is not
                // missed any more, but the file is named: by the opening, or a verification.
                let verified = || again.admin().verify(of.0).unwrap().damage;
                let is_ours = |it: &Corruption| it.file == self.path;
                let is_named = seen.corrupt.iter().any(is_ours) || verified().iter().any(is_ours);
                // Of a bare header nothing says that there was more; and the rest of an only
                // segment stands for an empty log once that was reported, and closed.
                let is_only = self.layout().is_some_and(|layout| layout.is_first);
                let is_bare = self.harm == Harm::Length(SegmentHeader::SIZE as u64);
                let is_spent = is_bare || (is_only && self.is_empty_now(self.path));
                let is_reported = is_named || is_spent || hole.clone().all(is_reported);
                assert!(is_reported, "{context}: {hole:?} is not in {reported:?}");
            }
        }
    }

    /// Commits and the named producer are what they were, or the loss of the last of them is
    /// reported. Whether an internal log was torn.
    fn check_own(&self, broker: &Broker, context: &str) -> bool {
        let cut = |name: &str| {
            let report = &broker.recovery().partitions;
            let own = report.iter().find(|it| &*it.topic == name).unwrap();
            let is_reported = own.cut_bytes > 0 || matches!(self.harm, Harm::Length(_));
            is_reported && self.path.starts_with(Path::new(DIR).join(name))
        };
        let is_killed = self.store.end == End::Killed;
        let (offsets, catalog) = (cut("__offsets") && is_killed, cut("__meta") && is_killed);
        for ((group, topic, number), commits) in &self.store.commits {
            let Ok(shared) = broker.run().topic(topic) else { continue };
            let found = broker.run().coordinator().offsets().committed(group, shared.id, *number);
            let found = found.map(|it| it.offset);
            let (last, before) = commits.split_last().unwrap();
            let is_older = found.is_none_or(|found| before.contains(&found));
            let is_right = found == Some(*last) || (offsets && is_older);
            assert!(is_right, "{context}: {group} {topic}-{number} {found:?}, not {last}");
        }
        let named = producer(broker);
        assert!(named == self.store.producer || catalog, "{context}: {named:?}");
        let closed = broker.recovery().clean_shutdown;
        assert!(!closed || self.store.end == End::Closed, "{context}: not closed cleanly");
        catalog
    }

    /// Nothing is read that was not written, and what is missing was hit, and is reported. Returns
    /// what is missing.
    fn check_records(&self, of: (&str, u32), seen: &Seen, context: &str) -> BTreeSet<u64> {
        let written = &self.store.records.iter().find(|(it, _)| **it == of).unwrap().1;
        for (offset, record) in &seen.records {
            assert_eq!(Some(record), written.get(offset), "{context}: {of:?} at {offset}");
        }
        let is_lost = |offset: &u64| !seen.records.contains_key(offset);
        let lost: BTreeSet<u64> = written.keys().copied().filter(is_lost).collect();
        if lost.is_empty() {
            return lost;
        }
        let tolerated = self.tolerated();
        let is_hit = self.layout().is_some_and(|layout| layout.of == of);
        assert!(is_hit && lost.is_subset(&tolerated), "{context}: {of:?} lost {lost:?}");
        let reported = seen.reported();
        // Without its header nobody can say what else there was.
        let is_named = |it: &Corruption| it.file == self.path && it.position == 0;
        let has_no_header = seen.corrupt.iter().any(is_named);
        let is_cut = seen.cut_bytes > 0 || matches!(self.harm, Harm::Length(_));
        for offset in &lost {
            let is_reported = reported.iter().any(|hole| hole.contains(offset));
            let is_torn = self.may_be_torn() && is_cut;
            assert!(
                is_reported || has_no_header || is_torn,
                "{context}: {of:?} silently lost {offset}"
            );
        }
        lost
    }

    /// A verification finds damage in the file that was hit, wherever something that counts was.
    fn check_verify(&self, broker: &Broker, lost: &BTreeSet<u64>, context: &str) -> bool {
        let mut damage = Vec::new();
        for (topic, _) in [PARTITIONS[0], PARTITIONS[2], PARTITIONS[3]] {
            damage.extend(broker.admin().verify(topic).into_iter().flat_map(|it| it.damage));
        }
        let is_found = damage.iter().any(|it| it.file == self.path);
        let Some(layout) = self.layout() else {
            assert_eq!(damage, [], "{context}");
            return false;
        };
        let is_in_data = match self.harm {
            Harm::Flip { at, .. } => at < layout.data_end,
            // All that is left of it is what a segment has that was prepared and never used.
            Harm::Length(length) if length == SegmentHeader::SIZE as u64 => return is_found,
            // All that is left of the log: it stands for an empty one, as opening has said.
            Harm::Length(_) if layout.is_first && self.is_empty_now(self.path) => return is_found,
            Harm::Length(length) => length < layout.data_end,
        };
        let torn = self.may_be_torn();
        let is_gap = |it: &Corruption| {
            matches!(it.kind, CorruptionKind::Missing | CorruptionKind::ShortOfDurable { .. })
        };
        let is_named = is_found || damage.iter().any(is_gap);
        assert!(is_named || torn || lost.is_empty() && !is_in_data, "{context}: {damage:?}");
        is_found
    }
}

/// Where a record was appended, and what is read there.
type Appended = ((&'static str, u32), u64, Vec<u8>);

/// Every partition takes records; returns where, and what is read there.
fn append(broker: &Broker, context: &str) -> Vec<Appended> {
    let mut appended = Vec::new();
    for of in PARTITIONS.into_iter().filter(|of| broker.topic(of.0).is_ok()) {
        let partition = partition(broker, of);
        let offset = partition.append(&Record::new().key("k").value("after"));
        let offset = offset.unwrap_or_else(|error| panic!("{context}: {of:?}: {error:?}"));
        let (records, _) = read_around(&partition, context);
        let (at, value) = records.last_key_value().unwrap();
        assert_eq!(*at, offset, "{context}: {of:?}");
        appended.push((of, offset, value.clone()));
    }
    appended
}

fn contents(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), disk.read(&path).unwrap());
    disk.paths().into_iter().map(read).collect()
}

fn copied((offset, value): (&u64, &Vec<u8>)) -> (u64, Vec<u8>) {
    (*offset, value.clone())
}

/// The file that an opening which fails must name.
fn named(error: &Error, context: &str) -> PathBuf {
    match error {
        Error::Corrupt(Corruption { file, .. }) => file.clone(),
        Error::UnsupportedVersion { path, .. } => path.clone(),
        other => panic!("{context}: {other:?}"),
    }
}

fn seen(broker: &Broker, of: (&str, u32), context: &str) -> Seen {
    let (records, holes) = read_around(&partition(broker, of), context);
    let at = TopicPartition::from(of);
    let report = broker.recovery().partitions.iter();
    let mut report = report.filter(|it| it.topic == at.topic && it.partition == at.partition);
    let report = report.next().unwrap();
    Seen { records, holes, corrupt: report.corrupt.clone(), cut_bytes: report.cut_bytes }
}
