//! Counters of the pool and of transactions, and the report that users get.

mod statements;

pub use statements::StatementStatistics;
pub(crate) use statements::{Call, StatementEntry, Statements};

use serde_json::json;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The statistics since the start of the service. Prints as a table.
///
/// # Examples
///
/// ```
/// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
/// # use singleton_core::testing::Scope;
/// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
/// # Scope::new().provide(memory).run(|| {
/// DatabaseService::execute_query("SELECT :name AS name", params! { "name" => "Rex" })?;
/// let statistics = DatabaseService::statistics()?;
/// println!("{statistics}");
/// assert_eq!(statistics.statements[0].calls, 1);
/// assert_eq!(statistics.to_json()["statements"][0]["statement"], "SELECT :name AS name");
/// # Ok::<(), DbError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseStatistics {
    /// The pool, and the counters of statements and transactions.
    pub pool: PoolStatus,
    /// The statements, sorted by total duration. After 256 different statements, all further ones count as one.
    pub statements: Vec<StatementStatistics>,
    /// The servers of `DB_REPLICA_URLS`.
    pub replicas: Vec<ReplicaStatistics>,
    /// The number of calls of `read` and `read_with` that ran on the primary.
    pub reads_on_primary: u64,
}

/// The statistics of one replica since the start of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatistics {
    /// The replica's URL without its password.
    pub url: String,
    /// Whether the replica is usable now.
    pub is_fit: bool,
    /// The maximum replication lag at the last probe, or `None` if it is unknown.
    pub lag: Option<Duration>,
    /// The number of calls of `read` and `read_with` that ran on the replica.
    pub reads: u64,
    /// The reason of the last failure. `None` after a success.
    pub last_failure: Option<String>,
    /// The replica's pool.
    pub pool: PoolStatus,
    /// The statements that ran on the replica.
    pub statements: Vec<StatementStatistics>,
}

impl DatabaseStatistics {
    /// Returns the statistics as JSON, with times in microseconds.
    pub fn to_json(&self) -> serde_json::Value {
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let statement = |measured_statement: &StatementStatistics| {
            json!({
                "statement": measured_statement.statement,
                "calls": measured_statement.calls,
                "errors": measured_statement.errors,
                "rows": measured_statement.rows,
                "total_us": microseconds(measured_statement.total),
                "mean_us": microseconds(measured_statement.mean),
                "p95_us": microseconds(measured_statement.p95),
                "p99_us": microseconds(measured_statement.p99),
                "max_us": microseconds(measured_statement.max),
            })
        };
        let statements =
            |all: &[StatementStatistics]| all.iter().map(statement).collect::<Vec<_>>();
        let pool = |pool: &PoolStatus| -> serde_json::Map<_, _> {
            counters(pool)
                .into_iter()
                .map(|(name, count)| (name.to_owned(), serde_json::Value::from(count)))
                .collect()
        };
        let replica = |measured_statement: &ReplicaStatistics| {
            json!({
                "url": measured_statement.url,
                "is_fit": measured_statement.is_fit,
                "lag_us": measured_statement.lag.map(microseconds),
                "reads": measured_statement.reads,
                "last_failure": measured_statement.last_failure,
                "pool": pool(&measured_statement.pool),
                "statements": statements(&measured_statement.statements),
            })
        };
        json!({
            "pool": pool(&self.pool),
            "statements": statements(&self.statements),
            "replicas": self.replicas.iter().map(replica).collect::<Vec<_>>(),
            "reads_on_primary": self.reads_on_primary,
        })
    }
}

