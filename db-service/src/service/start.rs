//! The first connection, which may have to wait for the server.

use std::time::{Duration, Instant};

use singleton_core::__private::shutdown_request;

use crate::config::DatabaseConfig;
use crate::error::DbError;
use crate::pool::ConnectionPool;

/// The first pause between two attempts. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The maximum pause. A start is delayed by at most this time after the server is ready.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Opens the pool. Within `start_timeout`, tries again as long as there is no server to connect to.
pub(super) fn open(config: &DatabaseConfig) -> Result<ConnectionPool, DbError> {
    let started_at = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut is_logged = false;
    loop {
        let error = match ConnectionPool::open(config) {
            Ok(pool) => return Ok(pool),
            Err(error) => error,
        };
        let left = config.start_timeout.saturating_sub(started_at.elapsed());
        if left.is_zero() || !error.is_without_server() {
            return Err(error);
        }
        if !is_logged {
            log::warn!(
                "{error}; trying again for at most {:?} (DB_START_TIMEOUT)",
                config.start_timeout
            );
            is_logged = true;
        }
        let is_shut_down = shutdown_request().is_none_or(|request| request.wait(pause.min(left)));
        if is_shut_down {
            return Err(error);
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
