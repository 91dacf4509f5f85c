//! `Late`: answers that say nothing but how far a majority is, held back for a moment.
//!
//! After each record that a caller waits for, the leader has two such answers for each follower. A reader
//! there needs the last one, soon; but each wakes a thread, which takes the processor from the next
//! record. So threads that have other things to do leave them to the member's thread, and the next
//! answer about the same log replaces them. To their receiver they are frames that are late.
//!
//! Owns: these answers, and when they are sent. Pure. Must not know: threads, and how frames travel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::log_key::LogKey;
use super::membership::MemberRun;
use super::message::{Body, Fetch, Fetched, Found};
use super::wire::Said;

/// LIMIT: how late readers of a follower may see a record because of this: far less than a beat, and as
/// long as some dozens of records take that are waited for one by one.
const HELD: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(super) struct Late {
    /// By the run that asked, and the log.
    answers: BTreeMap<(MemberRun, LogKey), Said>,
    due: Option<Instant>,
}

impl Late {
    /// Keeps what may be late, and returns what is to be sent now.
    pub(super) fn hold(&mut self, all: Vec<Said>, now: Instant) -> Vec<Said> {
        let mut rest = Vec::with_capacity(all.len());
        for said in all {
            let Some((key, asked, may_be_late)) = answer_of(&said) else {
                rest.push(said);
                continue;
            };
            // An answer to an earlier question, which was late or repeated, is not obeyed any more: it
            // does not say what the one does that is held back.
            let held = self.answers.get(&key).and_then(answer_of);
            let is_replaced = held.is_none_or(|(_, of, _)| asked.from >= of.from);
            if is_replaced {
                self.answers.remove(&key);
            }
            if !may_be_late {
                rest.push(said);
            } else if is_replaced {
                self.answers.insert(key, said);
            }
        }
        if self.answers.is_empty() {
            self.due = None;
        } else {
            self.due.get_or_insert(now + HELD);
        }
        rest
    }

    /// When something is to be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be sent at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Said> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        std::mem::take(self).answers.into_values().collect()
    }
}

