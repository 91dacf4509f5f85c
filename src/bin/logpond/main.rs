//! The program `logpond`: a look into a data directory, from a shell.
//!
//! | layer | files |
//! |---|---|
//! | what is asked for | `args`: the command line; `units`, `time`: sizes, durations and times |
//! | what is done | `topics`, `groups`, `tail`, `check`, `produce`: a function per command, which returns plain data; `open`, `holder` |
//! | what is shown | `output`: a report as text or JSON; `table`, `record`, `text`, `progress`, `newest` |
//! | how it ends | `failure`: messages and exit codes |
//!
//! `main` connects them. It is a client of the library like any other: everything here uses its
//! public names. Commands that only read take no lock, so that they work beside a service; those
//! that write look first, read-only, and then open the directory alone.

mod args;
mod check;
mod failure;
mod groups;
mod holder;
mod newest;
mod open;
mod output;
mod produce;
mod progress;
mod record;
mod table;
mod tail;
mod text;
mod time;
mod topics;
mod units;

use std::io;
use std::process::ExitCode;

use logpond::{Broker, Error, TopicConfig};

use self::args::{Args, Command};
use self::failure::{Exit, Failure};
use self::newest::Newest;
use self::output::{Output, Report, note, note_escaped};
use self::progress::Progress;
use self::record::{Format, show_notice, show_record};
use self::units::show_size;

fn main() -> ExitCode {
    let args = match Args::of_process() {
        Ok(args) => args,
        // Help and version are no errors; they come this way too.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(args) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                note_escaped(&failure.to_string());
            }
            failure.exit().into()
        }
    }
}

fn run(args: Args) -> Result<Exit, Failure> {
    let mut output = Output::new(args.json);
    match args.command {
        Command::Topics(args) => finish(&mut output, &topics::topics(&looked_at(&args.dir)?)?),
        Command::Describe(args) => {
            finish(&mut output, &topics::describe(&looked_at(&args.dir)?, &args.topic)?)
        }
        Command::Groups(args) => finish(&mut output, &groups::groups(&looked_at(&args.dir)?)?),
        Command::Lag(args) => {
            let broker = looked_at(&args.dir)?;
            let lag = groups::lag(&broker, args.group.as_deref(), args.topic.as_deref())?;
            finish(&mut output, &lag)
        }
        Command::Tail(tail) => run_tail(&mut output, &tail, args.json),
        Command::Verify(args) => run_verify(&mut output, &args),
        Command::Salvage(args) => {
            open::check_has_logs(&args.from)?;
            let mut progress = Progress::on_terminal();
            let salvaged = check::salvage(&args.from, &args.to, |step| {
                progress.show(|| {
                    let (copied, total) = (step.copied, step.total);
                    format!("{copied} of {total} partitions: {}-{}", step.topic, step.partition)
                });
            });
            drop(progress);
            finish(&mut output, &salvaged?)
        }
        Command::Reset(args) => run_reset(&mut output, &args),
        Command::Produce(args) => run_produce(&mut output, &args),
    }
}

/// Opens a directory read-only, and says on standard error what is damaged.
fn looked_at(dir: &std::path::Path) -> Result<Broker, Failure> {
    let broker = open::read_only(dir)?;
    open::note_damage(&broker);
    Ok(broker)
}

/// Prints a report. The exit code says whether it shows damage.
fn finish(output: &mut Output, report: &impl Report) -> Result<Exit, Failure> {
    let printed = output.report(report).and_then(|()| output.flush());
    unless_closed(printed, report.has_damage())
}

/// The exit code of a command whose output is printed. It is the same if nobody reads the output.
fn unless_closed(printed: Result<(), Failure>, has_damage: bool) -> Result<Exit, Failure> {
    match printed {
        Ok(()) | Err(Failure::OutputClosed) => Ok(exit_by(has_damage)),
        Err(failure) => Err(failure),
    }
}

fn exit_by(has_damage: bool) -> Exit {
    if has_damage { Exit::Damaged } else { Exit::Ok }
}

