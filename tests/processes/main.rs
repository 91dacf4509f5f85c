//! Goal: whatever happens to the processes of a replicated group and to the links between them, no
//! record that was acknowledged at `Quorum` is lost, moved or doubled, records are in order, no reader
//! anywhere sees what is not there at the end, commits are not lost, and groups skip nothing.
//!
//! Method: three or five processes ([`member`]; this binary again) with directories and TCP on the
//! loopback. All links go through the controller ([`links`]). Its clients ([`load`]) send records in
//! several ways, consume in groups, and read at every member; they write down what they asked and what
//! was answered, with times of one counter ([`history`]). Meanwhile harm is done by a seed ([`harm`]):
//! SIGKILL, SIGSTOP, links that are cut in one direction or both, slow, that repeat and swap frames;
//! full disks, lost directories, wrong calls of `lead`. At the end everything is healed and must work,
//! and all members must have the same. Then a function that knows only the history says whether it is
//! one that may be ([`check`]).
//!
//! [`scripts`] has sequences that chance rarely finds, each with the rules of the protocol without which
//! it loses a record.
//!
//! The seed is printed; `LOGPOND_SEED` replays the choices, but not the moments. By default there is one
//! short round for each size of the group; `LOGPOND_PROCESSES=900` repeats rounds for 900 seconds of
//! harm in each of the two tests, and `LOGPOND_KILLS=50` measures 50 failovers.
//!
//! Not covered: losses of power (the simulation), damage, retention and compaction.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "a member says at which ports it is")]
#![cfg(target_os = "linux")]

mod arena;
mod check;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod group;
mod harm;
mod history;
mod links;
mod load;
mod member;
mod rounds;
mod scripts;
#[path = "../../examples/replicated/tcp.rs"]
mod tcp;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Rng, from_env};
use load::Mix;

/// The tests take turns: all of them need time that they can count on.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one round of a campaign lasts.
const ROUND: u64 = 30;

fn rounds(name: &str, members: usize, mix: Mix, short: u64) {
    let _turn = turn();
    let mut rng = Rng::announced(name);
    let mut remaining = from_env("LOGPOND_PROCESSES", short);
    while remaining > 0 {
        let lasts = remaining.min(ROUND);
        remaining -= lasts;
        let seed = rng.next();
        eprintln!("{members} members, {lasts} s, seed of the round {seed}");
        let (summary, harm) = rounds::round(members, mix, Duration::from_secs(lasts), seed);
        eprintln!("{summary:?}, {harm:?}");
        assert!(summary.acknowledged > 20 && summary.read > 20, "nothing happened");
    }
}

#[test]
fn three_processes_lose_nothing() {
    let mix = Mix { senders: 3, queues: 2, sequences: 2, consumers: 3, readers: 1 };
    rounds("three processes", 3, mix, 5);
}

#[test]
fn five_processes_lose_nothing() {
    let mix = Mix { senders: 2, queues: 1, sequences: 1, consumers: 2, readers: 1 };
    rounds("five processes", 5, mix, 3);
}

/// The harness notices a member that acknowledges what it alone has, and accuses no other.
#[test]
fn a_member_that_acknowledges_too_early_is_noticed() {
    let _turn = turn();
    let honest = rounds::cut_off_and_killed(None);
    assert!(honest.is_ok(), "{honest:#?}");
    let violations = rounds::cut_off_and_killed(Some(member::EARLY)).unwrap_err();
    let is_found = violations.iter().any(|it| it.contains("was acknowledged at"));
    assert!(is_found, "{violations:#?}");
}

#[test]
fn the_leader_is_killed_and_another_one_acknowledges() {
    let _turn = turn();
    let took = rounds::failovers(from_env("LOGPOND_KILLS", 3));
    let (median, greatest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} failovers: {median:.2?} (median), {greatest:.2?} at most", took.len());
}
