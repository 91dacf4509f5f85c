//! Appending, by one or by several workers: from when the first one starts to when the last one is
//! done.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::values::Source;
use super::{Figures, Order, usage_figures};
use crate::log::{Log, Outcome, Write};
use crate::machine::{Usage, now, pin, sync_all, warm};

pub(super) fn measure<L: Log>(order: &Order) -> Outcome<Figures> {
    let work = &order.workload;
    warm(work.memory_bytes()?);
    let log = L::open(&order.dir, &work.plan())?;
    if work.durable {
        // Space that was prepared is not part of the first sync.
        sync_all(&order.dir)?;
    }
    let barrier = Barrier::new(work.workers);
    let before = Usage::now()?;
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..work.workers)
            .map(|worker| {
                let (log, barrier) = (&log, &barrier);
                scope.spawn(move || append(log, order, worker, barrier))
            })
            .collect();
        let done = workers.into_iter().map(|it| it.join().map_err(|_| "a worker panicked"));
        done.collect::<Result<Vec<_>, _>>()
    });
    let used = Usage::now()?.since(before);
    let done = done?.into_iter().collect::<Outcome<Vec<_>>>()?;
    let start = done.iter().map(|it| it.start).min().ok_or("no worker")?;
    let end = done.iter().map(|it| it.end).max().ok_or("no worker")?;
    let mut latencies: Vec<Duration> = done.into_iter().flat_map(|it| it.latencies).collect();
    let mut figures = usage_figures(used);
    figures.push(("records_per_s", work.records as f64 / (end - start).as_secs_f64()));
    if !latencies.is_empty() {
        figures.extend([
            ("p50_s", quantile(&mut latencies, 0.5)),
            ("p99_s", quantile(&mut latencies, 0.99)),
        ]);
    }
    // Nothing more depends on it, and what it would write is about to be removed.
    std::mem::forget(log);
    Ok(figures)
}

struct Done {
    start: Instant,
    end: Instant,
    /// Of each append, if each is acknowledged durably: measuring others would cost more than they.
    latencies: Vec<Duration>,
}

fn append<L: Log>(log: &L, order: &Order, worker: usize, barrier: &Barrier) -> Outcome<Done> {
    let work = &order.workload;
    let ready = || -> Outcome<_> {
        pin(worker)?;
        Ok((log.writer(worker)?, Source::new(work.value_bytes, work.batch)?))
    };
    let ready = ready();
    // Also after an error: the others wait.
    barrier.wait();
    let (mut writer, mut source) = ready?;
    let count = work.records / u64::try_from(work.workers)?;
    let mut latencies = Vec::new();
    let start = now();
    if work.durable {
        latencies.reserve(usize::try_from(count)?);
        for number in 0..count {
            let called = now();
            writer.append(source.lone(number))?;
            latencies.push(called.elapsed());
        }
    } else if work.batch > 1 {
        for batch in 0..count / work.batch {
            writer.append_batch(source.numbered(batch * work.batch))?;
        }
    } else {
        for number in 0..count {
            writer.append(source.lone(number))?;
        }
    }
    let end = now();
    // Some sync when they are dropped.
    std::mem::forget(writer);
    Ok(Done { start, end, latencies })
}

/// A quantile of these times, in seconds.
pub(super) fn quantile(times: &mut [Duration], part: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
    let at = (times.len().saturating_sub(1) as f64 * part) as usize;
    if times.is_empty() {
        return f64::NAN;
    }
    times.select_nth_unstable(at).1.as_secs_f64()
}
