//! logpond beside its peers, and beside what the machine can do at all, on gigabytes.
//!
//! - Each contender gets its best settings for the guarantee that a row names, and a process of its
//!   own for each round ([`rounds`]). A contender that is not made for a workload is left out.
//! - Contenders take turns; shown are medians, with the least and the greatest.
//! - Each worker is tied to a processor, worker `w` to processor `w % processors`. The threads that
//!   a contender starts by itself are not.
//! - Memory is touched before anything is measured, and what was written before is on the disk.
//! - Readers compare the number and the length of every record ([`workloads`]).
//! - `limit` is written by hand: what no log can do without, and nothing else ([`backends`]).
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::process::ExitCode;

use args::Command;
use log::Outcome;

mod args;
mod backends;
mod log;
mod machine;
mod rounds;
mod table;
mod workloads;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    match args::parse(std::env::args().skip(1))? {
        Command::Help => eprint!("{}", args::HELP),
        Command::List => table::list()?,
        Command::Table(paths) => table::print(&table::read(&paths)?)?,
        Command::Run(run) => rounds::measure(&run)?,
        Command::Child(order, contender) => rounds::obey(&order, contender)?,
    }
    Ok(())
}
