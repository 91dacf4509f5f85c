//! What the run came to, for people.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::Duration;

use logpond::Offsets;

use super::{Audit, Checksums, Failure, PerFile, Produced, Progress, WORKERS};

/// How many files the list of words shows.
const FILES_SHOWN: usize = 5;

#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) produced: Option<Produced>,
    pub(crate) producing: Duration,
    pub(crate) counted: Progress,
    pub(crate) audited: Progress,
    pub(crate) consuming: Duration,
    pub(crate) ends: Offsets,
    pub(crate) words: PerFile<u64>,
    pub(crate) audit: Audit,
}

impl Summary {
    /// What lies between each group and the end of the topic: `counters`, `audit`.
    pub(crate) fn lags(&self) -> (u64, u64) {
        (self.counted.lag(&self.ends), self.audited.lag(&self.ends))
    }

    /// One line for the time in which the work continues.
    pub(crate) fn status(&self) -> String {
        let (counters, audit) = self.lags();
        format!(
            "{} lines in; counted {} (lag {}), audited {} (lag {})",
            grouped(self.ends.values().sum()),
            grouped(self.counted.lines),
            grouped(counters),
            grouped(self.audited.lines),
            grouped(audit),
        )
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        io::stdout()
            .write_all(self.to_string().as_bytes())
            .map_err(|error| Failure::new("cannot write the summary", &error))
    }

    /// Whether the audit found every line of every file of this run, once, in order, and as it is
    /// in the file.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.fault() {
            None => Ok(()),
            Some(fault) => Err(Failure(format!("the audit failed: {fault}"))),
        }
    }

    fn fault(&self) -> Option<String> {
        let mut files = self.produced.iter().flat_map(|produced| &produced.files);
        let differs = |(file, lines): (&String, &Checksums)| {
            let arrived = self.audit.files.get(file.as_bytes()).map_or(&[][..], Vec::as_slice);
            difference(lines, arrived).map(|difference| format!("{file}: {difference}"))
        };
        self.audit.first_fault.clone().or_else(|| files.find_map(differs))
    }
}

/// How the lines of a file differ from those that arrived.
fn difference(lines: &[u32], arrived: &[u32]) -> Option<String> {
    if let Some(index) = lines.iter().zip(arrived).position(|(line, arrived)| line != arrived) {
        let line = grouped(index as u64 + 1);
        return Some(format!("line {line} is not what the file says; was the file edited?"));
    }
    let (lines, arrived) = (lines.len() as u64, arrived.len() as u64);
    (lines != arrived)
        .then(|| format!("{} lines arrived, the file has {}", grouped(arrived), grouped(lines)))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counters_lag, audit_lag) = self.lags();
        if let Some(Produced { sent, sent_bytes, already_in, files, .. }) = &self.produced {
            writeln!(
                f,
                "sent     {} lines, {} MB, of {} ({} lines were in already): {} lines/s, {} MB/s",
                grouped(*sent),
                megabytes(*sent_bytes),
                file_count(files.len()),
                grouped(*already_in),
                grouped(per_second(*sent, self.producing)),
                megabytes(per_second(*sent_bytes, self.producing)),
            )?;
        }
        writeln!(
            f,
            "counted  {} lines by {WORKERS} workers: {} lines/s, lag {counters_lag}",
            grouped(self.counted.lines),
            grouped(per_second(self.counted.lines, self.consuming)),
        )?;
        writeln!(
            f,
            "audited  {} lines of {}: {} lines/s, lag {audit_lag}",
            grouped(self.audit.lines),
            file_count(self.audit.files.len()),
            grouped(per_second(self.audit.lines, self.consuming)),
        )?;
        match self.fault() {
            None => {
                writeln!(f, "audit    passed: every line exactly once, in order, as in its file")?;
            }
            Some(fault) => writeln!(f, "audit    FAILED: {fault}")?,
        }

        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        for (index, (file, count)) in words.into_iter().take(FILES_SHOWN).enumerate() {
            let title = if index == 0 { "words" } else { "" };
            writeln!(f, "{title:<5} {:>10}  {}", grouped(*count), String::from_utf8_lossy(file))?;
        }
        Ok(())
    }
}

fn file_count(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{} files", grouped(count as u64)) }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", grouped(bytes / 1_000_000), bytes / 100_000 % 10)
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let mut rest = number;
    let mut groups = Vec::new();
    while rest >= 1000 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut text = rest.to_string();
    for group in groups.iter().rev() {
        let _ = write!(text, ",{group:03}");
    }
    text
}