fn run_tail(output: &mut Output, args: &args::Tail, json: bool) -> Result<Exit, Failure> {
    let format = args.format.unwrap_or(if json { Format::Json } else { Format::Text });
    let from = args.from.map_or(tail::From::Last(args.last), tail::From::At);
    let (topic, partitions) = (args.topic.as_str(), args.partitions.as_slice());
    let mut tail = tail::Tail::open(&tail::Request { dir: &args.dir, topic, partitions, from })?;
    let printed = print_tail(output, &mut tail, args, format);
    unless_closed(printed, tail.has_damage())
}

fn print_tail(
    output: &mut Output,
    tail: &mut tail::Tail,
    args: &args::Tail,
    format: Format,
) -> Result<(), Failure> {
    let mut wanted = args.limit.unwrap_or(u64::MAX);
    if args.from.is_none() {
        // Of each partition so many are read, and of all so many are the last.
        let mut newest = Newest::new(args.last);
        while tail.next(|message| {
            newest.add(&message, show_record(&message, format)?);
            Ok(())
        })? {
            say_notices(tail);
        }
        for record in newest.into_records().take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
            wanted -= 1;
            output.write(&record)?;
        }
    }
    while wanted > 0 {
        let has_read = tail.next(|message| {
            if wanted > 0 {
                wanted -= 1;
                output.write(&show_record(&message, format)?)?;
            }
            Ok(())
        })?;
        say_notices(tail);
        if !has_read {
            if !args.follow {
                break;
            }
            output.flush()?;
            tail.wait()?;
        }
    }
    // What the opening has found, where nothing is to be read.
    say_notices(tail);
    output.flush()
}

fn say_notices(tail: &mut tail::Tail) {
    for notice in tail.take_notices() {
        note(&show_notice(&notice));
    }
}

fn run_verify(output: &mut Output, args: &args::Verify) -> Result<Exit, Failure> {
    let broker = open::read_only(&args.dir)?;
    let mut progress = Progress::on_terminal();
    let verified = check::verify(&broker, &args.topics, |step| {
        progress.show(|| {
            let (read, all) = (show_size(step.bytes_read), show_size(step.bytes));
            format!("{read} of {all}: {}", step.partition)
        });
    })?;
    drop(progress);
    finish(output, &verified)
}

fn run_reset(output: &mut Output, args: &args::Reset) -> Result<Exit, Failure> {
    let reset = groups::Reset {
        group: &args.group,
        topic: &args.topic,
        partition: args.partition,
        to: args.to,
        is_new: args.new_group,
    };
    let plan = groups::plan_reset(&looked_at(&args.dir)?, &reset)?;
    if !args.execute {
        return finish(output, &plan);
    }
    let broker = open::for_writing(&args.dir, args.wait)?;
    let done = groups::execute_reset(&broker, &reset)?;
    broker.close()?;
    finish(output, &done)
}

fn run_produce(output: &mut Output, args: &args::Produce) -> Result<Exit, Failure> {
    let lines = produce::Lines {
        topic: &args.topic,
        key_separator: args.key_separator.as_deref(),
        partition: args.partition,
    };
    let config = args.create.map(|partitions| produce::config(partitions, args));
    look_before_writing(args, config.as_ref())?;
    let broker = open::for_writing(&args.dir, args.wait)?;
    if let Some(config) = config {
        broker.ensure_topic(&args.topic, config)?;
    }
    let sent = produce::produce(&broker, &lines, io::stdin().lock())?;
    broker.close()?;
    finish(output, &sent)
}

/// Refuses what cannot be done, before anything is created: a directory or a topic that is not
/// there, impossible settings.
fn look_before_writing(args: &args::Produce, config: Option<&TopicConfig>) -> Result<(), Failure> {
    if let Some(config) = config {
        produce::check_new(&args.topic, config, args.partition)?;
    }
    let broker = match open::read_only(&args.dir) {
        Err(Failure::NoDirectory { .. }) if config.is_some() && open::is_free(&args.dir) => {
            return Ok(());
        }
        opened => opened?,
    };
    open::note_damage(&broker);
    match broker.topic(&args.topic) {
        Err(Error::UnknownTopic(_)) if config.is_some() => Ok(()),
        Ok(topic) => {
            args.partition.map_or(Ok(()), |number| Ok(topic.partition(number).map(drop)?))
        }
        Err(error) => Err(error.into()),
    }
}
