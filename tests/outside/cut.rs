//! Power cuts on ext4: the file system is shut down under a child that appends, and mounted again.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::common::*;
use crate::ledger::{Late, Ledger};
use crate::machine::{Mount, cut_power};
use crate::workload::ROUND;
use logpond::{Clock, SystemClock};

/// How many cuts one directory suffers before the next one begins anew.
const CUTS_PER_DIRECTORY: u64 = 25;

/// Appends in a child and cuts the power after so many acknowledgements, and a bit.
fn append_and_cut(name: &str, mount: &mut Mount, round: u64, acks: u64, ledger: &mut Ledger) {
    let mut child = child(name, &mount.path().join("data"))
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (before, mut line, mut is_cut) = (ledger.acks, String::new(), false);
    ledger.cut_at = None;
    // To the end: what was acknowledged in time is to be there, whenever it is heard.
    while {
        line.clear();
        lines.read_line(&mut line).unwrap()
    } > 0
    {
        let Some(whole) = line.strip_suffix('\n') else { break };
        ledger.hear(whole);
        if !is_cut && ledger.acks - before >= acks {
            ledger.cut_at = Some(cut_power(&mount.path()).unwrap());
            is_cut = true;
            // A consumer may wait for ever for records that cannot come.
            child.kill().unwrap();
        }
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(is_cut, "the child ended by itself, after {} acknowledgements", ledger.acks - before);
    mount.unmount();
}

/// What was acknowledged when the power went is there when it comes back, at each of many moments.
#[test]
fn what_was_acknowledged_survives_a_power_cut_on_ext4() {
    cut_again_and_again("workload::child_appends_without_end");
}

/// The same around clean closes, which shorten files that are mapped.
#[test]
fn what_was_acknowledged_survives_a_power_cut_while_a_broker_is_closed_on_ext4() {
    if let Some((shortened, kept)) = cut_again_and_again("workload::child_closes_without_end") {
        assert!(shortened > 0 || kept == 0, "{kept} closes, and none has shortened a file");
    }
}

/// How many closes have shortened a file, and how many have not; `None` if there is no way to cut the
/// power.
fn cut_again_and_again(child: &str) -> Option<(u64, u64)> {
    let mut rng = Rng::announced("power cuts");
    let cuts = from_env("LOGPOND_CUTS", 6);
    // In this mode, ext4's default, a removed file that comes back after a cut has its own bytes.
    // With `data=writeback` the blocks of a removed file are given to others before the removal is
    // durable, and it may come back with theirs: that mode is outside the contract.
    let mode = std::env::var("LOGPOND_CUT_MODE").unwrap_or("data=ordered".to_owned());
    let mut mount = Mount::ext4(96, &mode)?;
    if let Err(error) = cut_power(&mount.path()) {
        eprintln!("skipped: no way to cut the power: {error}");
        return None;
    }
    mount.unmount();
    let clock = SystemClock::new();
    let (mut ledger, mut acks, mut late) = (Ledger::default(), 0, Late::default());
    let mut closes = (0, 0);
    for cut in 0..cuts {
        mount.mount().unwrap();
        let data = mount.path().join("data");
        if cut % CUTS_PER_DIRECTORY == 0 {
            let before = std::mem::take(&mut ledger);
            acks += before.acks;
            closes = (closes.0 + before.closes.0, closes.1 + before.closes.1);
            if data.exists() {
                std::fs::remove_dir_all(&data).unwrap();
            }
        }
        // Also very early, while the directory is being made or the first segments roll.
        let after = if rng.one_in(4) { rng.below(4) } else { rng.below(200) };
        let round = rng.next() >> 32;
        let context = format!("cut {cut}, round {round}, after {after} acknowledgements");
        append_and_cut(child, &mut mount, round, after.max(1), &mut ledger);
        mount.mount().unwrap();
        late += ledger.check_and_forget_late(&data, &context);
        mount.unmount();
        if cut % 500 == 499 {
            eprintln!("{} cuts in {:?}, {late:?}", cut + 1, clock.monotonic());
        }
    }
    acks += ledger.acks;
    closes = (closes.0 + ledger.closes.0, closes.1 + ledger.closes.1);
    eprintln!("{cuts} cuts, {acks} acknowledgements, none lost, in {:?}", clock.monotonic());
    eprintln!(
        "{} of {} closes shortened a file; after the cut: {late:?}",
        closes.0,
        closes.0 + closes.1
    );
    assert!(acks >= cuts, "the children did next to nothing");
    Some(closes)
}
