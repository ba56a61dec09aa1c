//! Opens a second connection when the process has no file descriptor left, and prints the error.

use std::fs::File;
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService};
use singleton_core::testing::Scope;

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_default();
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
            Ok(_) => anyhow::bail!("there was a descriptor left"),
            Err(error) => println!("{error}"),
        }
        Ok(())
    })
}
