//! A process writes a log and closes it; a new one opens it and reads it from end to end.
//!
//! The time includes the opening: a contender that reads everything there shows it here.

use super::values::{Expected, Source};
use super::{Figures, Order, usage_figures};
use crate::log::{Log, Outcome, Read, Write};
use crate::machine::{Usage, now, pin};

pub(super) fn prepare<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    let log = L::open(&order.dir, &work.plan())?;
    let mut writer = log.writer(0)?;
    let mut source = Source::new(work.value_bytes, 1)?;
    for number in 0..work.records {
        writer.append(source.lone(number))?;
    }
    drop(writer);
    log.close()?;
    Ok(Vec::new())
}

pub(super) fn measure<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    let before = Usage::now()?;
    let start = now();
    let log = L::open(&order.dir, &work.plan())?;
    let opened = start.elapsed();
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Outcome<_> {
            pin(0)?;
            let mut reader = log.reader(0, usize::MAX)?;
            let mut expected = Expected::new(work.value_bytes);
            let mut count = 0;
            while count < work.records {
                let read = reader.read(&mut |value| expected.see(value))?;
                if read == 0 {
                    return Err(format!("the end came after {count} records").into());
                }
                count += read;
            }
            let took = start.elapsed();
            expected.check(work.records)?;
            Ok(took)
        });
        reader.join().map_err(|_| "the reader panicked")?
    });
    let took = read?;
    let mut figures = usage_figures(Usage::now()?.since(before));
    figures.extend([
        ("records_per_s", work.records as f64 / took.as_secs_f64()),
        ("open_s", opened.as_secs_f64()),
        ("read_per_s", work.records as f64 / took.saturating_sub(opened).as_secs_f64()),
    ]);
    std::mem::forget(log);
    Ok(figures)
}
