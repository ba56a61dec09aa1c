//! The table in `db-service/README.md`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::outcome::Outcome;
use crate::seen::{Experience, Seen};

/// The marks before and after the table.
const MARKS: [&str; 2] = ["<!-- faults -->\n", "<!-- /faults -->"];

pub(crate) const HEADING: &str = "\
| fault | limit | longest write, read | write errors | read errors | recovery of writes, reads \
| acknowledged | in the table | lost | doubled | unknown, in the table |
|---|---|---|---|---|---|---|---|---|---|---|";

pub(crate) fn row(name: &str, outcome: &Outcome) -> String {
    let Seen {
        writes,
        reads,
        numbers,
        ..
    } = &outcome.seen;
    [
        name.to_owned(),
        seconds(outcome.limit),
        format!("{}, {}", seconds(writes.longest), seconds(reads.longest)),
        errors(writes),
        errors(reads),
        format!("{}, {}", recovery(writes), recovery(reads)),
        numbers.acknowledged.len().to_string(),
        outcome.found.to_string(),
        outcome.lost.to_string(),
        outcome.doubled.to_string(),
        format!("{}, {}", numbers.unknown.len(), outcome.found_of_unknown),
    ]
    .into_iter()
    .fold("|".to_owned(), |row, cell| row + " " + &cell + " |")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn recovery(experience: &Experience) -> String {
    experience.recovery.map_or_else(
        || "none".to_owned(),
        |time| format!("{} ms", time.as_millis()),
    )
}

fn errors(experience: &Experience) -> String {
    let named: Vec<_> = experience
        .errors
        .iter()
        .map(|(variant, errors)| format!("{} {variant}", errors.count))
        .collect();
    if named.is_empty() {
        "none".to_owned()
    } else {
        named.join(", ")
    }
}

/// Replaces the table between its marks in the README.
pub(crate) fn write(table: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../db-service/README.md");
    let readme = fs::read_to_string(&path)?;
    let missing = "db-service/README.md has no marks for the table";
    let (before, rest) = readme.split_once(MARKS[0]).context(missing)?;
    let (_, after) = rest.split_once(MARKS[1]).context(missing)?;
    fs::write(
        path,
        [before, MARKS[0], table, "\n", MARKS[1], after].concat(),
    )?;
    Ok(())
}
