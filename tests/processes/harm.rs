//! What happens to a group during a round, drawn from a seed: processes are killed and stopped, links
//! cut, slow and noisy, disks full and lost, and members are called to lead by somebody who is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::Rng;
use crate::group::Group;
use crate::links::{Flow, Link};

/// All that is done, with how often it is drawn.
const KINDS: [(Kind, u64); 12] = [
    (Kind::KillLeader, 3),
    (Kind::Kill, 2),
    (Kind::KillAll, 1),
    (Kind::StopLeader, 3),
    (Kind::Stop, 2),
    (Kind::CutOff, 4),
    (Kind::OneWay, 4),
    (Kind::Slow, 2),
    (Kind::Noise, 3),
    (Kind::Lead, 4),
    (Kind::Resign, 1),
    (Kind::Fill, 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    KillLeader,
    Kill,
    KillAll,
    StopLeader,
    Stop,
    CutOff,
    OneWay,
    Slow,
    Noise,
    Lead,
    Resign,
    Fill,
    /// A directory is lost, and the member replaced by the documented procedure.
    Replace,
}

pub(crate) struct Harm<'a> {
    group: &'a mut Group,
    rng: Rng,
    pub(crate) counts: BTreeMap<Kind, u32>,
}

impl<'a> Harm<'a> {
    pub(crate) fn new(group: &'a mut Group, rng: Rng) -> Self {
        Self { group, rng, counts: BTreeMap::new() }
    }

    /// Does harm for some time, with a lost directory in the middle. Does not heal everything at the
    /// end.
    pub(crate) fn run(&mut self, lasts: Duration) {
        let (begun, arena) = (self.group.arena.now(), self.group.arena.clone());
        let mut replaces_at = lasts / 3;
        while arena.since(begun) < lasts {
            if arena.since(begun) >= replaces_at {
                self.replace();
                replaces_at += Duration::from_secs(15);
                continue;
            }
            self.relent();
            self.harm();
            let records = if self.rng.one_in(3) { 2_000 } else { 40 };
            let records = 1 + self.rng.below(records);
            arena.wait_acknowledged(records, Duration::from_millis(20 + self.rng.below(900)));
            if self.rng.one_in(6) {
                self.heal();
            }
        }
    }

    /// A group that is healed works again.
    fn heal(&mut self) {
        self.group.heal();
        let start = self.group.arena.acknowledged();
        self.group.until("records are acknowledged again", |group| {
            (group.arena.acknowledged() > start + 10).then_some(())
        });
    }

    /// Some of what was done ends.
    fn relent(&mut self) {
        for member in self.group.members() {
            if self.group.is_stopped(member) && !self.rng.one_in(3) {
                self.group.resume(member);
            }
            if self.group.is_full(member) && self.rng.one_in(2) {
                self.group.resume(member);
                self.group.make_room(member);
            }
            if !self.group.is_running(member) && !self.rng.one_in(3) {
                self.group.start(member);
            }
        }
        if self.rng.one_in(2) {
            self.group.links.heal();
        }
    }

