//! One row of the table, and its measurement under valgrind.

use std::env;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// The largest relative difference of two measurements.
const MAX_SPREAD: f64 = 0.005;

/// Executes an operation as often as its argument says.
type Run = fn(u64) -> anyhow::Result<()>;

/// An operation whose instructions are counted.
pub(crate) struct Case {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Its name in the table.
    pub(crate) operation: &'static str,
    /// The loop to measure.
    pub(crate) run: Run,
    /// The loop to subtract from `run`; `None` if `run` does nothing besides the operation.
    pub(crate) baseline: Option<Run>,
    /// The numbers of iterations of the shorter and the longer run.
    pub(crate) iterations: [u64; 2],
    /// How often one iteration executes the operation.
    pub(crate) per_iteration: u64,
}

/// One of the two loops of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    Run,
    Baseline,
}

/// The instructions of one execution of an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Count {
    /// The instructions of the loop.
    pub(crate) measured: f64,
    /// The instructions of the baseline's loop, if there is one.
    pub(crate) baseline: Option<f64>,
    /// The heap allocations of the loop.
    pub(crate) allocations: f64,
}

impl Part {
    /// Returns the word on the command line.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Part::Run => "run",
            Part::Baseline => "baseline",
        }
    }
}

impl Count {
    /// Returns the instructions of the operation alone.
    pub(crate) fn net(self) -> f64 {
        self.measured - self.baseline.unwrap_or_default()
    }
}

impl Case {
    /// Executes a loop of the case in this process.
    pub(crate) fn execute(&self, part: Part, iterations: u64) -> anyhow::Result<()> {
        match part {
            Part::Run => (self.run)(iterations),
            Part::Baseline => {
                let baseline = self
                    .baseline
                    .with_context(|| format!("{} has no baseline", self.name))?;
                baseline(iterations)
            }
        }
    }

    /// Counts the instructions of one execution, in other processes.
    ///
    /// # Errors
    ///
    /// Returns an error if valgrind is missing, a loop fails, or two measurements differ too much.
    pub(crate) fn count(&self) -> anyhow::Result<Count> {
        Ok(Count {
            measured: self.per_execution(Part::Run)?,
            baseline: match self.baseline {
                Some(_) => Some(self.per_execution(Part::Baseline)?),
                None => None,
            },
            allocations: self.difference(Part::Run, &ALLOCATIONS)?,
        })
    }

    /// Measures twice and returns the lower count.
    fn per_execution(&self, part: Part) -> anyhow::Result<f64> {
        let count = || self.difference(part, &INSTRUCTIONS);
        let [first, second] = [count()?, count()?];
        let spread = (first - second).abs() / first.min(second);
        ensure!(
            spread <= MAX_SPREAD,
            "{}: two measurements returned {first:.1} and {second:.1} instructions per execution; \
             run the program again, and increase the iterations of the case if that does not help",
            self.name
        );
        Ok(first.min(second))
    }

    /// Returns the difference of two runs, so that the start of the process and the first call do not count.
    fn difference(&self, part: Part, tool: &Tool) -> anyhow::Result<f64> {
        let [fewer, more] = self.iterations;
        let short = self.total(part, fewer, tool)?;
        let long = self.total(part, more, tool)?;
        let difference = long
            .checked_sub(short)
            .with_context(|| format!("{}: the longer run has a lower total", self.name))?;
        Ok(difference as f64 / ((more - fewer) * self.per_iteration) as f64)
    }

    /// Returns the total of a whole process, all threads together.
    fn total(&self, part: Part, iterations: u64, tool: &Tool) -> anyhow::Result<u64> {
        let program = env::current_exe().context("the path of this program")?;
        let output = tool.command(&program)
            .args([part.word(), self.name, &iterations.to_string()])
            .output()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    anyhow::anyhow!("valgrind was not found; install it, for example with `apt-get install valgrind`")
                }
                _ => anyhow::Error::new(error).context("valgrind did not start"),
            })?;
        let report = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`counts {} {} {iterations}` failed under valgrind ({}):\n{report}",
            part.word(),
            self.name,
            output.status
        );
        match (tool.total_in)(&report) {
            Some(total) => Ok(total),
            None => bail!("valgrind reported no total:\n{report}"),
        }
    }
}

/// A tool of valgrind, and its total in its report.
struct Tool {
    arguments: &'static [&'static str],
    total_in: fn(&str) -> Option<u64>,
}

/// cachegrind without its cache simulation is the fastest of valgrind's tools that count instructions.
const INSTRUCTIONS: Tool = Tool {
    arguments: &[
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
    ],
    total_in: instructions_in,
};

/// DHAT counts the blocks of the heap.
const ALLOCATIONS: Tool = Tool {
    arguments: &["--tool=dhat", "--dhat-out-file=/dev/null"],
    total_in: allocations_in,
};

impl Tool {
    /// Returns the command that observes `program`. The caller adds the arguments of `program`.
    ///
    /// The environment is cleared, so that no variable, such as `RUST_BACKTRACE`, changes what runs.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("valgrind");
        command
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .args(self.arguments)
            .arg(program);
        command
    }
}

/// Finds the total in the last lines of cachegrind, such as `==7== I   refs:      1,234,567`.
fn instructions_in(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("I") && words.next() == Some("refs:")
    })?;
    line.split_whitespace()
        .last()?
        .replace(',', "")
        .parse()
        .ok()
}

/// Finds the total in a line of DHAT, such as `==7== Total:     1,234,567 bytes in 8,901 blocks`.
fn allocations_in(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains(" Total: "))?;
    let mut words = line
        .split_whitespace()
        .rev()
        .skip_while(|word| *word != "blocks");
    words.nth(1)?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_the_report() {
        let report = "==7== DHAT\n==7== \n==7== Total:     1,234,567 bytes in 8,901 blocks\n";
        assert_eq!(allocations_in(report), Some(8_901));
        assert_eq!(allocations_in("==7== DHAT\n"), None);
    }

    #[test]
    fn total_is_found_in_the_reports_of_old_and_new_versions() {
        let old = "==7== Cachegrind\n==7== \n==7== I   refs:      1,234,567\n";
        let new = "==7== Cachegrind\n==7== \n==7== I refs:        1,234,567\n";
        assert_eq!(instructions_in(old), Some(1_234_567));
        assert_eq!(instructions_in(new), Some(1_234_567));
        assert_eq!(instructions_in("==7== Cachegrind\n"), None);
    }
}
