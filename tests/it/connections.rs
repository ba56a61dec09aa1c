//! Connections: the pool, checkouts, lost connections, servers that do not answer, and PgBouncer.

mod callers;
mod checkouts;
mod clean_sessions;
#[cfg(target_os = "linux")]
mod file_descriptors;
mod interrupted_statements;
mod lost_connections;
mod multiple_hosts;
mod outages;
mod pgbouncer;
mod pool;
mod socket_timeout;
#[cfg(target_os = "linux")]
mod unresponsive_server;
