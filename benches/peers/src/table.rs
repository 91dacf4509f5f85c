//! Measurements as JSON lines, and as tables in Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backends::{CONTENDERS, Contender};
use crate::log::Outcome;
use crate::workloads::{Shown, Unit, WORKLOADS, Workload};

/// One measurement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    workload: String,
    contender: String,
    /// With the version.
    title: String,
    round: u32,
    survives: String,
    checks: String,
    scale: f64,
    /// Of the machine, before.
    load: f64,
    machine: String,
    figures: Vec<(String, f64)>,
    error: Option<String>,
}

impl Line {
    pub(crate) fn new(
        work: &Workload,
        contender: &Contender,
        round: u32,
        (scale, load, machine): (f64, f64, &str),
        figures: Outcome<Vec<(String, f64)>>,
    ) -> Self {
        let (figures, error) = match figures {
            Ok(figures) => (figures, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            workload: work.name.into(),
            contender: contender.name.into(),
            title: contender.titled(),
            round,
            survives: (contender.survives)(work).into(),
            checks: if work.reads() { contender.checks } else { "" }.into(),
            scale,
            load,
            machine: machine.into(),
            figures,
            error,
        }
    }

    /// For people who wait.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{} round {} {}:", self.workload, self.round + 1, self.title);
        let shown = WORKLOADS.iter().find(|work| work.name == self.workload).map(Workload::shown);
        for shown in shown.unwrap_or_default() {
            if let Some(value) = self.figure(shown.figure) {
                let _ = write!(text, " {} {},", shown.title, show(value, shown.unit));
            }
        }
        if let Some(error) = &self.error {
            let _ = write!(text, " FAILED: {error}");
        }
        let _ = write!(text, " load {:.1}", self.load);
        text
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(it, _)| it == name).map(|(_, value)| *value)
    }
}

/// The lines of these files.
pub(crate) fn read(paths: &[impl AsRef<Path>]) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for path in paths {
        for line in std::fs::read_to_string(path)?.lines() {
            lines.push(serde_json::from_str(line)?);
        }
    }
    Ok(lines)
}

/// A table for each workload that there are lines of.
pub(crate) fn print(lines: &[Line]) -> Outcome<()> {
    let mut text = String::new();
    if let Some(line) = lines.first() {
        writeln!(
            text,
            "{}. Medians of rounds in turns; brackets: [least..greatest].",
            line.machine
        )?;
    }
    if lines.iter().any(|line| (line.scale - 1.0).abs() > f64::EPSILON) {
        writeln!(text, "\nNot the full volume: these figures mean nothing.")?;
    }
    for work in WORKLOADS {
        let lines: Vec<&Line> = lines.iter().filter(|line| line.workload == work.name).collect();
        if !lines.is_empty() {
            table(&mut text, work, &lines)?;
        }
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn table(text: &mut String, work: &Workload, lines: &[&Line]) -> Outcome<()> {
    let shown = work.shown();
    writeln!(text, "\n### {}: {}\n", work.name, work.about)?;
    let titles: Vec<_> = shown.iter().map(|it| it.title).collect();
    let reads = work.reads();
    let checks = if reads { " checks what it reads |" } else { "" };
    writeln!(text, "| | {} | acknowledged records survive |{checks}", titles.join(" | "))?;
    writeln!(text, "|---|{}---|{}", "---|".repeat(shown.len()), if reads { "---|" } else { "" })?;
    let mut notes = String::new();
    for contender in CONTENDERS {
        let rounds: Vec<&Line> =
            lines.iter().copied().filter(|line| line.contender == contender.name).collect();
        let Some(first) = rounds.first() else { continue };
        let errors: Vec<_> = rounds.iter().filter_map(|line| line.error.as_ref()).collect();
        let cells: Vec<String> = shown.iter().map(|it| cell(&rounds, it)).collect();
        write!(text, "| {} | {} | {} |", first.title, cells.join(" | "), first.survives)?;
        if reads {
            write!(text, " {} |", first.checks)?;
        }
        writeln!(text)?;
        if let Some(error) = errors.first() {
            let (failed, all, title) = (errors.len(), rounds.len(), &first.title);
            writeln!(notes, "{title} failed in {failed} of {all} rounds: {error}.")?;
        }
    }
    if !notes.is_empty() {
        write!(text, "\n{notes}")?;
    }
    Ok(())
}

/// `1.23 M/s [1.10..1.30]`
fn cell(rounds: &[&Line], shown: &Shown) -> String {
    let mut values: Vec<f64> = rounds.iter().filter_map(|line| line.figure(shown.figure)).collect();
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(median), Some(greatest)) =
        (values.first(), values.get(values.len() / 2), values.last())
    else {
        return "-".into();
    };
    let of = |value: &f64| show(*value, shown.unit);
    if least.total_cmp(greatest).is_eq() {
        return of(median);
    }
    format!("{} [{}..{}]", of(median), of(least), of(greatest))
}

fn show(value: f64, unit: Unit) -> String {
    match (unit, value) {
        (Unit::PerSecond, v) if v >= 1e6 => format!("{:.2} M/s", v / 1e6),
        (Unit::PerSecond, v) if v >= 1e3 => format!("{:.1} k/s", v / 1e3),
        (Unit::PerSecond, v) => format!("{v:.0} /s"),
        (Unit::Seconds, v) if v < 1e-6 => format!("{:.0} ns", v * 1e9),
        (Unit::Seconds, v) if v < 1e-3 => format!("{:.1} µs", v * 1e6),
        (Unit::Seconds, v) if v < 1.0 => format!("{:.1} ms", v * 1e3),
        (Unit::Seconds, v) => format!("{v:.2} s"),
        (Unit::Count, v) => format!("{v:.0}"),
    }
}

/// What there is to measure.
pub(crate) fn list() -> Outcome<()> {
    let mut text = String::from("workloads:\n");
    for work in WORKLOADS {
        writeln!(text, "  {:<16} {}", work.name, work.about)?;
    }
    writeln!(text, "\ncontenders, and what they do not take part in:")?;
    for contender in CONTENDERS {
        let without = WORKLOADS.iter().filter(|work| !(contender.takes)(work));
        let without: Vec<_> = without.map(|work| work.name).collect();
        writeln!(
            text,
            "  {:<18} {:<30} {}",
            contender.name,
            contender.titled(),
            without.join(" ")
        )?;
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
