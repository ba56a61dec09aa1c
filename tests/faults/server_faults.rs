//! Faults of a PostgreSQL server.

use std::thread;
use std::time::Duration;

use db_service::{DatabaseService, params};
use tests::TestServer;

use crate::outcome::Outcome;
use crate::postgres::{
    LASTING, PAUSE, backends, place, place_of, server, stop_busy_backends, wait_until_open,
};
use crate::processes::Processes;
use crate::wait;

fn on_server(fault: impl FnOnce(&TestServer) -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let server = server()?;
    place_of(&server)?.under_load(|_| fault(&server))
}

pub(crate) fn stopped_backends() -> anyhow::Result<Outcome> {
    on_server(|server| {
        let _stopped = stop_busy_backends(server, 4)?;
        thread::sleep(LASTING);
        Ok(())
    })
}

pub(crate) fn stopped_server() -> anyhow::Result<Outcome> {
    on_server(|server| {
        let _stopped = Processes::stop_family(server.process_id())?;
        thread::sleep(LASTING);
        Ok(())
    })
}

pub(crate) fn killed_backends() -> anyhow::Result<Outcome> {
    on_server(|server| {
        for pause in [Duration::ZERO, PAUSE, PAUSE] {
            thread::sleep(pause);
            // A process of the load may end by itself before it is killed. A checkout keeps this one alive.
            let mut held = DatabaseService::connection()?;
            let all = backends(server)?;
            let rows = held.execute_query("SELECT pg_backend_pid() AS pid", params! {})?;
            Processes::new([rows[0].get("pid")?])?.kill()?;
            // The server ends its other processes too, because shared memory may be damaged, and restarts.
            all.wait_until_gone()?;
            wait_until_open(server)?;
        }
        Ok(())
    })
}

pub(crate) fn killed_server() -> anyhow::Result<Outcome> {
    on_server(|server| {
        Processes::stop_family(server.process_id())?.kill()?;
        thread::sleep(LASTING);
        server.start_again();
        Ok(())
    })
}

pub(crate) fn restarts() -> anyhow::Result<Outcome> {
    on_server(|server| {
        for pause in [Duration::ZERO, PAUSE, PAUSE] {
            thread::sleep(pause);
            server.stop();
            server.start_again();
        }
        Ok(())
    })
}

pub(crate) fn terminated_backends() -> anyhow::Result<Outcome> {
    on_server(|server| {
        for _ in 0..5 {
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            );
            thread::sleep(PAUSE);
        }
        Ok(())
    })
}

pub(crate) fn changed_table() -> anyhow::Result<Outcome> {
    on_server(|server| {
        for _ in 0..10 {
            for change in [
                "ADD COLUMN remark text DEFAULT 'none'",
                "ALTER COLUMN number TYPE numeric",
                "DROP COLUMN remark",
                "ALTER COLUMN number TYPE bigint",
            ] {
                server.execute(&format!("ALTER TABLE ledger {change}"));
            }
        }
        Ok(())
    })
}

/// Writes are acknowledged when both servers have them. The load uses the server that accepts writes.
pub(crate) fn failover() -> anyhow::Result<Outcome> {
    let primary = server()?;
    let standby = primary.standby();
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.execute("SELECT pg_reload_conf()");
    let is_synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
    wait::until("the standby to be a synchronous one", || {
        Ok(!primary.execute(is_synchronous).is_empty())
    })?;
    let addresses = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    let place = place(&standby, &addresses, "?target_session_attrs=read-write")?;
    place.under_load(|_| {
        Processes::stop_family(primary.process_id())?.kill()?;
        thread::sleep(PAUSE);
        standby.promote();
        Ok(())
    })
}
