//! Faults in the calling program.

use std::thread;

use db_service::{DatabaseService, DbError};

use crate::outcome::Outcome;
use crate::postgres::{LASTING, PAUSE, place_of, server};

pub(crate) fn panics() -> anyhow::Result<Outcome> {
    let server = server()?;
    place_of(&server)?.under_load(|load| {
        load.let_panic(true);
        thread::sleep(2 * PAUSE);
        load.let_panic(false);
        Ok(())
    })
}

pub(crate) fn exhausted() -> anyhow::Result<Outcome> {
    let server = server()?;
    let place = place_of(&server)?;
    let all = place.config.pool_size + place.config.max_overflow;
    place.under_load(|_| {
        let mut held = Vec::new();
        while held.len() < all as usize {
            match DatabaseService::connection() {
                Ok(connection) => held.push(connection),
                Err(DbError::PoolTimeout { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(LASTING);
        Ok(())
    })
}
