//! Faults of the callers: panics, and connections that are not returned.

use std::thread;

use db_service::{DatabaseService, DbError};

use crate::outcome::Outcome;
use crate::postgres_target::{FAULT_DURATION, REPEAT_INTERVAL, direct_target, start_server};

/// One in ten writes panics inside its transaction.
pub(crate) fn panics() -> anyhow::Result<Outcome> {
    let server = start_server()?;
    direct_target(&server)?.run_under_load(|load| {
        load.set_panics(true);
        thread::sleep(2 * REPEAT_INTERVAL);
        load.set_panics(false);
        Ok(())
    })
}

/// Another caller checks out all connections of the pool and holds them.
pub(crate) fn exhausted_pool() -> anyhow::Result<Outcome> {
    let server = start_server()?;
    let target = direct_target(&server)?;
    let pool_capacity = target.config.pool_size + target.config.max_overflow;
    target.run_under_load(|_| {
        let mut held = Vec::new();
        while held.len() < pool_capacity as usize {
            match DatabaseService::connection() {
                Ok(connection) => held.push(connection),
                Err(DbError::PoolTimeout { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(FAULT_DURATION);
        Ok(())
    })
}
