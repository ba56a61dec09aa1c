//! PostgreSQL servers for loads: how they are reached, and how long their callers wait.

use std::time::Duration;

use anyhow::Context;
use db_service::{DatabaseConfig, DatabaseService, params};
use tests::TestServer;

use crate::outcome::{Place, within};
use crate::processes::{Processes, Stopped};
use crate::wait;

/// How long a caller waits for a connection.
const POOL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement is waited for.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a fault lasts that lasts: longer than any call is allowed to take.
pub(crate) const LASTING: Duration = Duration::from_secs(5);

/// From one time to the next, of a fault that comes several times.
pub(crate) const PAUSE: Duration = Duration::from_millis(300);

/// The errors of callers whose connections break.
pub(crate) const BROKEN: &[&str] = &["ConnectionLost", "OutcomeUnknown"];

/// The errors of callers whose connections break, and for whom there are no others in time.
pub(crate) const BROKEN_FOR_LONG: &[&str] = &["ConnectionLost", "OutcomeUnknown", "PoolTimeout"];

/// The errors of callers whose server does not answer.
pub(crate) const SILENT: &[&str] = &["NoAnswer", "OutcomeUnknown", "PoolTimeout"];

pub(crate) fn server() -> anyhow::Result<TestServer> {
    TestServer::start().context("PostgreSQL is not installed")
}

/// A server that a load reaches at one or more addresses, which may not be its own.
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

/// A server that a load reaches at its own address.
pub(crate) fn place_of(server: &TestServer) -> anyhow::Result<Place> {
    place(server, &format!("127.0.0.1:{}", server.port()), "")
}

/// The processes behind the connections of the load.
pub(crate) fn backends(server: &TestServer) -> anyhow::Result<Processes> {
    backends_where(server, "true")
}

/// Stops processes that callers are waiting for. The load opens and closes connections all the time, so that of others
/// nobody might notice it.
pub(crate) fn stop_busy_backends(
    server: &TestServer,
    count: usize,
) -> anyhow::Result<Vec<Stopped>> {
    const ARE_BUSY: &str = "state = 'active' AND query LIKE '%ledger%'";
    let mut stopped = Vec::new();
    wait::until("backends to be stopped while they are busy", || {
        let Ok(busy) = backends_where(server, ARE_BUSY) else {
            // One of them has stopped with a lock that the whole server waits for.
            stopped.clear();
            return Ok(false);
        };
        if let Some(one) = busy.one_beside(&stopped) {
            let one = one.stop()?;
            // It may have done its work before it stopped.
            let is_busy = backends_where(server, ARE_BUSY).is_ok_and(|busy| busy.contain(&one));
            stopped.extend(is_busy.then_some(one));
        }
        Ok(stopped.len() == count)
    })?;
    Ok(stopped)
}

fn backends_where(server: &TestServer, condition: &str) -> anyhow::Result<Processes> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {condition}"
    );
    let mut config = DatabaseConfig::new(server.url().parse()?);
    config.postgres.socket_timeout = Some(SOCKET_TIMEOUT);
    let rows = within(config, || {
        Ok(DatabaseService::execute_query(&sql, params! {})?)
    })?;
    let ids = rows.iter().map(|row| row.get("pid"));
    Processes::new(ids.collect::<Result<Vec<_>, _>>()?)
}

/// Waits until a server lets somebody in.
pub(crate) fn wait_until_open(server: &TestServer) -> anyhow::Result<()> {
    let config = DatabaseConfig::new(server.url().parse()?);
    wait::until("the server to let somebody in", || {
        let answer = within(config.clone(), || {
            Ok(DatabaseService::execute_query("SELECT 1", params! {})?)
        });
        Ok(answer.is_ok())
    })
}
