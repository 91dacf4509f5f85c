//! Each call of the disk fails, once or from then on, in workloads that use every operation.
//!
//! [`faults`](super::faults) looks closely at the calls of one step; here the workload continues
//! after the failure. What must hold for each call: the error is of the right kind; an append that
//! failed with a definite error is not there at any later opening, and an acknowledged one is; only
//! a failed sync poisons; when the fault is over, the same run serves again; a close that reports
//! success is a clean one.
//!
//! By default every thirteenth call fails; `LOGPOND_IMAGES=2` lets every one.

use std::io::ErrorKind;

use super::images;
use super::model::{Crash, Model, Shape, Step, clock, open};
use super::run::{Ended, Run};
use super::{compaction, retention};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::storage::disk::{Fault, Operation, PowerCut, SimulatedDisk};

const OPERATIONS: [Operation; 13] = [
    Operation::CreateDir,
    Operation::SyncDir,
    Operation::Rename,
    Operation::Remove,
    Operation::Create,
    Operation::Open,
    Operation::Read,
    Operation::Write,
    Operation::Allocate,
    Operation::Release,
    Operation::Shorten,
    Operation::Sync,
    Operation::Map,
];

/// EIO, ENOSPC, EDQUOT, EROFS.
const ERRORS: [ErrorKind; 4] = [
    ErrorKind::Other,
    ErrorKind::StorageFull,
    ErrorKind::QuotaExceeded,
    ErrorKind::ReadOnlyFilesystem,
];

#[derive(Debug, Clone, Copy)]
struct Plan {
    operation: Operation,
    error: ErrorKind,
    forever: bool,
    call: u64,
}

impl Plan {
    fn fault(self) -> Fault {
        let fault = Fault::once(self.operation, self.error).after(self.call);
        Fault { forever: self.forever, ..fault }
    }

