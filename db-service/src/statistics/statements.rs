//! The number of calls and the durations of each statement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::{Mutex, RwLock};

use crate::backend::Backend;
use crate::tokens::{Kind, Token, Tokens};

/// The maximum number of different statements. A program that writes values into its texts produces ever more of them.
const MAX_STATEMENTS: usize = 256;
/// The maximum length of a recorded text in bytes. Statements with a longer common beginning count as one.
const MAX_TEXT: usize = 4096;
/// The name of all statements after the maximum.
const OTHERS: &str = "(other statements)";

/// The statistics of one statement since the start of the service.
///
/// Times are measured at the caller, until all rows were read, without the wait for a connection. Percentiles are at
/// most 1 % too high.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatementStatistics {
    /// The first 4096 bytes of the text, without comments and without white space and semicolons around it, with the
    /// names or placeholders of parameters and never with their values.
    pub statement: String,
    /// The number of calls, failures included. A call of `execute_many` counts as one.
    pub calls: u64,
    /// The number of failed calls. A failure in a transaction that [`transaction_with`] has repeated after a conflict is
    /// no error.
    ///
    /// [`transaction_with`]: crate::DatabaseService::transaction_with
    pub errors: u64,
    /// The number of returned rows, or of changed rows of a statement that returns none, also of diesel's DSL. On the
    /// driver's connection inside a [`Connection`](crate::Connection), rows are not counted.
    pub rows: u64,
    /// The total duration of all calls.
    pub total: Duration,
    /// The mean duration of a call.
    pub mean: Duration,
    /// The 95th percentile of the duration.
    pub p95: Duration,
    /// The 99th percentile of the duration.
    pub p99: Duration,
    /// The maximum duration.
    pub max: Duration,
}

/// The statistics of all statements, from all connections.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    known: RwLock<HashMap<Box<str>, StatementEntry>>,
    others: StatementEntry,
}

/// The measurements of one statement. A connection keeps it with the statement, so that a call need not look it up.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatementEntry(Arc<Mutex<Measured>>);

impl StatementEntry {
    /// Records a call.
    pub(crate) fn record(&self, call: Call) {
        self.0.lock().add(call);
    }
}

/// A call of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) took: Duration,
    pub(crate) rows: u64,
    pub(crate) failed: bool,
}

impl Statements {
    /// Returns the measurements of a statement.
    pub(crate) fn entry(&self, text: &str, backend: Backend) -> StatementEntry {
        let text = without_comments(text, backend);
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        if let Some(entry) = self.known.read().get(text) {
            return entry.clone();
        }
        let mut known = self.known.write();
        if known.len() < MAX_STATEMENTS || known.contains_key(text) {
            known.entry(text.into()).or_default().clone()
        } else {
            self.others.clone()
        }
    }

    /// Returns the statistics, sorted by total duration.
    pub(crate) fn snapshot(&self) -> Vec<StatementStatistics> {
        let mut all: Vec<_> = self
            .known
            .read()
            .iter()
            .map(|(text, entry)| entry.0.lock().to_statistics(text))
            .filter(|statement| statement.calls > 0)
            .collect();
        let others = self.others.0.lock();
        if others.calls > 0 {
            all.push(others.to_statistics(OTHERS));
        }
        all.sort_by(|left, right| {
            let order = right.total.cmp(&left.total);
            order.then_with(|| left.statement.cmp(&right.statement))
        });
        all
    }
}

/// Returns a statement's text without comments, and without the white space and the semicolons around it. Tags in
/// comments differ from call to call.
fn without_comments(text: &str, backend: Backend) -> Cow<'_, str> {
    let trimmed = text.trim_matches(|char: char| char.is_ascii_whitespace() || char == ';');
    if !trimmed.contains("--") && !trimmed.contains("/*") {
        return Cow::Borrowed(trimmed);
    }
    let mut kept = String::with_capacity(trimmed.len().min(MAX_TEXT));
    // The white space since the last word, and the length of the text up to that word.
    let (mut space, mut has_comment, mut end) = (String::new(), false, 0);
    for Token { kind, text } in Tokens::new(trimmed, backend) {
        match kind {
            Kind::Space if text.starts_with(['-', '/']) => has_comment = true,
            Kind::Space => space.push_str(text),
            _ => {
                if !kept.is_empty() {
                    kept.push_str(if has_comment { " " } else { &space });
                }
                kept.push_str(text);
                space.clear();
                has_comment = false;
                if kind != Kind::Semicolon {
                    end = kept.len();
                }
            }
        }
        if end > MAX_TEXT {
            break;
        }
    }
    kept.truncate(end);
    Cow::Owned(kept)
}

