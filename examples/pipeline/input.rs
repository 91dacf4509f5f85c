//! What to read: the command line, and files or standard input as lines of bytes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, UNIX_EPOCH};

use logpond::{Clock, Durability, SystemClock};

use super::Failure;

const USAGE: &str = "\
usage: pipeline [--dir DIR] [--durability os|interval|sync] [--stop-after N] [FILE | -]...

  FILE               a text file, read line by line; '-' is standard input
                     (default: the sources of this crate)
  --dir DIR          where the topic is stored (default: target/pipeline)
  --durability D     what an acknowledgement means (default: sync)
  --stop-after N     interrupt the run after N newly sent lines
";

/// LIMIT: one byte more than the default `max_record_bytes`. A longer line is not read to its
/// end; the broker refuses what was read of it, by name and line number.
const LINE_BYTES_MAX: u64 = (1 << 20) + 1;

pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) stop_after: Option<u64>,
    inputs: Vec<OsString>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut options = Self {
            dir: "target/pipeline".into(),
            durability: Durability::Sync,
            stop_after: None,
            inputs: Vec::new(),
        };
        while let Some(arg) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| Failure(format!("{} needs a value", arg.display())));
            match arg.to_str() {
                Some("--dir") => options.dir = value()?.into(),
                Some("--durability") => options.durability = durability(&value()?)?,
                Some("--stop-after") => options.stop_after = Some(count(&value()?)?),
                Some("--help" | "-h") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Some(flag) if flag.starts_with("--") => {
                    return Err(Failure(format!("unknown option {flag}; see --help")));
                }
                _ => options.inputs.push(arg),
            }
        }
        Ok(options)
    }

    /// The inputs in the order given, each once.
    pub(crate) fn sources(&self) -> Result<Vec<Source>, Failure> {
        let mut sources: Vec<Source> = Vec::new();
        if self.inputs.is_empty() {
            let mut files = Vec::new();
            find_sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files)?;
            files.sort();
            for file in files {
                sources.push(Source::file(&file)?);
            }
        }
        for input in &self.inputs {
            let source =
                if input == "-" { Source::stdin() } else { Source::file(Path::new(input))? };
            if sources.iter().all(|other| other.name != source.name) {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}

fn durability(name: &OsString) -> Result<Durability, Failure> {
    match name.to_str() {
        Some("os") => Ok(Durability::Os),
        Some("interval") => {
            Ok(Durability::Interval { every: Duration::from_millis(100), bytes: 8 << 20 })
        }
        Some("sync") => Ok(Durability::Sync),
        _ => Err(Failure(format!(
            "--durability {}: it is one of os, interval, sync",
            name.display()
        ))),
    }
}

fn count(text: &OsString) -> Result<u64, Failure> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure(format!("--stop-after {}: it is a number", text.display())))
}

/// Every `.rs` and `.md` file below a directory.
fn find_sources(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failure = |error| cannot_read(dir, &error);
    for entry in fs::read_dir(dir).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let path = entry.path();
        if entry.file_type().map_err(failure)?.is_dir() {
            find_sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

/// Something to read lines from.
pub(crate) struct Source {
    /// Key of the lines and name of their producer. The same file has the same name in every run.
    pub(crate) name: String,
    path: Option<PathBuf>,
}

impl Source {
    fn file(path: &Path) -> Result<Self, Failure> {
        let failure = |error| cannot_read(path, &error);
        let kind = fs::metadata(path).map_err(failure)?.file_type();
        if kind.is_dir() {
            return Err(failure(io::ErrorKind::IsADirectory.into()));
        }
        // The same file under two names is one file. A pipe or a device is new in every run.
        let name =
            if kind.is_file() { fs::canonicalize(path).map_err(failure)? } else { path.into() };
        let name = name.into_os_string().into_string().map_err(|name| {
            Failure(format!("cannot use {}: the path is not UTF-8", name.display()))
        })?;
        let name = if kind.is_file() { name } else { format!("{name}@{}", run_id()) };
        Ok(Self { name, path: Some(path.into()) })
    }

    fn stdin() -> Self {
        Self { name: format!("stdin@{}", run_id()), path: None }
    }

    pub(crate) fn lines(&self) -> Result<Lines, Failure> {
        let reader: Box<dyn BufRead> = match &self.path {
            Some(path) => {
                let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
            None => Box::new(io::stdin().lock()),
        };
        Ok(Lines { name: self.name.clone(), reader, line: Vec::new() })
    }
}

/// A name for what cannot be read a second time.
fn run_id() -> String {
    let since_1970 = SystemClock::new().now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", since_1970.as_millis(), process::id())
}

/// The lines of a source, as bytes: what they contain is none of our business.
pub(crate) struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
}

impl Lines {
    /// The next line without its line feed. The last one need not have any.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        self.line.clear();
        let mut limited = self.reader.by_ref().take(LINE_BYTES_MAX);
        let read = limited
            .read_until(b'\n', &mut self.line)
            .map_err(|error| cannot_read(Path::new(&self.name), &error))?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        Ok((read > 0).then_some(self.line.as_slice()))
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}", path.display()), error)
}
