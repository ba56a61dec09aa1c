//! The fault matrix: the results of sixteen threads that write and read while something breaks.
//!
//! `cargo run -q -p tests --bin faults` causes each fault on real servers and files, and prints a table. It fails if a
//! promise is not kept: no acknowledged write is lost, no write is duplicated, no call takes longer than the limit plus
//! a second, and calls succeed again within a second of the fault's end. Words choose the faults whose names contain
//! one of them. `--write` puts the table into `db-service/README.md`, section *Behavior under faults*.

mod bouncer_faults;
mod caller_faults;
mod fault;
mod file_faults;
mod ledger;
mod load;
mod network_faults;
mod other_process;
mod outcome;
mod postgres;
mod processes;
mod proxy;
mod seen;
mod server_faults;
mod table;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::fault::{FAULTS, Fault};
use crate::other_process::Role;

fn main() -> ExitCode {
    expect_panics_on_purpose();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match Role::of(&arguments) {
        Some((role, path)) => role.play(path),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let (options, words): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|word| word.starts_with("--"));
    let is_written = !options.is_empty();
    ensure!(
        options.iter().all(|option| *option == "--write"),
        "usage: faults [--write] [WORD…]"
    );
    ensure!(!is_written || words.is_empty(), "--write takes all faults");
    let is_chosen =
        |fault: &&Fault| words.is_empty() || words.iter().any(|word| fault.name.contains(*word));
    let chosen: Vec<_> = FAULTS.iter().filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "no fault has such a name");
    let mut lines = vec![table::HEADING.to_owned()];
    println!("{}", table::HEADING);
    let mut broken = Vec::new();
    for fault in chosen {
        match fault.outcome() {
            Ok((outcome, promises)) => {
                let row = table::row(fault.name, &outcome);
                println!("{row}");
                lines.push(row);
                broken.extend(
                    promises
                        .iter()
                        .map(|promise| format!("{}: {promise}", fault.name)),
                );
            }
            Err(error) => broken.push(format!("{}: {error:#}", fault.name)),
        }
    }
    ensure!(broken.is_empty(), "\n{}", broken.join("\n"));
    if is_written {
        table::write(&lines.join("\n")).context("db-service/README.md could not be written")?;
    }
    Ok(())
}

/// Suppresses the output of panics that are part of a fault.
fn expect_panics_on_purpose() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |information| {
        if information.payload().downcast_ref() != Some(&ledger::ON_PURPOSE) {
            usual(information);
        }
    }));
}