#[derive(Debug)]
struct Measured {
    calls: u64,
    errors: u64,
    rows: u64,
    total: Duration,
    max: Duration,
    /// In nanoseconds.
    times: Histogram<u32>,
}

impl Default for Measured {
    fn default() -> Self {
        // Finer than the cost of reading the clock. The histogram grows with its maximum, to 15 KiB for an hour.
        let mut times = Histogram::new_with_bounds(64, 1 << 16, 2)
            .expect("the upper bound is more than twice the lower, and digits are 0 to 5");
        times.auto(true);
        Measured {
            calls: 0,
            errors: 0,
            rows: 0,
            total: Duration::ZERO,
            max: Duration::ZERO,
            times,
        }
    }
}

impl Measured {
    fn add(&mut self, call: Call) {
        const LONGEST: u128 = Duration::from_secs(3600).as_nanos();
        self.calls += 1;
        self.errors += u64::from(call.failed);
        self.rows += call.rows;
        self.total = self.total.saturating_add(call.took);
        self.max = self.max.max(call.took);
        // Recording fails only beyond the maximum, which `min` excludes.
        let _ = self.times.record(call.took.as_nanos().min(LONGEST) as u64);
    }

    fn to_statistics(&self, statement: &str) -> StatementStatistics {
        let quantile = |share| {
            let nanoseconds = self.times.value_at_quantile(share);
            Duration::from_nanos(nanoseconds).min(self.max)
        };
        let mean = self.total.as_nanos() / u128::from(self.calls.max(1));
        StatementStatistics {
            statement: statement.to_owned(),
            calls: self.calls,
            errors: self.errors,
            rows: self.rows,
            total: self.total,
            mean: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(statements: &Statements, text: &str, call: Call) {
        statements.entry(text, Backend::Sqlite).record(call);
    }

    fn call(took: Duration) -> Call {
        Call {
            took,
            rows: 2,
            failed: took > Duration::from_millis(999),
        }
    }

    #[test]
    fn quantiles_are_close_to_the_exact_values() {
        let statements = Statements::default();
        for number in (1..=1000).rev() {
            record(&statements, "SELECT 1", call(Duration::from_millis(number)));
        }
        let [measured_statement] = &statements.snapshot()[..] else {
            panic!("one statement");
        };
        assert_eq!(
            (
                measured_statement.calls,
                measured_statement.rows,
                measured_statement.errors
            ),
            (1000, 2000, 1)
        );
        assert_eq!(measured_statement.total, Duration::from_millis(500_500));
        assert_eq!(measured_statement.mean, Duration::from_micros(500_500));
        assert_eq!(measured_statement.max, Duration::from_secs(1));
        for (found, exact) in [
            (measured_statement.p95, 0.950),
            (measured_statement.p99, 0.990),
        ] {
            let ratio = found.as_secs_f64() / exact;
            assert!((1.0..1.01).contains(&ratio), "{found:?} for {exact}");
        }
    }

    #[test]
    fn durations_of_any_length_are_counted() {
        let statements = Statements::default();
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            record(&statements, "SELECT 1", call(took));
        }
        let measured_statement = &statements.snapshot()[0];
        assert_eq!(
            (measured_statement.calls, measured_statement.max),
            (3, Duration::MAX)
        );
        assert!(
            measured_statement.p99 >= Duration::from_secs(3600),
            "{measured_statement:?}"
        );
    }

    #[test]
    fn concurrent_calls_are_all_counted() {
        let statements = Statements::default();
        let together = std::sync::Barrier::new(16);
        std::thread::scope(|threads| {
            for _ in 0..16 {
                threads.spawn(|| {
                    together.wait();
                    // The first call creates the entry, while other threads record too.
                    for number in 0..2_000 {
                        let text = format!("SELECT {}", number % (MAX_STATEMENTS + 44));
                        record(&statements, &text, call(Duration::from_secs(1)));
                    }
                });
            }
        });
        let measured_statement = statements.snapshot();
        let sum = |part: fn(&StatementStatistics) -> u64| {
            measured_statement.iter().map(part).sum::<u64>()
        };
        assert_eq!(measured_statement.len(), MAX_STATEMENTS + 1);
        assert_eq!(
            (
                sum(|measured_statement| measured_statement.calls),
                sum(|measured_statement| measured_statement.rows),
                sum(|measured_statement| measured_statement.errors)
            ),
            (32_000, 64_000, 32_000)
        );
        assert_eq!(
            sum(|measured_statement| measured_statement.total.as_secs()),
            32_000
        );
        let others = measured_statement
            .iter()
            .find(|measured_statement| measured_statement.statement == OTHERS)
            .unwrap();
        assert_eq!(
            others.calls
                + measured_statement
                    .iter()
                    .filter(|measured_statement| measured_statement.statement != OTHERS)
                    .map(|measured_statement| measured_statement.calls)
                    .sum::<u64>(),
            32_000
        );
    }

    #[test]
    fn comments_and_surroundings_make_no_entries() {
        for (text, shown) in [
            ("SELECT 1", "SELECT 1"),
            ("/*a='1'*/ SELECT 1", "SELECT 1"),
            ("\n SELECT 1 /*a='1',b='2'*/;\n", "SELECT 1"),
            ("SELECT 1 -- a\n", "SELECT 1"),
            ("SELECT 1; ; -- a", "SELECT 1"),
            ("-- a\nSELECT/* b */1", "SELECT 1"),
            ("SELECT 1, -- a\n  2", "SELECT 1, 2"),
            ("SELECT 1,\n  2 /* a */", "SELECT 1,\n  2"),
            ("INSERT 1; /* a */ INSERT 2;", "INSERT 1; INSERT 2"),
            ("SELECT '/* a */', \"-- b\"", "SELECT '/* a */', \"-- b\""),
            ("SELECT 1 - -1 /* open", "SELECT 1 - -1"),
            ("/* a */", ""),
        ] {
            for backend in [Backend::Sqlite, Backend::Postgres] {
                assert_eq!(without_comments(text, backend), shown, "{text:?}");
            }
        }
        let nested = "SELECT 1 /* a /* b */ c */";
        assert_eq!(without_comments(nested, Backend::Postgres), "SELECT 1");
        let long = format!("{} -- a", "SELECT 1, ".repeat(MAX_TEXT));
        assert!(without_comments(&long, Backend::Sqlite).len() < 2 * MAX_TEXT);
    }

    #[test]
    fn maximum_is_exact_beyond_the_histogram() {
        let statements = Statements::default();
        let long = Duration::from_secs(5 * 3600) + Duration::from_nanos(1);
        for took in [Duration::from_secs(2 * 3600), long, Duration::from_nanos(3)] {
            record(&statements, "SELECT 1", call(took));
        }
        let measured_statement = &statements.snapshot()[0];
        assert_eq!(
            (measured_statement.max, measured_statement.total),
            (
                long,
                long + Duration::from_secs(2 * 3600) + Duration::from_nanos(3)
            )
        );
        // A longer call counts as an hour in the percentiles.
        assert!(
            (3600..3700).contains(&measured_statement.p99.as_secs()),
            "{measured_statement:?}"
        );
        record(
            &statements,
            "SELECT 2",
            call(Duration::from_nanos(1_234_567)),
        );
        let short = &statements.snapshot()[1];
        assert_eq!(
            (short.p99, short.max),
            (short.max, Duration::from_nanos(1_234_567)),
            "no percentile exceeds the maximum"
        );
    }

    #[test]
    fn statements_are_bounded_in_number_and_length() {
        let statements = Statements::default();
        for number in 0..MAX_STATEMENTS + 10 {
            record(
                &statements,
                &format!("SELECT {number}"),
                call(Duration::ZERO),
            );
        }
        record(&statements, "SELECT 0", call(Duration::ZERO));
        let measured_statement = statements.snapshot();
        let calls = |text: &str| {
            let found = measured_statement
                .iter()
                .find(|measured_statement| measured_statement.statement == text);
            found.map(|measured_statement| measured_statement.calls)
        };
        assert_eq!(measured_statement.len(), MAX_STATEMENTS + 1);
        assert_eq!((calls("SELECT 0"), calls(OTHERS)), (Some(2), Some(10)));

        let statements = Statements::default();
        record(&statements, &"é".repeat(MAX_TEXT), call(Duration::ZERO));
        record(
            &statements,
            &format!("x{}", "é".repeat(MAX_TEXT)),
            call(Duration::ZERO),
        );
        let measured_statement = statements.snapshot();
        assert!(
            measured_statement
                .iter()
                .all(|measured_statement| measured_statement.statement.len() <= MAX_TEXT)
        );
        assert_eq!(measured_statement.len(), 2);
    }
}
