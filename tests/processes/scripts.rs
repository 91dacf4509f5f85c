//! What chance rarely finds: sequences of steps that lose a record if a member breaks one rule of the
//! protocol. Nobody is elected; the test calls who is to lead.

use crate::check::{Summary, check};
use crate::group::{Group, PATIENCE};
use crate::history::{By, Event};
use crate::links::{Flow, Link};
use crate::load::Load;
use crate::rounds::{TIMEOUT, end};

const PARTITION: usize = 0;

/// Three members, of which the first leads epoch 1, and what clients have seen.
struct Script {
    group: Group,
    history: Vec<Event>,
    seed: u64,
}

impl Script {
    fn begin() -> Self {
        let mut group = Group::without_elector(3, TIMEOUT, 1);
        group.until("the first member leads", |group| {
            group.ask(0, "lead 1");
            group.leader()
        });
        group.until("the topics are created", |group| {
            (group.ask(0, "set-up")? == "ok").then_some(())
        });
        let mut script = Self { group, history: Vec::new(), seed: 1 };
        for count in 1..=3 {
            script.acknowledged_at(0);
            script.seen_by_all(count);
        }
        script
    }

    fn client(&mut self, member: usize) -> Load {
        self.seed += 1;
        Load::new(&self.group.arena, member, self.seed)
    }

    /// Sends one record to a member, and returns whether it was acknowledged.
    fn send(&mut self, member: usize) -> bool {
        let mut client = self.client(member);
        let is_acknowledged = client.send(PARTITION, By::Quorum).is_some();
        self.history.extend(client.into_events());
        is_acknowledged
    }

    fn acknowledged_at(&mut self, member: usize) {
        let end = self.group.arena.now() + PATIENCE;
        while !self.send(member) {
            assert!(self.group.arena.now() < end, "{:?}", self.group.status(member));
        }
    }

    fn seen_by_all(&mut self, count: u64) {
        for member in self.group.members() {
            let mut reader = self.client(member);
            self.group.until("a member has it", |_| reader.read_all(PARTITION, count));
            self.history.extend(reader.into_events());
        }
    }

    fn link(&self, one: usize, other: usize, flow: Flow) {
        for (from, to) in [(one, other), (other, one)] {
            self.group.links.set(from, to, |link| *link = Link { flow, ..Link::GOOD });
        }
    }

    fn leads(&mut self, member: usize, epoch: u32) {
        self.group.until("it leads", |group| {
            let status = group.status(member)?;
            (status.role == "Leader" && status.epoch == epoch).then_some(())
        });
    }

    /// # Errors
    ///
    /// The rules that the history breaks.
    fn end(mut self) -> Result<Summary, Vec<String>> {
        self.group.heal();
        let end = end(&mut self.group, &mut self.history);
        check(&self.history, &end)
    }
}

/// The third member promises epoch 5 to the second one, which then leads without having said more to
/// it. The leader of epoch 1, who knows nothing of that, asks the third one to take a record; and the
/// second one gets the first one to follow. `is_killed`: after its promise.
fn a_promise(is_killed: bool) -> Result<Summary, Vec<String>> {
    let mut script = Script::begin();
    script.link(0, 1, Flow::Lost);
    script.link(0, 2, Flow::Lost);
    // What the third member says is on the way until the delay is changed.
    script.group.links.set(2, 1, |link| link.delay = PATIENCE);
    assert_eq!(script.group.ask(1, "lead 5").as_deref(), Some("ok"));
    script.group.until("it has promised", |group| (group.status(2)?.epoch == 5).then_some(()));
    if is_killed {
        script.group.kill(2);
    } else {
        script.group.stop(2);
    }
    script.group.links.set(1, 2, |link| link.flow = Flow::Lost);
    script.group.links.set(2, 1, |link| *link = Link::GOOD);
    script.leads(1, 5);
    script.link(1, 2, Flow::Lost);
    script.link(0, 2, Flow::Open);
    if is_killed {
        script.group.start(2);
    } else {
        script.group.resume(2);
    }
    // Until it hears from the third member that there is a greater epoch.
    while script.group.status(0).is_none_or(|status| status.role == "Leader") {
        if script.send(0) {
            break;
        }
    }
    script.link(0, 2, Flow::Lost);
    script.link(0, 1, Flow::Open);
    script.acknowledged_at(1);
    script.end()
}

// RED: src/replication/state.rs
//   - Note::Promise(_) => Rule::PromiseNoted.holds(),
//   + Note::Promise(_) => false,
#[test]
fn a_promise_is_kept_by_a_member_that_is_killed_right_after_it() {
    let _turn = crate::turn();
    let kept = a_promise(true);
    assert!(kept.is_ok(), "{kept:#?}");
}

// RED: src/replication/member.rs
//   - if epoch < promised && Rule::TakeNothing.holds() {
//   + if false {
#[test]
fn a_promise_is_kept_when_the_leader_before_comes_back() {
    let _turn = crate::turn();
    let kept = a_promise(false);
    assert!(kept.is_ok(), "{kept:#?}");
}

/// The third member lacks what the others have acknowledged when the first one dies.
// RED: src/replication/candidate.rs
//   - from.filter(|_| Rule::FetchFirst.holds() && self.equal.get(&log) != Some(&chosen))
//   + from.filter(|_| false && self.equal.get(&log) != Some(&chosen))
// RED: src/replication/candidate.rs
//   - let is_confirmed = self.has_majorities(by) || !Rule::ConfirmingRound.holds();
//   + let is_confirmed = true;
#[test]
fn a_member_that_lags_fetches_what_it_lacks_before_it_leads() {
    let _turn = crate::turn();
    let mut script = Script::begin();
    script.link(0, 2, Flow::Lost);
    script.link(1, 2, Flow::Lost);
    for _ in 0..3 {
        script.acknowledged_at(0);
    }
    script.group.kill(0);
    script.link(1, 2, Flow::Open);
    script.group.ask(2, "lead 2");
    script.leads(2, 2);
    script.acknowledged_at(2);
    script.group.start(0);
    let history = script.end();
    assert!(history.is_ok(), "{history:#?}");
}
