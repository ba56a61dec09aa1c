//! The table of outcomes, and its place in the README.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::observations::{CallStatistics, Observations};
use crate::outcome::Outcome;

/// The lines before and after the table in the README.
const MARKERS: [&str; 2] = ["<!-- faults -->\n", "<!-- /faults -->"];

/// The README, relative to the manifest of this package.
const README: &str = "../db-service/README.md";

pub(crate) const HEADING: &str = "\
| fault | limit | longest write / read | errors of writes | errors of reads | recovery of writes / reads \
| acknowledged writes | rows in the table | lost | duplicated | unknown writes / in the table |
|---|---|---|---|---|---|---|---|---|---|---|";

/// Returns the row of a fault.
pub(crate) fn row(name: &str, outcome: &Outcome) -> String {
    let Observations {
        writes,
        reads,
        numbers,
        ..
    } = &outcome.observations;
    [
        name.to_owned(),
        seconds(outcome.limit),
        format!("{} / {}", seconds(writes.longest), seconds(reads.longest)),
        errors(writes),
        errors(reads),
        format!("{} / {}", recovery(writes), recovery(reads)),
        numbers.acknowledged.len().to_string(),
        outcome.present.to_string(),
        outcome.lost.to_string(),
        outcome.duplicated.to_string(),
        format!("{} / {}", numbers.unknown.len(), outcome.unknown_present),
    ]
    .into_iter()
    .fold("|".to_owned(), |row, cell| row + " " + &cell + " |")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn recovery(statistics: &CallStatistics) -> String {
    statistics.recovery.map_or_else(
        || "none".to_owned(),
        |time| format!("{} ms", time.as_millis()),
    )
}

fn errors(statistics: &CallStatistics) -> String {
    let counts: Vec<_> = statistics
        .errors
        .iter()
        .map(|(variant, errors)| format!("{} {variant}", errors.count))
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

/// Replaces the table between the markers in the README.
///
/// # Errors
///
/// Returns an error if the README cannot be read or written, or has no markers.
pub(crate) fn write_to_readme(table: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(README);
    let readme = fs::read_to_string(&path)?;
    let missing = || {
        format!(
            "{README} does not contain {:?} and {:?}",
            MARKERS[0], MARKERS[1]
        )
    };
    let (before, rest) = readme.split_once(MARKERS[0]).with_context(missing)?;
    let (_, after) = rest.split_once(MARKERS[1]).with_context(missing)?;
    fs::write(
        path,
        [before, MARKERS[0], table, "\n", MARKERS[1], after].concat(),
    )?;
    Ok(())
}
