//! The table as Markdown.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::case::{Case, Count};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.md");

/// Returns the table, one row for each case.
pub(crate) fn markdown(rows: &[(&Case, Count)]) -> String {
    let mut table = String::from(
        "| name | operation | instructions | loop | baseline | allocations |\n|---|---|---:|---:|---:|---:|\n",
    );
    for (case, count) in rows {
        let baseline = count.baseline.map(figure).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {baseline} | {} |",
            case.name,
            case.operation,
            figure(count.net()),
            figure(count.measured),
            figure(count.allocations)
        );
    }
    table
}

/// Writes the table to `counts.md`, with the command, the compiler and the profile.
pub(crate) fn write(table: &str) -> anyhow::Result<()> {
    let text = format!(
        "# Instruction counts\n\n\
         The instructions of one execution are those of the loop less those of the baseline, if there is one.\n\
         The allocations are those of the loop.\n\
         `src/main.rs` describes the rows, the method and how to read a change.\n\n\
         - command: `tests/counts/run --write`\n\
         - compiler: {}\n\
         - profile: `counts` of the workspace's `Cargo.toml`\n\n\
         {table}",
        compiler()?
    );
    fs::write(PATH, text).with_context(|| format!("{PATH} could not be written"))
}

/// Returns the version and the target of the compiler that `cargo` uses here.
fn compiler() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or(OsString::from("rustc"));
    let output = Command::new(rustc)
        .arg("-vV")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("rustc did not start")?;
    ensure!(
        output.status.success(),
        "rustc -vV failed ({})",
        output.status
    );
    let report = String::from_utf8(output.stdout).context("the version of rustc")?;
    let version = report.lines().next().context("the version of rustc")?;
    let host = report.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("the target of rustc")?;
    Ok(format!("{version}, {host}"))
}

/// Returns a number with at most four significant digits: `11.0`, `271`, `39,020`.
fn figure(count: f64) -> String {
    if count < 100.0 {
        return format!("{count:.1}");
    }
    let mut unit = 1.0;
    while count / unit >= 10_000.0 {
        unit *= 10.0;
    }
    let digits = format!("{:.0}", (count / unit).round() * unit);
    let mut figure = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            figure.push(',');
        }
        figure.push(digit);
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_at_most_four_significant_digits() {
        let cases = [
            (3.96, "4.0"),
            (11.0, "11.0"),
            (271.16, "271"),
            (999.7, "1,000"),
            (2_029.4, "2,029"),
            (39_016.1, "39,020"),
            (1_234_567.0, "1,235,000"),
        ];
        for (count, expected) in cases {
            assert_eq!(figure(count), expected);
        }
    }
}