impl fmt::Display for DatabaseStatistics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in counters(&self.pool) {
            writeln!(formatter, "{name:<24} {count:>10}")?;
        }
        writeln!(
            formatter,
            "{:<24} {:>10}",
            "reads_on_primary", self.reads_on_primary
        )?;
        for measured_statement in &self.replicas {
            let state = if measured_statement.is_fit {
                "fit"
            } else {
                "unfit"
            };
            let lag = measured_statement
                .lag
                .map_or("unknown".to_owned(), |lag| format!("{lag:.1?}"));
            writeln!(
                formatter,
                "{:<24} {:>10}  {state}, lag {lag}: {}",
                "reads_on_replica", measured_statement.reads, measured_statement.url
            )?;
        }
        writeln!(
            formatter,
            "\n{:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10}  statement",
            "calls", "errors", "rows", "mean", "p95", "p99", "max"
        )?;
        for measured_statement in &self.statements {
            let [mean, p95, p99, max] = [
                measured_statement.mean,
                measured_statement.p95,
                measured_statement.p99,
                measured_statement.max,
            ]
            .map(|time| format!("{time:.1?}"));
            writeln!(
                formatter,
                "{:>10} {:>8} {:>10} {mean:>10} {p95:>10} {p99:>10} {max:>10}  {}",
                measured_statement.calls,
                measured_statement.errors,
                measured_statement.rows,
                OneLine(&measured_statement.statement)
            )?;
        }
        Ok(())
    }
}

/// Returns the counters with their names, in the order of both formats.
fn counters(pool: &PoolStatus) -> [(&'static str, u64); 12] {
    [
        ("pool_size", pool.pool_size.into()),
        ("checked_in", pool.checked_in.into()),
        ("checked_out", pool.checked_out.into()),
        ("overflow", pool.overflow.into()),
        ("invalid", pool.invalid),
        ("total_connections", pool.total_connections),
        ("active_connections", pool.active_connections),
        ("successful_queries", pool.successful_queries),
        ("failed_queries", pool.failed_queries),
        ("transactions_committed", pool.transactions_committed),
        ("transactions_rolled_back", pool.transactions_rolled_back),
        ("retries", pool.retries),
    ]
}

/// A statement's text on one line of a terminal, escaped and shortened.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 100;
        let mut words = String::new();
        for word in self
            .0
            .split(|char: char| char.is_whitespace() || char.is_control())
        {
            if !word.is_empty() && !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
        match words.char_indices().nth(WIDTH) {
            Some((end, _)) => write!(formatter, "{}…", &words[..end]),
            None => formatter.write_str(&words),
        }
    }
}

/// The counters of all connections. Each is exact. Their atomics are relaxed, because no counter depends on another.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) total_connections: Counter,
    pub(crate) active_connections: Counter,
    pub(crate) successful_queries: Counter,
    pub(crate) failed_queries: Counter,
    pub(crate) transactions_committed: Counter,
    pub(crate) transactions_rolled_back: Counter,
    pub(crate) invalid: Counter,
    pub(crate) retries: Counter,
    /// The number of statements that may have changed the types of columns and parameters.
    pub(crate) redefinitions: Counter,
    pub(crate) statements: Statements,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The state of the pool, and the counters since the start of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The maximum number of idle connections (`DB_POOL_SIZE`).
    pub pool_size: u32,
    /// The number of idle connections.
    pub checked_in: u32,
    /// The number of connections in use.
    pub checked_out: u32,
    /// The number of open connections beyond `pool_size`.
    pub overflow: u32,
    /// The number of broken connections that were discarded.
    pub invalid: u64,
    /// The number of checkouts.
    pub total_connections: u64,
    /// The number of current checkouts.
    pub active_connections: u64,
    /// The number of successful statements. A call of `execute_many` counts as one.
    pub successful_queries: u64,
    /// The number of failed statements.
    pub failed_queries: u64,
    /// The number of committed transactions, without savepoints.
    pub transactions_committed: u64,
    /// The number of rolled-back transactions, without savepoints.
    pub transactions_rolled_back: u64,
    /// The number of repetitions: of transactions after a conflict, by `transaction_with`, and of statements after a
    /// stale plan. The failures before a repetition count neither as failed statements nor as errors of a statement.
    pub retries: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_one_line_of_the_table() {
        let hostile = "SELECT\n  1,\t'\u{1b}[2J\u{85}\u{2028}' ";
        assert_eq!(OneLine(hostile).to_string(), "SELECT 1, ' [2J '");
        let long = OneLine(&"é".repeat(101)).to_string();
        assert_eq!(long, "é".repeat(100) + "…");
    }
}
