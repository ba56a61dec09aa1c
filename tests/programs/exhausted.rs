//! Opens files until the process has no file descriptor left, checks out a second connection, and prints the error.
//!
//! The first argument is the database's URL. With the second argument `relay`, `DB_SOCKET_TIMEOUT` is 1 second, and
//! connections go through db-service's relay.

use std::fs::File;
use std::time::Duration;

use anyhow::Context;
use db_service::{ConfigService, DatabaseConfig, DatabaseService};
use singleton_core::testing::Scope;

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("usage: URL [relay]")?;
    let mut config = DatabaseConfig::new(url.parse()?);
    config.pool_timeout = Duration::from_secs(2);
    if std::env::args().nth(2).as_deref() == Some("relay") {
        config.postgres.socket_timeout = Some(Duration::from_secs(1));
    }
    Scope::new().provide(ConfigService::new(config)).run(|| {
        let _held = DatabaseService::connection()?;
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        match DatabaseService::connection() {
            Ok(_) => anyhow::bail!("the second connection opened without a free file descriptor"),
            Err(error) => println!("{error}"),
        }
        Ok(())
    })
}
