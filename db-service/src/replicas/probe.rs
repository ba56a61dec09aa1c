//! Probes of one replica: whether it is reachable, and its replication lag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::write_position::{WritePosition, WritePositionError};
use crate::config::DatabaseConfig;
use crate::connection::Connection;
use crate::connection::Connector;
use crate::error::DbError;
use crate::statistics::Statistics;
use crate::values::Params;
use crate::values::Row;
use crate::watchdog;

/// The result of a probe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeResult {
    /// The time of the probe.
    pub(crate) at: Instant,
    /// Whether the server is a standby. Otherwise it is the primary, a promoted standby, or a stale former primary.
    pub(crate) is_standby: bool,
    /// The maximum replication lag, or `None` if it is unknown.
    pub(crate) lag: Option<Duration>,
    /// The replayed position.
    pub(crate) replayed: WritePosition,
}

/// The timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A probe's own connection to a replica. The pool's connections may all be in use.
#[derive(Default)]
pub(crate) struct ReplicaProbe {
    /// Opens the connection. It is kept between probes, because it limits the number of concurrent attempts.
    connector: Option<Connector>,
    connection: Option<Connection>,
    /// The time of the last probe that found everything received replayed.
    current_at: Option<Instant>,
}

impl ReplicaProbe {
    /// Probes the replica, and connects first if necessary.
    pub(crate) fn run(&mut self, config: &DatabaseConfig) -> Result<ProbeResult, DbError> {
        let held = self.connection.take();
        let connector = self.connector(config)?;
        let mut connection = match held {
            Some(connection) => connection,
            None => connector.open()?,
        };
        let at = Instant::now();
        let asked = watchdog::run_with_timeout(connector.calls(), PROBE_TIMEOUT, move || {
            let rows = ask(&mut connection);
            (connection, rows)
        });
        let (connection, row) = asked.map_err(|unfinished| unfinished.into_error(config))?;
        let row = row?;
        let behind = row.get::<Option<f64>>("behind")?;
        let result = ProbeResult {
            at,
            is_standby: row.get("is_standby")?,
            lag: self.lag(at, row.get("is_current")?, behind),
            replayed: replayed(&row)?,
        };
        self.connection = Some(connection);
        Ok(result)
    }

    fn connector(&mut self, config: &DatabaseConfig) -> Result<&Connector, DbError> {
        let connector = match self.connector.take() {
            Some(connector) => connector,
            None => Connector::new(config, Arc::new(Statistics::default()))?,
        };
        Ok(self.connector.insert(connector))
    }

    /// Returns the maximum lag. `behind` is the age of the last replayed commit, which is too large if the primary was
    /// idle.
    fn lag(&mut self, at: Instant, is_current: bool, behind: Option<f64>) -> Option<Duration> {
        if is_current {
            self.current_at = Some(at);
            return Some(Duration::ZERO);
        }
        // Two servers' clocks are compared, so the difference can be negative.
        let behind = behind.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let since_current = self.current_at.map(|current| at - current);
        match (behind, since_current) {
            (Some(behind), Some(since)) => Some(behind.min(since)),
            (behind, since) => behind.or(since),
        }
    }
}

fn ask(connection: &mut Connection) -> Result<Row, DbError> {
    // Without a WAL receiver, the primary may be far ahead of what was received. Ordinary users can see only whether
    // there is a receiver.
    let sql = "SELECT pg_catalog.pg_is_in_recovery() AS is_standby, \
         coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text AS replayed, \
         coalesce(EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) \
         AND pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn(), false) AS is_current, \
         extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8 AS behind";
    let rows = connection.internally(|connection| connection.execute_query(sql, Params::new()))?;
    rows.into_iter().next().ok_or(DbError::NoRow)
}

/// Returns the replayed position of a replica.
pub(crate) fn query_replayed(connection: &mut Connection) -> Result<WritePosition, DbError> {
    let sql = "SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text AS replayed";
    let rows = connection.internally(|connection| connection.execute_query(sql, Params::new()))?;
    replayed(rows.first().ok_or(DbError::NoRow)?)
}

fn replayed(row: &Row) -> Result<WritePosition, DbError> {
    position(row, "replayed")
}

/// Parses a position in a row.
pub(crate) fn position(row: &Row, column: &str) -> Result<WritePosition, DbError> {
    let text = row.get::<String>(column)?;
    text.parse()
        .map_err(|source: WritePositionError| DbError::unreadable(column, source.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_that_replayed_everything_has_no_lag_even_if_the_primary_is_idle() {
        let mut probe = ReplicaProbe::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(probe.lag(start, false, None), None, "nothing is known");
        assert_eq!(probe.lag(start, false, Some(3600.0)), seconds(3600));
        assert_eq!(probe.lag(start, true, Some(3600.0)), seconds(0));
        // After an idle hour, the first commit is received and not yet replayed.
        let later = start + second;
        assert_eq!(probe.lag(later, false, Some(3600.0)), seconds(1));
        let later = start + 9 * second;
        assert_eq!(probe.lag(later, false, Some(2.0)), seconds(2));
        assert_eq!(probe.lag(later, false, Some(-5.0)), seconds(0));
        assert_eq!(probe.lag(later, false, None), seconds(9));
    }
}
