//! Two threads, two logs: one appends to the first and spins until the answer is in the second.
//!
//! Half of the time there and back is one way; so no two clocks are compared.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::append::quantile;
use super::values::{Expected, Source};
use super::{Figures, Order};
use crate::log::{Log, Outcome, Read, Write};
use crate::machine::{now, pin, warm};

/// The error of a thread whose partner has failed.
const IN_VAIN: &str = "the other thread has failed";

pub(super) fn measure<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    warm(work.memory_bytes()?);
    let log = L::open(&order.dir, &work.plan())?;
    let failed = AtomicBool::new(false);
    let turns = work.records / 2;
    let mut times = std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let answered = play(&log, order, 1, &failed, |write, read| {
                for number in 0..turns {
                    read(number)?;
                    write(number)?;
                }
                Ok(())
            });
            failed.fetch_or(answered.is_err(), Ordering::Relaxed);
            answered
        });
        let asked = scope.spawn(|| {
            let mut times = Vec::with_capacity(usize::try_from(turns)?);
            let asked = play(&log, order, 0, &failed, |write, read| {
                for number in 0..turns {
                    let start = now();
                    write(number)?;
                    read(number)?;
                    times.push(start.elapsed() / 2);
                }
                Ok(())
            });
            failed.fetch_or(asked.is_err(), Ordering::Relaxed);
            asked.map(|()| times)
        });
        let asked = asked.join().map_err(|_| "the asking thread panicked")?;
        let answered = answers.join().map_err(|_| "the answering thread panicked")?;
        match (asked, answered) {
            // What went wrong first: the other thread only says that it waits in vain.
            (Err(error), Err(other)) if error.to_string() == IN_VAIN => Err(other),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(times), Ok(())) => Outcome::Ok(times),
        }
    })?;
    // The first ones wake up the caches, and both processors.
    let times: &mut [Duration] = times.get_mut(usize::try_from(turns)? / 10..).unwrap_or_default();
    let figures = vec![("p50_s", quantile(times, 0.5)), ("p99_s", quantile(times, 0.99))];
    std::mem::forget(log);
    Ok(figures)
}

/// One of the two threads, given what it writes with and what it reads with.
fn play<L: Log>(
    log: &L,
    order: &Order,
    thread: usize,
    failed: &AtomicBool,
    turns: impl FnOnce(
        &mut dyn FnMut(u64) -> Outcome<()>,
        &mut dyn FnMut(u64) -> Outcome<()>,
    ) -> Outcome<()>,
) -> Outcome<()> {
    pin(thread)?;
    let size = order.workload.value_bytes;
    let mut writer = log.writer(thread)?;
    let mut reader = log.reader(1 - thread, 1)?;
    let mut source = Source::new(size, 1)?;
    let mut expected = Expected::new(size);
    let mut write = |number| writer.append(source.lone(number));
    let mut read = |number| {
        while reader.read(&mut |value| expected.see(value))? == 0 {
            if failed.load(Ordering::Relaxed) {
                return Err(IN_VAIN.into());
            }
            spin_loop();
        }
        expected.check(number + 1).map(drop)
    };
    turns(&mut write, &mut read)?;
    std::mem::forget((writer, reader));
    Ok(())
}