    fn draw(&mut self) -> Kind {
        let mut drawn = self.rng.below(KINDS.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in KINDS {
            if drawn < weight {
                return kind;
            }
            drawn -= weight;
        }
        unreachable!("below the sum")
    }

    fn any(&mut self) -> usize {
        self.rng.index(self.group.members().len())
    }

    fn leader(&mut self) -> usize {
        self.group.leader().unwrap_or(0)
    }

    fn harm(&mut self) {
        let kind = self.draw();
        *self.counts.entry(kind).or_default() += 1;
        let member = match kind {
            Kind::KillLeader | Kind::StopLeader | Kind::Resign => self.leader(),
            Kind::CutOff if self.rng.one_in(2) => self.leader(),
            _ => self.any(),
        };
        eprintln!("{:>8} {kind:?} {}", self.group.arena.acknowledged(), member + 1);
        match kind {
            Kind::KillLeader | Kind::Kill => self.group.kill(member),
            Kind::KillAll => self.group.members().for_each(|member| self.group.kill(member)),
            Kind::StopLeader | Kind::Stop => self.group.stop(member),
            Kind::CutOff => {
                let flow = self.flow();
                self.links_of(member, (true, true), |link| link.flow = flow);
            }
            Kind::OneWay => {
                let (flow, is_out) = (self.flow(), self.rng.one_in(2));
                if self.rng.one_in(2) {
                    self.links_of(member, (is_out, !is_out), |link| link.flow = flow);
                } else {
                    let other = self.any();
                    self.group.links.set(member, other, |link| link.flow = flow);
                }
            }
            Kind::Slow => {
                let delay = Duration::from_millis(1 + self.rng.below(80));
                self.links_of(member, (true, true), |link| link.delay = delay);
            }
            Kind::Noise => {
                let noise = 2 + self.rng.below(20);
                for member in self.group.members() {
                    self.links_of(member, (true, false), |link| link.noise = noise);
                }
            }
            Kind::Lead => self.call_to_lead(member),
            Kind::Resign => {
                let to = self.rng.index(self.group.members().len() + 1);
                self.group.ask(member, &format!("resign {to}"));
            }
            Kind::Fill => self.group.fill(member, true),
            Kind::Replace => {}
        }
    }

    fn flow(&mut self) -> Flow {
        if self.rng.one_in(3) { Flow::Closed } else { Flow::Lost }
    }

    /// Changes the links of a member to the others, from them, or both.
    fn links_of(&self, member: usize, (out, back): (bool, bool), change: impl Fn(&mut Link)) {
        for other in self.group.members().filter(|other| *other != member) {
            if out {
                self.group.links.set(member, other, &change);
            }
            if back {
                self.group.links.set(other, member, &change);
            }
        }
    }

    /// By somebody who does not know who leads, or which epochs there were: one member, twice, or two
    /// with the same number.
    fn call_to_lead(&mut self, member: usize) {
        let statuses: Vec<_> = self.group.members().map(|it| self.group.status(it)).collect();
        // One that has failed says nothing of use.
        let known = |member: usize| {
            let status = statuses[member].as_ref().filter(|status| status.failure.is_empty());
            status.map_or(0, |status| status.epoch)
        };
        let greatest = self.group.members().map(known).max().unwrap_or(0);
        let epoch = (greatest + u32::try_from(self.rng.below(4)).unwrap()).saturating_sub(1);
        let other = self.any();
        let absurd = self.rng.one_in(4).then_some((member, u32::MAX));
        let calls = [Some((member, epoch)), Some((other, epoch)), Some((member, epoch)), absurd];
        for (member, epoch) in calls.into_iter().flatten() {
            let answer = self.group.ask(member, &format!("lead {epoch}"));
            let must_refuse = epoch <= known(member) || epoch == u32::MAX;
            if must_refuse && answer.as_deref() == Some("ok") {
                let what = format!("member {} leads {epoch}: {statuses:?}", member + 1);
                self.group.strange.push(what);
            }
        }
    }

    /// The directory of a member is lost: the procedure of the guide. Meanwhile leaders die.
    fn replace(&mut self) {
        self.heal();
        *self.counts.entry(Kind::Replace).or_default() += 1;
        let member = self.any();
        let node = member + 1;
        eprintln!("{:>8} Replace {node}", self.group.arena.acknowledged());
        self.group.kill(member);
        self.group.wipe(member);
        self.group.start(member);
        let has_role = move |group: &mut Group, role: &str| {
            group.status(member).is_some_and(|status| status.role == role)
        };
        self.group.until("the new directory is a learner", |group| {
            has_role(group, "Learner").then_some(())
        });
        let mut rng = Rng::new(self.rng.next());
        let mut kills_left = 3; // one that is killed again and again admits nobody
        self.group.until("the new directory is admitted", |group| {
            let leader = group.leader()?;
            group.ask(leader, &format!("replace {node}"))?;
            if leader != member && kills_left > 0 && rng.one_in(6) {
                kills_left -= 1;
                group.kill(leader);
                group.start(leader);
            }
            // It may be elected at once.
            (has_role(group, "Follower") || has_role(group, "Leader")).then_some(())
        });
        // A majority has the change if it has a later one.
        let topic = format!("after-{}", self.group.arena.count());
        self.group.until("a topic is created", |group| {
            let leader = group.leader()?;
            (group.ask(leader, &format!("create {topic}"))? == "ok").then_some(())
        });
        self.group.until("the admitted member has it", |group| {
            let knows = group.ask(member, &format!("knows {topic}"))? == "ok";
            let is_admitted = has_role(group, "Follower") || has_role(group, "Leader");
            (knows && is_admitted).then_some(())
        });
        // The guide says: wait some seconds before you stop another one.
        self.group.arena.wait_acknowledged(u64::MAX >> 1, Duration::from_secs(2));
    }
}
