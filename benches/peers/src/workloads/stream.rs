//! One thread appends, another one reads at the same time: from the first append to the last read.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::values::{Expected, Source};
use super::{Figures, Order, usage_figures};
use crate::log::{Log, Outcome, Read, Write};
use crate::machine::{Usage, now, pin, warm};

/// How many records the reader takes in one call.
const TAKEN: usize = 4096;

pub(super) fn measure<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    warm(work.memory_bytes()?);
    let log = L::open(&order.dir, &work.plan())?;
    let barrier = Barrier::new(2);
    let before = Usage::now()?;
    let ended = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = write(&log, order, &barrier);
            ended.store(true, Ordering::Release);
            written
        });
        let reader = scope.spawn(|| -> Outcome<_> {
            let ready = (|| -> Outcome<_> {
                pin(1)?;
                log.reader(0, TAKEN)
            })();
            barrier.wait();
            let mut reader = ready?;
            let mut expected = Expected::new(work.value_bytes);
            let mut count = 0;
            while count < work.records {
                // Asked before reading: what it has written is there to be read.
                let ended = ended.load(Ordering::Acquire);
                let read = reader.read(&mut |value| expected.see(value))?;
                if read == 0 {
                    if ended {
                        return Err(format!("only {count} records came").into());
                    }
                    spin_loop();
                }
                count += read;
            }
            let end = now();
            expected.check(work.records)?;
            std::mem::forget(reader);
            Ok(end)
        });
        let end = reader.join().map_err(|_| "the reader panicked");
        let start = writer.join().map_err(|_| "the writer panicked")??;
        Outcome::Ok(end?? - start)
    })?;
    let mut figures = usage_figures(Usage::now()?.since(before));
    figures.push(("records_per_s", work.records as f64 / took.as_secs_f64()));
    std::mem::forget(log);
    Ok(figures)
}

/// Returns when it has started.
fn write<L: Log>(log: &L, order: &Order, barrier: &Barrier) -> Outcome<Instant> {
    let ready = (|| -> Outcome<_> {
        pin(0)?;
        Ok((log.writer(0)?, Source::new(order.workload.value_bytes, 1)?))
    })();
    barrier.wait();
    let (mut writer, mut source) = ready?;
    let start = now();
    for number in 0..order.workload.records {
        writer.append(source.lone(number))?;
    }
    std::mem::forget(writer);
    Ok(start)
}