/// To whom an answer is and about which log, what was asked, and whether the answer may be late: it has
/// no records, and the follower has adopted the epoch, so it needs none to do so.
fn answer_of(said: &Said) -> Option<((MemberRun, LogKey), &Fetch, bool)> {
    let Said::Parcel(parcel) = said else { return None };
    let Body::Fetched(Fetched { to, asked, found, led, .. }) = &parcel.envelope.body else {
        return None;
    };
    let says_little = matches!(found, Found::Records { .. }) && parcel.batches.is_empty();
    // A producer waits for what it asks for.
    let asks = led.is_some_and(|led| led.strict.is_open());
    let may_be_late = says_little && asked.adopted && led.is_some() && !asks;
    Some(((*to, asked.log), asked, may_be_late))
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Batches, Frame};
    use super::super::membership::{DirectoryId, MemberRun};
    use super::super::message::{Envelope, Led};
    use super::super::strict::Strict;
    use super::*;
    use crate::clock::real_now;
    use crate::log::replica::under::Under;
    use crate::record::{LeaderEpoch, NodeId};

    fn answer(to: u64, watermark: u64, adopted: bool, batch: &'static [u8]) -> Said {
        answer_to((to, 7), 9, watermark, adopted, batch)
    }

    fn answer_to(
        (to, directory): (u64, u128),
        from: u64,
        watermark: u64,
        adopted: bool,
        batch: &'static [u8],
    ) -> Said {
        let directory = DirectoryId(directory);
        let run = |node| MemberRun { node: NodeId(node), directory, session: 1 };
        let before = Some(LeaderEpoch(1));
        let log = LogKey::Offsets;
        let asked = Fetch { log, from, before, adopted, synced: from, held: from, start: 0 };
        let found = Found::Records { ranges: Vec::new(), changes: Vec::new() };
        let led = Some(Led { began: 0, watermark, end: 9, strict: Strict::default() });
        let body = Body::Fetched(Fetched { to: run(to), asked, start: 0, led, found });
        let (group, epoch) = (None, LeaderEpoch(1));
        let envelope = Envelope { group, from: run(1), to: NodeId(to), epoch, body };
        let batches = Batches { under: Under { salt: 0, features: 0 }, bytes: batch.into() };
        let batches = if batch.is_empty() { Vec::new() } else { vec![batches] };
        Said::Parcel(Box::new(Frame { envelope, batches }))
    }

    fn watermarks(all: impl IntoIterator<Item = Said>) -> Vec<(u64, u64)> {
        let one = |said: Said| {
            let Said::Parcel(parcel) = said else { panic!("it is an answer") };
            let Body::Fetched(Fetched { led: Some(led), .. }) = parcel.envelope.body else {
                panic!("it is an answer of a leader")
            };
            (parcel.envelope.to.0, led.watermark)
        };
        all.into_iter().map(one).collect()
    }

    // RED: src/replication/late.rs
    //   - self.answers.remove(&key);
    #[test]
    fn of_the_answers_without_records_the_last_one_is_sent_a_moment_later() {
        let (mut late, begin) = (Late::default(), real_now());
        let all = vec![answer(2, 1, true, b""), answer(3, 1, true, b""), answer(2, 2, true, b"")];
        assert!(late.hold(all, begin).is_empty());
        assert_eq!(late.due(), Some(begin + HELD));
        // Records are not held back, and say what was.
        let more = vec![answer(3, 3, true, b"record"), answer(2, 4, true, b"")];
        let now = begin + HELD / 2;
        assert_eq!(watermarks(late.hold(more, now)), [(3, 3)]);
        assert_eq!(late.due(), Some(begin + HELD), "the first one is not held back any longer");
        assert!(late.take_due(now).is_empty());
        assert_eq!(watermarks(late.take_due(begin + HELD)), [(2, 4)]);
        assert_eq!(late.due(), None);
    }

    /// An answer with records to a question of before removed the one that the follower still waits for,
    /// and that came with the next beats only.
    // RED: src/replication/late.rs
    //   - let is_replaced = held.is_none_or(|(_, of, _)| asked.from >= of.from);
    //   + let is_replaced = true;
    #[test]
    fn an_answer_to_an_earlier_question_replaces_none() {
        let (mut late, begin) = (Late::default(), real_now());
        assert!(late.hold(vec![answer_to((2, 7), 5, 5, true, b"")], begin).is_empty());
        let repeated = answer_to((2, 7), 3, 4, true, b"record");
        assert_eq!(watermarks(late.hold(vec![repeated], begin)), [(2, 4)]);
        assert!(late.hold(vec![answer_to((2, 7), 3, 4, true, b"")], begin).is_empty());
        assert_eq!(watermarks(late.take_due(begin + HELD)), [(2, 5)]);
    }

    /// A member may run from two directories for a moment.
    #[test]
    fn answers_to_two_runs_of_a_member_do_not_replace_each_other() {
        let (mut late, begin) = (Late::default(), real_now());
        let all = vec![answer_to((2, 7), 5, 1, true, b""), answer_to((2, 8), 5, 2, true, b"")];
        assert!(late.hold(all, begin).is_empty());
        assert_eq!(watermarks(late.take_due(begin + HELD)), [(2, 1), (2, 2)]);
    }

    /// A follower that has not adopted the epoch waits for its answer, and the leader for that.
    // RED: src/replication/late.rs
    //   - let may_be_late = says_little && asked.adopted && led.is_some() && !asks;
    //   + let may_be_late = says_little && led.is_some() && !asks;
    #[test]
    fn what_a_follower_needs_to_count_is_not_held_back() {
        let mut late = Late::default();
        let sent = late.hold(vec![answer(2, 1, false, b"")], real_now());
        assert_eq!(watermarks(sent), [(2, 1)]);
        assert_eq!(late.due(), None);
    }

    // RED: src/replication/late.rs
    //   - let asks = led.is_some_and(|led| led.strict.is_open());
    //   + let asks = false;
    #[test]
    fn what_asks_for_a_sync_that_a_producer_waits_for_is_not_held_back() {
        let mut said = answer(2, 1, true, b"");
        if let Said::Parcel(parcel) = &mut said
            && let Body::Fetched(Fetched { led: Some(led), .. }) = &mut parcel.envelope.body
        {
            led.strict = Strict { wanted: 9, synced: 5 };
        }
        assert_eq!(watermarks(Late::default().hold(vec![said], real_now())), [(2, 1)]);
    }
}
