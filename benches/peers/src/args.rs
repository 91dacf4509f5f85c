//! The command line.

use std::path::PathBuf;

use crate::backends::{CONTENDERS, Contender};
use crate::log::Outcome;
use crate::workloads::{Order, Phase, WORKLOADS, Workload};

pub(crate) const HELP: &str = "\
logpond beside its peers and beside hand-written limits.

  --workload NAME    only this one, or those that begin so; may be repeated
  --contender NAME   only this one; may be repeated
  --rounds N         how often each is measured (5)
  --scale X          so many times the volume (1)
  --quick            shows that all of it works, on little data; the figures mean nothing
  --dir DIR          where data is written (target/peers-data); it must be on a real disk
  --json FILE        appends a line for each measurement
  --table FILE       measures nothing: prints the tables of such lines; may be repeated
  --list             prints the workloads and the contenders
";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    List,
    Table(Vec<PathBuf>),
    Run(Run),
    /// This process is one contender's.
    Child(Order, &'static Contender),
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) contenders: Vec<&'static Contender>,
    pub(crate) rounds: u32,
    pub(crate) scale: f64,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

/// Of the scale of `--quick`.
const QUICK: f64 = 0.01;

pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Command> {
    let (mut workloads, mut contenders, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rounds, mut scale, mut dir, mut json) = (5, 1.0, None, None);
    let mut phase = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--workload" => workloads.push(value()?),
            "--contender" => contenders.push(contender(&value()?)?),
            "--rounds" => rounds = value()?.parse()?,
            "--scale" => scale = value()?.parse()?,
            "--quick" => (rounds, scale) = (1, QUICK),
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--json" => json = Some(PathBuf::from(value()?)),
            "--table" => tables.push(PathBuf::from(value()?)),
            "--child" => phase = Some(value()?),
            "--list" => return Ok(Command::List),
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("unknown argument: {word}; --help lists all").into()),
        }
    }
    if !tables.is_empty() {
        return Ok(Command::Table(tables));
    }
    let workloads = chosen(&workloads, scale)?;
    let dir = dir.map_or_else(default_dir, Ok)?;
    if let Some(phase) = phase {
        let phase = match phase.as_str() {
            "prepare" => Phase::Prepare,
            "measure" => Phase::Measure,
            _ => return Err(format!("unknown phase: {phase}").into()),
        };
        let workload = *workloads.first().ok_or("no workload")?;
        let contender = contenders.first().ok_or("no contender")?;
        return Ok(Command::Child(Order { workload, phase, dir }, contender));
    }
    if contenders.is_empty() {
        contenders = CONTENDERS.to_vec();
    }
    Ok(Command::Run(Run { workloads, contenders, rounds, scale, dir, json }))
}

fn contender(name: &str) -> Outcome<&'static Contender> {
    let found = CONTENDERS.iter().copied().find(|it| it.name == name);
    found.ok_or_else(|| format!("there is no contender {name}; --list shows all").into())
}

fn chosen(names: &[String], scale: f64) -> Outcome<Vec<Workload>> {
    if let Some(name) = names.iter().find(|name| !WORKLOADS.iter().any(|it| fits(it, name))) {
        return Err(format!("there is no workload {name}; --list shows all").into());
    }
    let wanted = |work: &&Workload| names.is_empty() || names.iter().any(|name| fits(work, name));
    Ok(WORKLOADS.iter().filter(wanted).map(|work| work.scaled(scale)).collect())
}

/// An exact name means just that workload.
fn fits(work: &Workload, name: &str) -> bool {
    let is_exact = WORKLOADS.iter().any(|it| it.name == name);
    if is_exact { work.name == name } else { work.name.starts_with(name) }
}

/// Beside the program: `<target>/peers-data`.
fn default_dir() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("the program has no directory")?;
    Ok(target.join("peers-data"))
}
