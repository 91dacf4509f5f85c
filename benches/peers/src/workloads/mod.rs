//! The workloads, and how a contender runs one.
//!
//! A workload runs in processes of its own, one for each contender and round: `prepare` writes what
//! is to be read or opened again, `measure` prints the figures.

use std::path::PathBuf;

use crate::log::{Log, Outcome, Plan};
use crate::machine::Usage;

mod append;
mod ping_pong;
mod read;
mod reopen;
mod stream;
mod values;

pub(crate) use reopen::READY;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Workers append, each the same number of records.
    Append,
    /// One thread appends, another reads at the same time.
    Stream,
    /// A new process opens the log and reads all of it.
    Read { cold: bool },
    /// Two threads send each other a record, and spin until the answer is there.
    PingPong,
    /// A new process opens the log, reads and appends.
    Reopen(End),
}

/// How the process that has written came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    /// Killed when it had done nothing for a while.
    KilledIdle,
    /// Killed while it appended.
    KilledBusy,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    pub(crate) records: u64,
    pub(crate) value_bytes: usize,
    /// Records of one append; 1 for lone ones.
    pub(crate) batch: u64,
    pub(crate) workers: usize,
    pub(crate) logs: usize,
    pub(crate) durable: bool,
}

/// A figure that tables show: its name in the JSON lines, its title, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) figure: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Seconds,
    Count,
}

const RATE: Shown = Shown { figure: "records_per_s", title: "records", unit: Unit::PerSecond };
const P50: Shown = Shown { figure: "p50_s", title: "p50", unit: Unit::Seconds };
const P99: Shown = Shown { figure: "p99_s", title: "p99", unit: Unit::Seconds };
const FAULTS: Shown =
    Shown { figure: "minor_faults", title: "minor page faults", unit: Unit::Count };
const OPEN: Shown = Shown { figure: "open_s", title: "of that, opening", unit: Unit::Seconds };
const REOPEN: Shown = Shown { figure: "reopen_s", title: "until in use", unit: Unit::Seconds };
const LOST: Shown =
    Shown { figure: "lost", title: "acknowledged records not found", unit: Unit::Count };

const LONE: Workload = Workload {
    name: "",
    about: "",
    kind: Kind::Append,
    records: 2_000_000,
    value_bytes: 1 << 10,
    batch: 1,
    workers: 1,
    logs: 1,
    durable: false,
};

const SMALL: Workload = Workload { records: 5_000_000, value_bytes: 100, ..LONE };

pub(crate) const WORKLOADS: &[Workload] = &[
    Workload { name: "append-100", about: "5 M lone appends of 100 B", ..SMALL },
    Workload { name: "append-1k", about: "2 M lone appends of 1 KiB", ..LONE },
    Workload {
        name: "batch-100",
        about: "50,000 batches of 100 records of 100 B",
        batch: 100,
        ..SMALL
    },
    Workload {
        name: "stream-1m",
        about: "1 M records of 100 B from thread to thread",
        kind: Kind::Stream,
        records: 1_000_000,
        ..SMALL
    },
    Workload {
        name: "stream-10m",
        about: "10 M records of 100 B from thread to thread",
        kind: Kind::Stream,
        records: 10_000_000,
        ..SMALL
    },
    Workload {
        name: "producers-2-1",
        about: "2 producers on one log, 2 M records of 1 KiB in all",
        workers: 2,
        ..LONE
    },
    Workload {
        name: "producers-4-1",
        about: "4 producers on one log, 2 M records of 1 KiB in all",
        workers: 4,
        ..LONE
    },
    Workload {
        name: "producers-2-2",
        about: "2 producers on a log each, 2 M records of 1 KiB in all",
        workers: 2,
        logs: 2,
        ..LONE
    },
    Workload {
        name: "producers-4-4",
        about: "4 producers on a log each, 2 M records of 1 KiB in all",
        workers: 4,
        logs: 4,
        ..LONE
    },
    Workload {
        name: "read-100",
        about: "open, then read 5 M lone records of 100 B, in the page cache",
        kind: Kind::Read { cold: false },
        ..SMALL
    },
    Workload {
        name: "read-1k",
        about: "open, then read 2 M lone records of 1 KiB, in the page cache",
        kind: Kind::Read { cold: false },
        ..LONE
    },
    Workload {
        name: "read-100-cold",
        about: "open, then read 5 M lone records of 100 B, from the disk",
        kind: Kind::Read { cold: true },
        ..SMALL
    },
    Workload {
        name: "read-1k-cold",
        about: "open, then read 2 M lone records of 1 KiB, from the disk",
        kind: Kind::Read { cold: true },
        ..LONE
    },
    Workload {
        name: "ping-pong",
        about: "a record of 100 B to a thread that spins, one way",
        kind: Kind::PingPong,
        records: 2_000_000,
        workers: 2,
        logs: 2,
        ..SMALL
    },
    Workload {
        name: "durable-1",
        about: "lone appends of 1 KiB that survive power loss, one thread",
        records: 20_000,
        durable: true,
        ..LONE
    },
    Workload {
        name: "durable-8",
        about: "lone appends of 1 KiB that survive power loss, eight threads",
        records: 80_000,
        workers: 8,
        durable: true,
        ..LONE
    },
    Workload {
        name: "reopen-clean",
        about: "2 GiB of lone records of 1 KiB, opened after a clean close",
        kind: Kind::Reopen(End::Clean),
        ..LONE
    },
    Workload {
        name: "reopen-idle",
        about: "2 GiB of lone records of 1 KiB, opened after kill -9 of an idle process",
        kind: Kind::Reopen(End::KilledIdle),
        ..LONE
    },
    Workload {
        name: "reopen-busy",
        about: "2 GiB of lone records of 1 KiB, opened after kill -9 of a process that appends",
        kind: Kind::Reopen(End::KilledBusy),
        ..LONE
    },
];

