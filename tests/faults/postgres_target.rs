//! PostgreSQL servers as targets of a load, with the timeouts of its calls.

use std::time::Duration;

use anyhow::Context;
use db_service::{DatabaseConfig, DatabaseService, Row, params};
use tests::TestServer;

use crate::number_table::Queries;
use crate::outcome::{Target, with_services};
use crate::processes::{Processes, StoppedProcesses};
use crate::wait;

const POOL_TIMEOUT: Duration = Duration::from_secs(2);

const SOCKET_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a lasting fault lasts: longer than any call may take.
pub(crate) const FAULT_DURATION: Duration = Duration::from_secs(5);

/// The pause between the repetitions of a repeated fault.
pub(crate) const REPEAT_INTERVAL: Duration = Duration::from_millis(300);

/// The errors of callers whose connection is lost.
pub(crate) const LOST: &[&str] = &["ConnectionLost", "OutcomeUnknown"];

/// The same for a load that executes more statements: one of them was once not answered within [`SOCKET_TIMEOUT`].
pub(crate) const LOST_OR_LATE: &[&str] = &["ConnectionLost", "NoAnswer", "OutcomeUnknown"];

/// The errors of callers whose connection is lost, and cannot be replaced within the timeout of the checkout.
pub(crate) const LOST_AND_UNREACHABLE: &[&str] =
    &["ConnectionLost", "OutcomeUnknown", "PoolTimeout"];

/// The errors of callers whose server does not answer.
pub(crate) const UNRESPONSIVE: &[&str] = &["NoAnswer", "OutcomeUnknown", "PoolTimeout"];

/// Starts a server.
pub(crate) fn start_server() -> anyhow::Result<TestServer> {
    TestServer::start().context("PostgreSQL is not installed")
}

/// Returns a target that the load reaches at `addresses`, such as those of a proxy. The table is read from `server`
/// itself.
///
/// `addresses` is a list of `host:port`, separated by commas. `query` is empty or the URL's query, with its `?`.
pub(crate) fn target_at(
    server: &TestServer,
    addresses: &str,
    query: &str,
) -> anyhow::Result<Target> {
    let url = format!("postgresql://postgres@{addresses}/postgres{query}");
    let mut config = DatabaseConfig::new(url.parse()?);
    config.pool_timeout = POOL_TIMEOUT;
    config.postgres.connect_timeout = Some(POOL_TIMEOUT);
    config.postgres.socket_timeout = Some(SOCKET_TIMEOUT);
    Ok(Target {
        config,
        limit: POOL_TIMEOUT + SOCKET_TIMEOUT,
        verification: DatabaseConfig::new(server.url().parse()?),
        queries: Queries::Text,
    })
}

/// Returns a target that the load reaches at the server's own address.
pub(crate) fn direct_target(server: &TestServer) -> anyhow::Result<Target> {
    target_at(server, &format!("127.0.0.1:{}", server.port()), "")
}

/// Returns the backends, the server processes behind the connections of the load.
pub(crate) fn backends(server: &TestServer) -> anyhow::Result<Processes> {
    let sql = "SELECT pid FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let config = DatabaseConfig::new(server.url().parse()?);
    let rows = with_services(config, || {
        Ok(DatabaseService::execute_query(sql, params! {})?)
    })?;
    Processes::new(process_ids(&rows)?)
}

/// Stops `count` backends while callers wait for them.
///
/// A lock on the table blocks statements until at least `count` backends wait for it. Then `count` of these backends
/// are stopped. The others continue when this function releases the lock.
pub(crate) fn stop_busy_backends(
    server: &TestServer,
    count: usize,
) -> anyhow::Result<StoppedProcesses> {
    let config = DatabaseConfig::new(server.url().parse()?);
    with_services(config, || {
        DatabaseService::transaction(|connection| {
            let lock = "LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE";
            connection.execute_query(lock, params! {})?;
            let mut busy = Vec::new();
            wait::until("backends to wait for the lock", || {
                // Within a transaction, the server keeps the first snapshot of its statistics.
                let clear = "SELECT pg_stat_clear_snapshot()";
                connection.execute_query(clear, params! {})?;
                let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                busy = process_ids(&connection.execute_query(sql, params! {})?)?;
                Ok(busy.len() >= count)
            })?;
            busy.truncate(count);
            Processes::new(busy)?.stop()
        })
    })
}

fn process_ids(rows: &[Row]) -> anyhow::Result<Vec<i64>> {
    let ids = rows.iter().map(|row| row.get("pid"));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Waits until a server accepts connections.
pub(crate) fn wait_until_reachable(server: &TestServer) -> anyhow::Result<()> {
    let config = DatabaseConfig::new(server.url().parse()?);
    wait::until("the server to accept connections", || {
        let answer = with_services(config.clone(), || {
            Ok(DatabaseService::execute_query("SELECT 1", params! {})?)
        });
        Ok(answer.is_ok())
    })
}
