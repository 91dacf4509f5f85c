//! Panics in the middle of the engine, before and after each operation of the disk.
//!
//! Goal: a panic is a kill to whatever it hits: what it was at is poisoned or unharmed, the rest of
//! the broker continues, and every later run finds what was acknowledged. Method: the workloads of
//! [`run`](super::run) on a disk that panics once; the steps after the panic may fail, and what
//! they acknowledge counts.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::model::{Crash, Model, Shape, Step};
use super::run::{Ended, Run};
use crate::config::Durability;
use crate::random::Random;
use crate::storage::disk::{HookedDisk, Operation, PowerCut, Side, SimulatedDisk};
use crate::sync::{AtomicU64, Ordering};

/// What the panics say, to tell them from failed assertions.
const PANIC: &str = "a panic in the middle of the engine";

/// Panics at one operation to come, once.
#[derive(Debug, Default)]
struct Fuse {
    /// How many changes of the disk there are until then; 0 if there is none to come.
    left: AtomicU64,
}

impl Fuse {
    fn on(self: &Arc<Self>, disk: &SimulatedDisk, side: Side) -> HookedDisk {
        let fuse = Arc::clone(self);
        HookedDisk::new(Arc::new(disk.clone()), move |operation, at| {
            let is_change =
                !matches!(operation, Operation::Open | Operation::Read | Operation::Map);
            if is_change && at == side {
                fuse.burn();
            }
        })
    }

    fn burn(&self) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        assert!(left != 1, "{PANIC}");
    }
}

/// Does the steps until one panics, and then those that make sense afterwards. Whether one did.
fn take_steps_past_a_panic(run: &mut Run, steps: &[Step]) -> bool {
    let mut has_panicked = false;
    for step in steps {
        // What a poisoned partition shows is less than was appended, so nothing is read from it.
        if has_panicked && matches!(step, Step::Commit(_) | Step::Named(..)) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| run.attempt(step))) {
            Ok(done) => assert!(done.is_ok() || has_panicked, "{step:?}: {done:?}"),
            Err(panic) => {
                let is_ours = panic.downcast_ref::<String>().is_some_and(|it| it.contains(PANIC));
                if !is_ours {
                    resume_unwind(panic);
                }
                has_panicked = true;
            }
        }
    }
    has_panicked
}

/// What later runs find.
fn check(run: &Run, random: &mut Random, context: &str) {
    let any = PowerCut::any(&mut || random.next());
    for crash in [Crash::Kill, Crash::Cut(PowerCut::WORST), Crash::Cut(any)] {
        let context = format!("{context}, {crash:?}");
        let disk = crash.of(&run.disk, random);
        let mut next = Run::new(disk, run.model.clone(), random.next(), &context);
        assert!(next.open_and_check(crash));
        let steps = next.follow_up();
        assert_eq!(next.take_steps(&steps), Ended::Done, "{context}");
    }
}

fn campaign(name: &str, setup: &[Step], steps: &[Step]) {
    let mut tried = 0;
    for side in [Side::Before, Side::After] {
        for point in 1.. {
            let context = format!("{name}: {side:?} change {point}");
            let (fuse, disk) = (Arc::<Fuse>::default(), SimulatedDisk::new());
            let door = Arc::new(fuse.on(&disk, side));
            let mut run = Run::behind(door, disk, Model::default(), 7, &context);
            assert!(run.open());
            assert_eq!(run.take_steps(setup), Ended::Done);
            fuse.left.store(point, Ordering::Relaxed);
            if !take_steps_past_a_panic(&mut run, steps) {
                break;
            }
            tried += 1;
            let mut random = Random::new(point);
            check(&run, &mut random, &context);
            // An end that claims to be clean is.
            let ended = run.attempt(&Step::End);
            check(&run, &mut random, &format!("{context}, ended: {}", ended.is_ok()));
        }
    }
    eprintln!("{name}: {tried} panics");
    assert!(tried > 5);
}

const OS: Durability = Durability::Os;

// RED: src/partition/guard.rs
//   - self.poison_by_panic();
#[test]
fn row_a26_a_panic_while_records_are_appended_poisons_the_partition_or_leaves_it_unharmed() {
    let setup = [Step::Create("a", Shape(1, Durability::Sync)), Step::Create("b", Shape(1, OS))];
    let round = [
        Step::Batch("b", 0, 4),
        Step::Send("a", 0),
        Step::Enqueue("a", 0),
        Step::Batch("b", 0, 4),
        Step::Send("a", 0),
        Step::Tick,
    ];
    campaign("append", &setup, &[round.clone(), round].concat());
}

#[test]
fn row_a26_a_panic_while_a_topic_is_made_or_deleted_is_a_kill() {
    let setup = [Step::Create("a", Shape(1, Durability::Sync)), Step::Send("a", 0)];
    let steps = [
        Step::Create("b", Shape(2, Durability::Sync)),
        Step::Send("a", 0),
        Step::Send("b", 1),
        Step::Delete("b"),
        Step::Send("a", 0),
    ];
    campaign("topics", &setup, &steps);
}

#[test]
fn row_a26_a_panic_while_offsets_are_committed_or_the_broker_ends_is_a_kill() {
    let setup = [Step::Create("a", Shape(1, Durability::Sync)), Step::Send("a", 0)];
    let steps = [Step::Commit("a"), Step::Enqueue("a", 0), Step::Commit("a"), Step::Tick];
    campaign("commit", &setup, &steps);
    campaign("end", &setup, &[Step::Enqueue("a", 0), Step::End]);
}