impl Workload {
    /// This workload with so many times the records.
    pub(crate) fn scaled(self, times: f64) -> Self {
        let workers = u64::try_from(self.workers).unwrap_or(1);
        let step = self.batch * workers;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive"
        )]
        let records = (self.records as f64 * times) as u64;
        Self { records: records.div_ceil(step).max(2) * step, ..self }
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan {
            logs: self.logs,
            workers: self.workers,
            followed: matches!(self.kind, Kind::Stream | Kind::PingPong),
            durable: self.durable,
            value_bytes: self.value_bytes,
            records: if self.kind == Kind::Reopen(End::KilledBusy) {
                // It is killed after its last record, and appends until then.
                self.records * 2
            } else {
                // One more, to see that the log takes it.
                self.records + 1
            },
        }
    }

    /// The memory that a process of this workload needs at most, for values and for what is kept
    /// beside each.
    fn memory_bytes(&self) -> Outcome<usize> {
        Ok(usize::try_from(self.records)? * (self.value_bytes + 64) + (256 << 20))
    }

    /// Something must be written, by a process of its own, before anything is measured.
    pub(crate) fn is_prepared(&self) -> bool {
        matches!(self.kind, Kind::Read { .. } | Kind::Reopen(_))
    }

    pub(crate) fn reads(&self) -> bool {
        self.kind != Kind::Append
    }

    /// The figures of the table; the first one ranks the contenders.
    pub(crate) fn shown(&self) -> &'static [Shown] {
        match self.kind {
            Kind::Append if self.durable => &[RATE, P50, P99],
            Kind::Append | Kind::Stream => &[RATE, FAULTS],
            Kind::Read { .. } => &[RATE, OPEN],
            Kind::PingPong => &[P50, P99],
            Kind::Reopen(_) => &[REOPEN, OPEN, LOST],
        }
    }
}

/// What a process of one contender is to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) workload: Workload,
    pub(crate) phase: Phase,
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prepare,
    Measure,
}

pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Does it, and returns what was measured.
pub(crate) fn run<L: Log>(order: &Order) -> Outcome<Figures> {
    match (order.workload.kind, order.phase) {
        (Kind::Read { .. }, Phase::Prepare) => read::prepare::<L>(order),
        (Kind::Reopen(end), Phase::Prepare) => reopen::prepare::<L>(order, end),
        (Kind::Append, _) => append::measure::<L>(order),
        (Kind::Stream, _) => stream::measure::<L>(order),
        (Kind::Read { .. }, _) => read::measure::<L>(order),
        (Kind::PingPong, _) => ping_pong::measure::<L>(order),
        (Kind::Reopen(_), _) => reopen::measure::<L>(order),
    }
}

fn usage_figures(used: Usage) -> Figures {
    vec![("minor_faults", used.minor_faults), ("user_s", used.user_s), ("system_s", used.system_s)]
}
