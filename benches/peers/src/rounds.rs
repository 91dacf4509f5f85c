//! Contenders in turns, round by round, each in a process of its own.
//!
//! So no contender meets the memory, the threads or the page cache that another one has left. The
//! directory is new each time, and removed at once.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::args::Run;
use crate::backends::Contender;
use crate::log::Outcome;
use crate::machine::{describe, end_with_parent, evict, load, pause, remove, resident, sync_all};
use crate::table::{Line, print};
use crate::workloads::{End, Figures, Kind, Order, READY, Workload};

/// How long a process does nothing before it is killed as an idle one.
const IDLE: Duration = Duration::from_secs(5);

/// Page cache that may be left of a file that was dropped from it.
const RESIDENT_MAX: f64 = 0.02;

pub(crate) fn measure(run: &Run) -> Outcome<()> {
    fs::create_dir_all(&run.dir)?;
    let machine = describe(&run.dir);
    eprintln!("{machine}; data in {}", run.dir.display());
    let mut lines = Vec::new();
    for work in &run.workloads {
        let takers: Vec<_> = run.contenders.iter().filter(|it| (it.takes)(work)).collect();
        for round in 0..run.rounds {
            for turn in 0..takers.len() {
                // The first one of a round is another one each time.
                let at = (turn + usize::try_from(round)?) % takers.len();
                let Some(contender) = takers.get(at) else { continue };
                let load = load();
                let dir = run.dir.join("log");
                remove(&dir)?;
                let figures = one(run, work, contender, &dir);
                remove(&dir)?;
                let line = Line::new(work, contender, round, (run.scale, load, &machine), figures);
                eprintln!("{}", line.summary());
                if let Some(path) = &run.json {
                    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
                    writeln!(file, "{}", serde_json::to_string(&line)?)?;
                }
                lines.push(line);
            }
        }
    }
    print(&lines)
}

/// One contender's turn.
fn one(
    run: &Run,
    work: &Workload,
    contender: &Contender,
    dir: &Path,
) -> Outcome<Vec<(String, f64)>> {
    fs::create_dir_all(dir)?;
    let mut more = Vec::new();
    if work.is_prepared() {
        prepare(run, work, contender, dir)?;
    }
    // What others have written, or this one before, is not written while it is measured.
    sync_all(dir)?;
    if work.kind == (Kind::Read { cold: true }) {
        evict(dir)?;
        let resident = resident(dir)?;
        if resident > RESIDENT_MAX {
            return Err(format!("{:.0} % of it is still cached", resident * 100.0).into());
        }
        // The probes may have read something.
        evict(dir)?;
        more.push(("resident".into(), resident));
    }
    let out = child(run, work, contender, dir, "measure")?.stderr(Stdio::inherit()).output()?;
    if !out.status.success() {
        return Err(format!("its process ended with {}", out.status).into());
    }
    let text = String::from_utf8(out.stdout)?;
    let last = text.lines().last().ok_or("its process printed nothing")?;
    let figures: Result<Vec<(String, f64)>, String> = serde_json::from_str(last)?;
    more.extend(figures?);
    Ok(more)
}

fn prepare(run: &Run, work: &Workload, contender: &Contender, dir: &Path) -> Outcome<()> {
    let mut process =
        child(run, work, contender, dir, "prepare")?.stdout(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(process.stdout.take().ok_or("its output is piped")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    if line.trim() == READY {
        if work.kind == Kind::Reopen(End::KilledIdle) {
            pause(IDLE);
        }
        process.kill()?;
        process.wait()?;
        return Ok(());
    }
    out.read_to_string(&mut line)?;
    let status = process.wait()?;
    let figures: Result<Vec<(String, f64)>, String> =
        serde_json::from_str(line.trim()).map_err(|_| format!("it ended with {status}"))?;
    figures.map_err(|error| format!("while it prepared: {error}"))?;
    Ok(())
}

/// This program again, as the process of one contender.
fn child(
    run: &Run,
    work: &Workload,
    contender: &Contender,
    dir: &Path,
    phase: &str,
) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", phase, "--workload", work.name, "--contender", contender.name]);
    command.args(["--scale", &run.scale.to_string()]).arg("--dir").arg(dir);
    command.stdin(Stdio::null());
    Ok(command)
}

/// In the process of a contender: does what it was started for, prints the figures, and ends
/// without the destructors that would write what is about to be removed.
pub(crate) fn obey(order: &Order, contender: &Contender) -> Outcome<()> {
    end_with_parent()?;
    // Threads wait for each other; a panic must not leave one waiting for ever.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let figures: Result<Figures, String> =
        (contender.run)(order).map_err(|error| error.to_string());
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    out.flush()?;
    std::process::exit(0)
}
