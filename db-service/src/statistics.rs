//! What the service has done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::statement_statistics::Statements;

/// Counters shared by all connections; each is exact, and relaxed because none says anything about the others.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) total_connections: Counter,
    pub(crate) active_connections: Counter,
    pub(crate) successful_queries: Counter,
    pub(crate) failed_queries: Counter,
    pub(crate) transactions_committed: Counter,
    pub(crate) transactions_rolled_back: Counter,
    pub(crate) invalid: Counter,
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

/// The state of the pool, and what was counted since the service started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// How many idle connections are kept at most (`DB_POOL_SIZE`).
    pub pool_size: u32,
    /// How many connections are idle.
    pub checked_in: u32,
    /// How many connections are in use.
    pub checked_out: u32,
    /// How many connections are open beyond `pool_size`.
    pub overflow: u32,
    /// How many connections were discarded because they were broken.
    pub invalid: u64,
    /// How many times a connection was handed out.
    pub total_connections: u64,
    /// How many connections are handed out now.
    pub active_connections: u64,
    /// How many statements succeeded; a call of `execute_many` counts as one.
    pub successful_queries: u64,
    /// How many statements failed.
    pub failed_queries: u64,
    /// How many transactions were committed, savepoints apart.
    pub transactions_committed: u64,
    /// How many transactions were rolled back, savepoints apart.
    pub transactions_rolled_back: u64,
}
