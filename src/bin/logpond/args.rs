//! The command line: what can be asked for, and how it is written. The comments are the help.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use logpond::{Clock, StartAt, SystemClock};

use crate::record::Format;
use crate::tail;
use crate::units::{parse_duration, parse_size};

/// Looks into a data directory of logpond, also while a service has it open.
///
/// Exit codes: 0 it was done, 1 it failed, 2 the command line is wrong, 3 something is damaged.
#[derive(Debug, Parser)]
#[command(name = "logpond", version)]
pub(crate) struct Args {
    /// Print JSON instead of tables: one document, or for `tail` one line per record
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Parses the command line of this process.
    pub(crate) fn of_process() -> Result<Self, clap::Error> {
        let args = Self::try_parse()?;
        match &args.command {
            // clap finds this only if both options follow the command.
            Command::Tail(tail) if args.json && tail.format.is_some() => {
                let reason = "the argument '--format <FORMAT>' cannot be used with '--json'";
                Err(Self::command().error(ErrorKind::ArgumentConflict, reason))
            }
            _ => Ok(args),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the topics
    Topics(Dir),
    /// Show the settings and the partitions of a topic
    Describe(Describe),
    /// List the consumer groups
    Groups(Dir),
    /// Show how far groups are in each partition
    Lag(Lag),
    /// Print records: the last ones, or from an offset or a time on
    Tail(Tail),
    /// Read and check all records: exit code 3 if anything is damaged
    Verify(Verify),
    /// Copy everything that can be read in a damaged directory into a new one
    Salvage(Salvage),
    /// Set the offsets at which a group continues; says what it would do unless `--execute` is given
    Reset(Reset),
    /// Send the lines of standard input as records
    Produce(Produce),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dir {
    /// The data directory
    pub(crate) dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Describe {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// The topic
    pub(crate) topic: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Lag {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// Only this group
    pub(crate) group: Option<String>,
    /// Only this topic
    #[arg(long)]
    pub(crate) topic: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// The topic
    pub(crate) topic: String,
    /// Only this partition; can be given several times
    #[arg(short, long = "partition", value_name = "NUMBER", action = ArgAction::Append)]
    pub(crate) partitions: Vec<u32>,
    /// Begin at: earliest, end, an offset, a time (2026-11-01T00:00Z), or how long ago (7d, 1h30m)
    #[arg(long, value_name = "START", value_parser = parse_start)]
    pub(crate) from: Option<StartAt>,
    /// Print so many of the last records, by their timestamps, of all partitions together
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10, conflicts_with = "from")]
    pub(crate) last: u64,
    /// Wait for more records, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// End after so many records
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// What a record is printed as; text unless `--json` is given
    #[arg(long, value_enum, conflicts_with = "json")]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// Only these topics; the names `__meta`, `__offsets` and `__local` are the broker's own state
    pub(crate) topics: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Salvage {
    /// The damaged directory; nothing is written to it, and no process may have it open
    pub(crate) from: PathBuf,
    /// The copy: a path at which there is nothing, or an empty directory
    pub(crate) to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reset {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// The group
    pub(crate) group: String,
    /// The topic
    pub(crate) topic: String,
    /// Only this partition
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) partition: Option<u32>,
    /// Continue at: earliest, end, an offset, a time (2026-11-01T00:00Z), or how long ago (7d, 1h30m)
    #[arg(long, value_name = "START", value_parser = parse_start)]
    pub(crate) to: StartAt,
    /// Do it: no other process may have the directory open for writing
    #[arg(long)]
    pub(crate) execute: bool,
    /// Create the group if there is none with this name
    #[arg(long)]
    pub(crate) new_group: bool,
    /// How long to wait for another process that writes to the directory
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub(crate) wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Produce {
    /// The data directory
    pub(crate) dir: PathBuf,
    /// The topic
    pub(crate) topic: String,
    /// Send all lines to this partition
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) partition: Option<u32>,
    /// Split each line at the first of these: key before it, value after it
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key_separator: Option<String>,
    /// Create the topic with so many partitions if there is none, and the directory
    #[arg(long, value_name = "PARTITIONS")]
    pub(crate) create: Option<u32>,
    /// How long the new topic keeps records: 7d, 12h, forever
    #[arg(long, value_name = "TIME", requires = "create", value_parser = parse_duration)]
    pub(crate) retention: Option<Duration>,
    /// How many bytes each partition of the new topic keeps: 10GiB, none (no limit)
    #[arg(long, value_name = "SIZE", requires = "create", value_parser = parse_size)]
    pub(crate) retention_bytes: Option<u64>,
    /// The size of a segment file of the new topic: 64MiB
    #[arg(long, value_name = "SIZE", requires = "create", value_parser = parse_size)]
    pub(crate) segment_bytes: Option<u64>,
    /// How long to wait for another process that writes to the directory
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub(crate) wait: Duration,
}

fn parse_start(text: &str) -> Result<StartAt, String> {
    tail::parse_start(text, SystemClock::new().now())
}