    /// Whether the error is one that this fault may cause, and says of itself what is true.
    fn check(self, error: &Error, context: &str) {
        let typed = match error {
            Error::PartialBatch { source, .. } => return self.check(source, context),
            // A tail of an earlier run is read, and written again, before it is synced.
            Error::SyncFailed { .. } | Error::Poisoned { .. } => self.may_poison(),
            Error::StorageFull { .. } => {
                matches!(self.error, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Error::ReadOnly { .. } => self.error == ErrorKind::ReadOnlyFilesystem,
            Error::Io { .. } => true,
            _ => false,
        };
        assert!(typed, "{context}: {error:?}");
    }

    fn may_poison(self) -> bool {
        use Operation::{Open, Read, Sync, Write};
        matches!(self.operation, Sync | Write | Read | Open)
    }
}

/// Runs `one` for a sample of all calls of each operation, with each error, once and for ever. It
/// returns whether the fault came to pass: a call beyond the last is the end.
fn sweep(name: &str, operations: &[Operation], one: impl Fn(Plan) -> bool) -> u64 {
    // A stride that shares no factor with how often a workload repeats itself.
    let stride = if images(1) > 1 { 1 } else { 13 };
    let mut tried = 0;
    for (kind, operation) in (0_u64..).zip(operations) {
        for (nature, error) in (0_u64..).zip(ERRORS) {
            for forever in [false, true] {
                let first = (kind * 5 + nature * 3 + u64::from(forever)) % stride;
                for call in (first..).step_by(usize::try_from(stride).unwrap()) {
                    if !one(Plan { operation: *operation, error, forever, call }) {
                        break;
                    }
                    tried += 1;
                }
            }
        }
    }
    eprintln!("{name}: {tried} faults");
    tried
}

// ---- everything but retention and compaction -----------------------------------------------------

const OS: Shape = Shape(1, Durability::Os);
const ONE: Shape = Shape(1, Durability::Sync);

const WORKLOAD: [Step; 28] = [
    Step::Create("a", Shape(2, Durability::Sync)),
    Step::Create("b", OS),
    Step::Send("a", 0),
    Step::Batch("a", 1, 3),
    Step::Named("a", 0),
    Step::Commit("a"),
    Step::Batch("b", 0, 4),
    Step::Tick,
    Step::Batch("b", 0, 4),
    Step::Batch("a", 1, 4),
    Step::Flush,
    Step::CommitAsync("a"),
    Step::Alter("a"),
    Step::Grow("b", 2),
    Step::Send("b", 1),
    Step::Create("c", ONE),
    Step::Send("c", 0),
    Step::Drop,
    Step::Send("a", 0),
    Step::Batch("a", 1, 4),
    Step::Delete("c"),
    Step::Acquire,
    Step::Tick,
    Step::Close,
    Step::Send("a", 1),
    Step::Enqueue("b", 0),
    Step::Commit("a"),
    Step::End,
];

/// A run in which something fails somewhere.
struct Ordeal {
    plan: Plan,
    run: Run,
    context: String,
    failures: u64,
    /// Whether an end of it failed.
    is_open: bool,
}

impl Ordeal {
    fn has_fired(&self) -> bool {
        self.failures > 0
    }

    fn note(&mut self, step: &str, result: Result<()>) {
        if let Err(error) = result {
            self.failures += 1;
            self.plan.check(&error, &format!("{}, {step}", self.context));
        }
    }

    /// Opens; when that fails, or a partition cannot be read, again, once the fault is over.
    fn open(&mut self) {
        let opened = self.run.try_open();
        let lacks_some = opened.is_ok() && self.is_any_unavailable();
        if lacks_some {
            assert!(self.plan.may_poison(), "{}: unavailable", self.context);
            self.failures += 1;
        }
        let failed = opened.is_err() || lacks_some;
        self.note("opening", opened);
        if failed && self.plan.may_poison() {
            // A sync that failed may have taken what was published, as a cut does.
            self.reopen_after_failure();
        } else if failed {
            self.run.disk.heal();
            let again = self.run.try_open();
            assert!(again.is_ok(), "{}: {again:?}", self.context);
        }
        self.is_open = true;
    }

    fn is_any_unavailable(&self) -> bool {
        let topics = self.run.broker().metrics().topics;
        topics.iter().flat_map(|topic| &topic.partitions).any(|it| it.is_unavailable)
    }

    /// Whether the step makes sense with what there is, and needs nothing of what is poisoned.
    fn can(&self, step: &Step) -> bool {
        let poisoned = self.run.broker().metrics().poisoned;
        let of_topic = |name: &str| poisoned.iter().any(|it| *it.topic == *name);
        let is_there = |name: &str| self.run.model.is_present(name);
        match *step {
            Step::Create(name, _) => !self.run.model.topics.contains_key(name),
            Step::Send(name, partition)
            | Step::Batch(name, partition, _)
            | Step::Enqueue(name, partition) => {
                let model = &self.run.model;
                is_there(name) && model.topics[name].partitions.len() > partition as usize
            }
            Step::Named(name, _) | Step::Commit(name) | Step::CommitAsync(name) => {
                is_there(name) && poisoned.is_empty()
            }
            #[cfg(feature = "async")]
            Step::CommitInTask(name) => is_there(name) && poisoned.is_empty(),
            Step::Delete(name) | Step::Alter(name) | Step::Grow(name, _) => {
                is_there(name) && !of_topic(name)
            }
            Step::Acquire => poisoned.is_empty(),
            _ => true,
        }
    }

    fn do_step(&mut self, step: &Step) {
        match step {
            Step::Close | Step::Drop => {
                let is_clean = *step == Step::Close;
                let ended = if is_clean { self.run.attempt(&Step::End) } else { Ok(()) };
                if ended.is_ok() && !self.has_fired() {
                    return self.open();
                }
                self.note("end", ended);
                self.reopen_after_failure();
            }
            step if self.can(step) => {
                let done = self.run.attempt(step);
                self.note(&format!("{step:?}"), done);
                if !self.plan.may_poison() {
                    let poisoned = self.run.broker_if_open().map(|it| it.metrics().poisoned);
                    assert_eq!(poisoned.unwrap_or_default(), [], "{}: {step:?}", self.context);
                }
            }
            _ => {}
        }
    }

    /// What a failed sync has left is any of what a cut leaves, so only what is durable must be
    /// there; more where the end says that it was clean.
    fn reopen_after_failure(&mut self) {
        self.run.disk.heal();
        self.run.abandon();
        assert!(self.run.open_and_check(Crash::Cut(PowerCut::WORST)));
        self.is_open = true;
    }

    /// The fault has passed: whatever is not poisoned serves again, in the same run.
    fn resumes(&mut self) {
        self.run.disk.heal();
        for step in [Step::Send("a", 0), Step::Batch("b", 0, 2), Step::Send("a", 1)] {
            if !self.can(&step) {
                continue;
            }
            match self.run.attempt(&step) {
                Ok(()) => {}
                Err(Error::Poisoned { .. }) if self.plan.may_poison() => {}
                Err(error) => panic!("{}: {step:?} afterwards: {error:?}", self.context),
            }
        }
    }
}

/// Whether the fault came to pass.
fn everything_with(plan: Plan) -> bool {
    let context = format!("{plan:?}");
    let disk = SimulatedDisk::with_seed(plan.call);
    disk.inject(plan.fault());
    let run = Run::new(disk, Model::default(), plan.call, &context);
    let mut ordeal = Ordeal { plan, run, context, failures: 0, is_open: false };
    ordeal.open();
    for step in &WORKLOAD {
        if *step == Step::End && ordeal.has_fired() {
            ordeal.resumes();
        }
        ordeal.do_step(step);
    }
    let fired = ordeal.run.disk.has_fired();
    ordeal.run.disk.heal();
    ordeal.run.abandon();
    let mut random = Random::new(plan.call);
    let any = PowerCut::any(&mut || random.next());
    let crash = *random.pick(&[Crash::Cut(PowerCut::WORST), Crash::Cut(any)]);
    let context = format!("{}, {crash:?}", ordeal.context);
    let disk = crash.of(&ordeal.run.disk, &mut random);
    let mut next = Run::new(disk, ordeal.run.model.clone(), random.next(), &context);
    assert!(next.open_and_check(crash));
    let steps = next.follow_up();
    assert_eq!(next.take_steps(&steps), Ended::Done);
    fired
}

#[test]
fn any_call_of_a_broker_may_fail_once_or_for_ever() {
    assert!(sweep("everything", &OPERATIONS, everything_with) > 200);
}

// ---- retention and compaction --------------------------------------------------------------------

fn crashes(random: &mut Random) -> [Crash; 2] {
    [Crash::Cut(PowerCut::WORST), Crash::Cut(PowerCut::any(&mut || random.next()))]
}

#[test]
fn any_call_of_a_retention_may_fail_once_or_for_ever() {
    let tried = sweep("retention", &OPERATIONS, |plan| {
        let mut rig = retention::Rig::new();
        rig.disk.inject(plan.fault());
        let ended = rig.live();
        if let Err(error) = &ended {
            plan.check(error, &format!("{plan:?}"));
        }
        let fired = rig.disk.has_fired();
        rig.disk.heal();
        let mut random = Random::new(plan.call);
        for crash in crashes(&mut random) {
            rig.check(crash, &mut random, &format!("{plan:?}, {ended:?}, {crash:?}"));
        }
        fired
    });
    assert!(tried > 100);
}

#[test]
fn any_call_of_a_compaction_may_fail_once_or_for_ever() {
    let tried = sweep("compaction", &OPERATIONS, |plan| {
        let disk = SimulatedDisk::with_seed(plan.call);
        disk.inject(plan.fault());
        let mut latest = compaction::Latest::new();
        let ended = compaction::live(&disk, &clock(), &mut latest);
        if let Err(error) = &ended {
            plan.check(error, &format!("{plan:?}"));
        }
        let fired = disk.has_fired();
        disk.heal();
        let mut random = Random::new(plan.call);
        for crash in crashes(&mut random) {
            let context = format!("{plan:?}, {ended:?}, {crash:?}");
            let image = crash.of(&disk, &mut random);
            let broker = open(&image, plan.call).unwrap_or_else(|e| panic!("{context}: {e:?}"));
            compaction::check(&broker, &latest, &context);
            if broker.topic("t").is_ok() {
                broker.admin().compact_now("t").unwrap();
                compaction::check(&broker, &latest, &format!("{context}, compacted"));
            }
            broker.close().unwrap();
        }
        fired
    });
    assert!(tried > 100);
}
