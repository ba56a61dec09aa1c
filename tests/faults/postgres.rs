//! PostgreSQL servers for loads: their addresses and timeouts.

use std::time::Duration;

use anyhow::Context;
use db_service::{DatabaseConfig, DatabaseService, Row, params};
use tests::TestServer;

use crate::outcome::{Place, within};
use crate::processes::{Processes, Stopped};
use crate::wait;

/// The timeout for a connection.
const POOL_TIMEOUT: Duration = Duration::from_secs(2);

/// The timeout of a statement.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(1);

/// The duration of a long fault, which is longer than the limit of a call.
pub(crate) const LASTING: Duration = Duration::from_secs(5);

/// The pause between the repetitions of a fault.
pub(crate) const PAUSE: Duration = Duration::from_millis(300);

/// The errors of callers whose connections break.
pub(crate) const BROKEN: &[&str] = &["ConnectionLost", "OutcomeUnknown"];

/// The errors of callers whose connections break, if new connections are not available in time.
pub(crate) const BROKEN_FOR_LONG: &[&str] = &["ConnectionLost", "OutcomeUnknown", "PoolTimeout"];

/// The errors of callers whose server does not answer.
pub(crate) const SILENT: &[&str] = &["NoAnswer", "OutcomeUnknown", "PoolTimeout"];

pub(crate) fn server() -> anyhow::Result<TestServer> {
    TestServer::start().context("PostgreSQL is not installed")
}

/// Returns a server that the load reaches at one or more addresses, for example through a proxy.
pub(crate) fn place(server: &TestServer, addresses: &str, query: &str) -> anyhow::Result<Place> {
    let url = format!("postgresql://postgres@{addresses}/postgres{query}");
    let mut config = DatabaseConfig::new(url.parse()?);
    config.pool_timeout = POOL_TIMEOUT;
    config.postgres.connect_timeout = Some(POOL_TIMEOUT);
    config.postgres.socket_timeout = Some(SOCKET_TIMEOUT);
    Ok(Place {
        config,
        limit: POOL_TIMEOUT + SOCKET_TIMEOUT,
        found: DatabaseConfig::new(server.url().parse()?),
    })
}

/// Returns a server that the load reaches directly.
pub(crate) fn place_of(server: &TestServer) -> anyhow::Result<Place> {
    place(server, &format!("127.0.0.1:{}", server.port()), "")
}

/// Returns the server processes of the load's connections.
pub(crate) fn backends(server: &TestServer) -> anyhow::Result<Processes> {
    backends_where(server, "true")
}

/// Stops server processes for which callers are waiting.
///
/// A lock on the table blocks the callers until enough of them wait in the server. Some of their processes are stopped.
/// The others continue when the lock is released.
pub(crate) fn stop_busy_backends(server: &TestServer, count: usize) -> anyhow::Result<Stopped> {
    let config = DatabaseConfig::new(server.url().parse()?);
    within(config, || {
        DatabaseService::transaction(|connection| {
            let lock = "LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE";
            connection.execute_query(lock, params! {})?;
            let mut busy = Vec::new();
            wait::until("callers to wait for the lock", || {
                // Inside a transaction, the server would return the same snapshot again.
                let clear = "SELECT pg_stat_clear_snapshot()";
                connection.execute_query(clear, params! {})?;
                let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                busy = ids(&connection.execute_query(sql, params! {})?)?;
                Ok(busy.len() >= count)
            })?;
            busy.truncate(count);
            Processes::new(busy)?.stop()
        })
    })
}

fn backends_where(server: &TestServer, condition: &str) -> anyhow::Result<Processes> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {condition}"
    );
    let config = DatabaseConfig::new(server.url().parse()?);
    let rows = within(config, || {
        Ok(DatabaseService::execute_query(&sql, params! {})?)
    })?;
    Processes::new(ids(&rows)?)
}

fn ids(rows: &[Row]) -> anyhow::Result<Vec<i64>> {
    let ids = rows.iter().map(|row| row.get("pid"));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Waits until a server accepts connections.
pub(crate) fn wait_until_open(server: &TestServer) -> anyhow::Result<()> {
    let config = DatabaseConfig::new(server.url().parse()?);
    wait::until("the server to let somebody in", || {
        let answer = within(config.clone(), || {
            Ok(DatabaseService::execute_query("SELECT 1", params! {})?)
        });
        Ok(answer.is_ok())
    })
}
