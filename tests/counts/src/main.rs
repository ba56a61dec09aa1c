//! Counts the instructions of the calls that programs make most often: guarded calls, checkouts and queries.
//!
//! `tests/counts/run` builds this program with the profile `counts`, measures for about a minute, and prints a table.
//! With `--write`, it also writes the table to `tests/counts/counts.md`. Words choose the rows with one of them in
//! their names, as in `tests/counts/run guarded parse`. The program needs valgrind. CI compiles it and does not run
//! it.
//!
//! # The rows
//!
//! All queries run on a SQLite database in memory, with the default settings of `db-service`.
//!
//! | name | one execution |
//! |---|---|
//! | `guarded-stored` | calls a `#[guarded]` method and stores its `Result` in memory |
//! | `guarded-returned` | returns the `Result` to its caller |
//! | `guarded-question-mark` | takes the value with `?` and returns another `Result` |
//! | `guarded-match` | takes the value with `match` and returns another number |
//! | `guarded-loop` | takes the value in the body of a loop, into which the call is inlined |
//! | `lazy-lock-…` | does the same with a method of a struct in a `LazyLock` |
//! | `checkout` | checks out a connection and returns it to the pool |
//! | `dynamic-service` | checks out a connection and executes a point query with a named parameter |
//! | `dynamic-connection` | executes the same query on a connection that is already checked out |
//! | `typed-connection` | loads the same row with diesel's DSL on a `db_service::Connection` |
//! | `typed-sqlite` | loads it on the `SqliteConnection` inside, which `db-service` only observes |
//! | `typed-bare` | loads it on a `SqliteConnection` that `db-service` has not opened |
//! | `parse` | parses a statement with 8 parameters that is new to its connection |
//! | `row-decode` | steps SQLite to the next row and makes a `Row` of it |
//! | `row-get` | reads all columns of a `Row` into the fields of a struct |
//!
//! # The method
//!
//! Each loop runs under cachegrind with few and with many iterations, each time in a new process. The cost of one
//! execution is the difference of both totals, divided by the difference of the iterations. Heap allocations are counted
//! in the same way, once, under DHAT. Both totals contain the
//! start of the process, the initialization of the services and the first call, so these cancel out.
//!
//! Some rows have a baseline. It is measured in the same way and subtracted:
//!
//! - Guarded calls: the same call site with a method of a plain struct. The difference is the cost of the guard. It
//!   includes optimizations that the guard prevents: without it, the optimizer reads the number once before the loop of
//!   `guarded-loop`, and passes the number instead of the reference to the other functions.
//! - `parse`: the statement `SELECT :id`. Both statements fail because their parameters are missing, which
//!   `db-service` notices after parsing and before SQLite receives anything. The figure is therefore the cost beyond
//!   that of a statement with one parameter: about 4 % less than the whole. It includes hashing the longer text for
//!   the statistics of statements.
//! - `row-decode`: the same query without a matching row.
//!
//! # The spread
//!
//! Each loop is measured twice. The table shows the lower figure, and the program fails if the two differ by more than
//! 0.5 %. Guarded calls have no spread: even the totals are equal. The totals of the other rows vary by some thousands
//! of instructions, mainly because a worker thread of the pool, whose start costs about 5,000, may or may not start
//! before the process ends. The iterations make this less than 0.1 % of a figure. The table shows at most four
//! significant digits for this reason, and the last one may still change from run to run.
//!
//! # How to read a change
//!
//! - Compare figures of the same compiler, target, profile and processor: glibc chooses functions such as `memcpy` by
//!   the processor. To judge a change, write the table before and after it on the same machine.
//! - One instruction more or less in a guarded row is a real change.
//! - In the other rows, up to 1 % may come from other decisions of the inliner and other addresses of constants. A
//!   change of unrelated code can cause both, even a new row of this table.
//! - Instructions are not time. They show neither cache misses nor waits for locks and system calls.
//!
//! callgrind shows which functions a change comes from:
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=parse.out target/counts/counts run parse 5000
//! callgrind_annotate --inclusive=yes parse.out
//! ```

mod case;
mod database_calls;
mod guarded_calls;
mod table;

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use crate::case::{Case, Part};

const USAGE: &str = "usage: counts [--write | WORD…], or counts run|baseline CASE ITERATIONS";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["run", name, iterations] => execute(name, Part::Run, iterations),
        ["baseline", name, iterations] => execute(name, Part::Baseline, iterations),
        ["--write"] => print(&[], true),
        words => print(words, false),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    let guarded_calls = guarded_calls::CASES.as_flattened();
    guarded_calls.iter().chain(&database_calls::CASES)
}

/// Executes a loop in this process, which valgrind observes.
fn execute(name: &str, part: Part, iterations: &str) -> anyhow::Result<()> {
    let mut cases = cases();
    let Some(case) = cases.find(|case| case.name == name) else {
        bail!("there is no case `{name}`; {USAGE}");
    };
    case.execute(part, iterations.parse().context(USAGE)?)
}

/// Counts the chosen cases, or all if there are no words, and prints the table.
fn print(words: &[&str], is_written: bool) -> anyhow::Result<()> {
    ensure!(words.iter().all(|word| !word.starts_with('-')), USAGE);
    let is_chosen =
        |case: &&Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let chosen: Vec<_> = cases().filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "no case has a name with {words:?}");
    let mut rows = Vec::with_capacity(chosen.len());
    for case in chosen {
        rows.push((case, case.count()?));
    }
    let table = table::markdown(&rows);
    print!("{table}");
    if is_written {
        table::write(&table)?;
    }
    Ok(())
}
