//! The fault matrix: how calls behave while servers, networks, disks and other processes fail.
//!
//! ```sh
//! cargo run -q -p tests --bin faults                     # all faults
//! cargo run -q -p tests --bin faults -- SQLite kill      # faults whose names contain one of the words
//! cargo run -q -p tests --bin faults -- --write          # all faults, and the table in db-service/README.md
//! ```
//!
//! For each fault, sixteen threads write and read alternately on a separate server or file while the fault happens. The
//! program prints one table row per fault. All faults take about two minutes. The program fails if one of these checks
//! fails:
//!
//! - No acknowledged write is lost, and no write is in the table twice.
//! - No write is in the table whose error said that it failed.
//! - Each thread reads what it has written.
//! - No call takes longer than its limit plus one second.
//! - Writes and reads succeed again within one second of the end of the fault.
//! - Calls return no errors other than those of the fault's list in [`fault::FAULTS`].
//! - The fault affects at least one call, except where [`fault::FAULTS`] allows that it does not.
//!
//! `--write` replaces the text between `<!-- faults -->` and `<!-- /faults -->` in `db-service/README.md`, section
//! *Behavior under faults*. It does so only if all checks succeed.

mod caller_faults;
mod child_process;
mod fault;
mod file_faults;
mod load;
mod network_faults;
mod number_table;
mod observations;
mod outcome;
mod postgres_target;
mod processes;
mod report;
mod server_faults;
mod tcp_proxy;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::child_process::Role;
use crate::fault::{FAULTS, Fault};

fn main() -> ExitCode {
    hide_intentional_panics();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match Role::from_arguments(&arguments) {
        Some((role, path)) => role.run(path),
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
    let (options, words): (Vec<_>, Vec<_>) = arguments
        .iter()
        .partition(|argument| argument.starts_with("--"));
    let writes_readme = !options.is_empty();
    ensure!(
        options.iter().all(|option| *option == "--write"),
        "usage: faults [--write] [WORD…]"
    );
    ensure!(
        !writes_readme || words.is_empty(),
        "--write runs all faults and takes no words"
    );
    let is_selected =
        |fault: &&Fault| words.is_empty() || words.iter().any(|word| fault.name.contains(*word));
    let selected: Vec<_> = FAULTS.iter().filter(is_selected).collect();
    ensure!(
        !selected.is_empty(),
        "no fault's name contains one of the words"
    );
    let mut lines = vec![report::HEADING.to_owned()];
    println!("{}", report::HEADING);
    let mut failures = Vec::new();
    for fault in selected {
        match fault.run() {
            Ok((outcome, failed_checks)) => {
                let row = report::row(fault.name, &outcome);
                println!("{row}");
                lines.push(row);
                failures.extend(
                    failed_checks
                        .iter()
                        .map(|check| format!("{}: {check}", fault.name)),
                );
            }
            Err(error) => failures.push(format!("{}: {error:#}", fault.name)),
        }
    }
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    if writes_readme {
        report::write_to_readme(&lines.join("\n"))
            .context("could not write the table to the README")?;
    }
    Ok(())
}

/// Installs a panic hook that prints nothing for the panics that are part of a fault.
fn hide_intentional_panics() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |information| {
        if information.payload().downcast_ref() != Some(&number_table::INTENTIONAL_PANIC) {
            default_hook(information);
        }
    }));
}
