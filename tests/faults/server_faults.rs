//! Faults of a PostgreSQL server.

use std::thread;
use std::time::Duration;

use db_service::{DatabaseService, params};
use tests::TestServer;

use crate::number_table::Queries;
use crate::outcome::Outcome;
use crate::postgres_target::{
    FAULT_DURATION, REPEAT_INTERVAL, backends, direct_target, start_server, stop_busy_backends,
    target_at, wait_until_reachable,
};
use crate::processes::Processes;
use crate::wait;

fn during_load(fault: impl FnOnce(&TestServer) -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let server = start_server()?;
    direct_target(&server)?.run_under_load(|_| fault(&server))
}

pub(crate) fn stopped_backends() -> anyhow::Result<Outcome> {
    during_load(|server| {
        let _stopped = stop_busy_backends(server, 4)?;
        thread::sleep(FAULT_DURATION);
        Ok(())
    })
}

pub(crate) fn stopped_server() -> anyhow::Result<Outcome> {
    during_load(|server| {
        let _stopped = Processes::stop_with_children(server.process_id())?;
        thread::sleep(FAULT_DURATION);
        Ok(())
    })
}

pub(crate) fn killed_backends() -> anyhow::Result<Outcome> {
    during_load(|server| {
        for pause in [Duration::ZERO, REPEAT_INTERVAL, REPEAT_INTERVAL] {
            thread::sleep(pause);
            // The pool may close an idle connection before its backend is killed. This connection is checked out.
            let mut held = DatabaseService::connection()?;
            let backends = backends(server)?;
            let rows = held.execute_query("SELECT pg_backend_pid() AS pid", params! {})?;
            Processes::new([rows[0].get("pid")?])?.kill()?;
            // The server ends all other backends too, because their shared memory may be damaged, and restarts them.
            backends.wait_until_gone()?;
            wait_until_reachable(server)?;
        }
        Ok(())
    })
}

pub(crate) fn killed_server() -> anyhow::Result<Outcome> {
    during_load(|server| {
        Processes::stop_with_children(server.process_id())?.kill()?;
        thread::sleep(FAULT_DURATION);
        server.start_again();
        Ok(())
    })
}

pub(crate) fn restarts() -> anyhow::Result<Outcome> {
    during_load(|server| {
        for pause in [Duration::ZERO, REPEAT_INTERVAL, REPEAT_INTERVAL] {
            thread::sleep(pause);
            server.stop();
            server.start_again();
        }
        Ok(())
    })
}

pub(crate) fn terminated_backends() -> anyhow::Result<Outcome> {
    during_load(terminate_backends)
}

/// The same with diesel's DSL.
pub(crate) fn terminated_backends_of_dsl() -> anyhow::Result<Outcome> {
    let server = start_server()?;
    let mut target = direct_target(&server)?;
    target.queries = Queries::Dsl;
    target.run_under_load(|_| terminate_backends(&server))
}

fn terminate_backends(server: &TestServer) -> anyhow::Result<()> {
    for _ in 0..5 {
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
        thread::sleep(REPEAT_INTERVAL);
    }
    Ok(())
}

pub(crate) fn altered_table() -> anyhow::Result<Outcome> {
    during_load(|server| {
        for _ in 0..10 {
            for change in [
                "ADD COLUMN remark text DEFAULT 'none'",
                "ALTER COLUMN number TYPE numeric",
                "DROP COLUMN remark",
                "ALTER COLUMN number TYPE bigint",
            ] {
                server.execute(&format!("ALTER TABLE numbers {change}"));
            }
        }
        Ok(())
    })
}

/// Kills the primary and promotes its synchronous standby, so that both servers have each acknowledged write.
///
/// The load's URL names both servers, and its connections go to the one that accepts writes.
pub(crate) fn failover() -> anyhow::Result<Outcome> {
    let primary = start_server()?;
    let standby = primary.standby();
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.execute("SELECT pg_reload_conf()");
    let is_synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
    wait::until("the standby to become synchronous", || {
        Ok(!primary.execute(is_synchronous).is_empty())
    })?;
    let addresses = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    let target = target_at(&standby, &addresses, "?target_session_attrs=read-write")?;
    target.run_under_load(|_| {
        Processes::stop_with_children(primary.process_id())?.kill()?;
        thread::sleep(REPEAT_INTERVAL);
        standby.promote();
        Ok(())
    })
}
