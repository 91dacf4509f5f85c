//! A process writes a log and closes it, or is killed; a new one opens it, reads and appends.
//!
//! What is measured ends when the first record was read and one more was appended. After that, not
//! measured, everything is read: what was acknowledged before the kill and is not found is lost.

use std::io::Write as _;
use std::time::Duration;

use super::values::{Expected, Source};
use super::{End, Figures, Order, usage_figures};
use crate::log::{Log, Outcome, Read, Write};
use crate::machine::{Usage, now, pause};

/// What a process prints that waits to be killed.
pub(crate) const READY: &str = "ready";

pub(super) fn prepare<L: Log>(order: &Order, end: End) -> Outcome<Figures> {
    let work = &order.workload;
    let log = L::open(&order.dir, &work.plan())?;
    let mut writer = log.writer(0)?;
    let mut source = Source::new(work.value_bytes, 1)?;
    for number in 0..work.records {
        writer.append(source.lone(number))?;
    }
    if end == End::Clean {
        drop(writer);
        log.close()?;
        return Ok(Vec::new());
    }
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    if end == End::KilledBusy {
        for number in work.records..work.plan().records - 1 {
            writer.append(source.lone(number))?;
        }
    }
    loop {
        pause(Duration::from_secs(1));
    }
}

pub(super) fn measure<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    let before = Usage::now()?;
    let start = now();
    let log = L::open(&order.dir, &work.plan())?;
    let opened = start.elapsed();
    let mut reader = log.reader(0, 1)?;
    let mut expected = Expected::new(work.value_bytes);
    let first = reader.read(&mut |value| expected.see(value))?;
    log.writer(0)?.append(Source::new(work.value_bytes, 1)?.lone(u64::MAX))?;
    let took = start.elapsed();
    if first == 0 {
        return Err("nothing could be read".into());
    }
    let mut figures = usage_figures(Usage::now()?.since(before));
    drop(reader);

    let mut expected = Expected::new(work.value_bytes);
    let mut reader = log.reader(0, usize::MAX)?;
    while reader.read(&mut |value| expected.see(value))? > 0 {}
    let found = expected.right();
    figures.extend([
        ("reopen_s", took.as_secs_f64()),
        ("open_s", opened.as_secs_f64()),
        ("found", found as f64),
        ("lost", work.records.saturating_sub(found) as f64),
    ]);
    std::mem::forget(reader);
    std::mem::forget(log);
    Ok(figures)
}
