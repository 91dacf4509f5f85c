//! Rounds: a group with clients, to which something happens; then everything is healed, and the history
//! is checked.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::arena::Arena;
use crate::check::{Summary, check};
use crate::client::{Client, position};
use crate::common::Rng;
use crate::group::{Group, PATIENCE};
use crate::harm::{Harm, Kind};
use crate::history::{By, End, Event, PARTITIONS, What};
use crate::load::{self, GROUPS, Load, Mix};

pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

/// Ends the round for its clients, also if the controller panics.
struct Ends(Arc<Arena>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// One round of harm.
///
/// # Panics
///
/// If the history breaks a rule, or a healed group does not work.
pub(crate) fn round(
    members: usize,
    mix: Mix,
    lasts: Duration,
    seed: u64,
) -> (Summary, BTreeMap<Kind, u32>) {
    let mut rng = Rng::new(seed);
    let mut group = Group::new(members, TIMEOUT, rng.next(), None);
    set_up(&mut group);
    let arena = Arc::clone(&group.arena);
    let (mut history, counts) = thread::scope(|scope| {
        let _ends = Ends(Arc::clone(&arena));
        let clients = load::start(scope, &arena, mix, &mut rng);
        let mut harm = Harm::new(&mut group, Rng::new(rng.next()));
        harm.run(lasts);
        let counts = std::mem::take(&mut harm.counts);
        group.heal();
        group.wait_leader();
        assert!(arena.wait_acknowledged(20, PATIENCE), "a healed group acknowledges nothing");
        arena.end();
        let events = clients.into_iter().flat_map(|client| client.join().unwrap());
        (events.collect::<Vec<_>>(), counts)
    });
    let end = end(&mut group, &mut history);
    match check(&history, &end) {
        Ok(summary) => (summary, counts),
        Err(violations) => {
            let kept = group.keep();
            let text: Vec<_> = history.iter().map(|event| format!("{event:?}")).collect();
            fs::write(kept.join("history"), text.join("\n")).unwrap();
            panic!("seed {seed}, {}: {violations:#?}", kept.display());
        }
    }
}

/// Waits until somebody leads, and creates the topics.
pub(crate) fn set_up(group: &mut Group) {
    group.until("the topics are created", |group| {
        let leader = group.leader()?;
        (group.ask(leader, "set-up")? == "ok").then_some(())
    });
}

/// What is there when everything is healed: all members have the same, and the groups have read it.
pub(crate) fn end(group: &mut Group, history: &mut Vec<Event>) -> End {
    let arena = Arc::clone(&group.arena);
    let mut end = End::default();
    let mut sender = Load::new(&arena, 0, 0);
    let mut counts = Vec::new();
    for partition in 0..PARTITIONS.len() {
        let last =
            group.until("a last record is acknowledged", |_| sender.send(partition, By::Quorum));
        counts.push(last + 1);
    }
    history.extend(sender.into_events());
    for member in group.members() {
        let mut reader = Load::new(&arena, member, 1);
        let logs = counts.iter().enumerate().map(|(partition, count)| {
            group.until("a member has all records", |_| reader.read_all(partition, *count))
        });
        end.logs.push(logs.collect());
        history.extend(reader.into_events());
    }
    for number in 0..GROUPS {
        let mut consumer = Load::new(&arena, 0, 2);
        let committed = group.until("a group has read everything", |_| {
            consumer.drain(number)?;
            let mut client = Client::new(&arena, consumer.member());
            let answered = client.ask(&format!("committed group-{number}"))?;
            let committed: BTreeMap<_, _> = answered.ok()?.split(' ').map(position).collect();
            let is_at_end = |(partition, count): (usize, &u64)| {
                committed.get(&partition).is_some_and(|position| position >= count)
            };
            counts.iter().enumerate().all(is_at_end).then_some(committed)
        });
        end.committed.extend(committed.into_iter().map(|(at, position)| ((number, at), position)));
        history.extend(consumer.into_events());
    }
    for strange in group.strange.drain(..) {
        let now = arena.count();
        history.push(Event { from: now, to: now, what: What::Strange(strange) });
    }
    end
}

/// The leader is cut off and asked for records, and killed; the others continue.
///
/// # Errors
///
/// The rules that the history breaks.
pub(crate) fn cut_off_and_killed(fault: Option<&'static str>) -> Result<Summary, Vec<String>> {
    let mut group = Group::new(3, TIMEOUT, 1, fault);
    set_up(&mut group);
    let arena = Arc::clone(&group.arena);
    let leader = group.wait_leader();
    let mut history = Vec::new();
    let mut before = Load::new(&arena, leader, 1);
    for _ in 0..5 {
        group.until("a record is acknowledged", |_| before.send(0, By::Quorum));
    }
    history.extend(before.into_events());
    for other in group.members() {
        let mut reader = Load::new(&arena, other, 1);
        group.until("a member has it", |_| reader.read_all(0, 5));
        history.extend(reader.into_events());
        group.links.set(leader, other, |link| link.flow = crate::links::Flow::Lost);
        group.links.set(other, leader, |link| link.flow = crate::links::Flow::Lost);
    }
    for _ in 0..3 {
        let mut cut_off = Load::new(&arena, leader, 2);
        cut_off.send(0, By::Quorum);
        history.extend(cut_off.into_events());
    }
    group.kill(leader);
    group.links.heal();
    let mut after = Load::new(&arena, group.wait_leader(), 3);
    for _ in 0..5 {
        group.until("a record is acknowledged", |_| after.send(0, By::Quorum));
    }
    history.extend(after.into_events());
    group.start(leader);
    let end = end(&mut group, &mut history);
    check(&history, &end)
}

/// Kills the leader again and again, and returns how long it took until the next record was
/// acknowledged.
pub(crate) fn failovers(kills: u64) -> Vec<Duration> {
    let mut group = Group::new(3, TIMEOUT, 1, None);
    set_up(&mut group);
    let arena = Arc::clone(&group.arena);
    let mut client = Load::new(&arena, 0, 1);
    let mut took = Vec::new();
    for _ in 0..kills {
        for _ in 0..20 {
            group.until("a record is acknowledged", |_| client.send(0, By::Quorum));
        }
        // Its last record was acknowledged there.
        let leader = client.member();
        let killed_at = arena.now();
        group.kill(leader);
        while client.send(0, By::Quorum).is_none() {
            assert!(arena.now() < killed_at + PATIENCE, "nobody leads");
        }
        took.push(arena.since(killed_at));
        group.start(leader);
        group.until("all members are there again", |group| {
            let leader = group.leader()?;
            let members = group.status(leader)?.members;
            members.iter().all(|member| member.ends_with(":Voter")).then_some(())
        });
    }
    let mut history = client.into_events();
    let end = end(&mut group, &mut history);
    check(&history, &end).unwrap();
    took.sort();
    took
}
