//! Applies migrations when it receives a line on its standard input.
//!
//! The program connects to the database, prints `ready`, reads a line, applies the migrations, and prints how many it
//! applied. The first argument is the database's URL. With any second argument, it applies the endless migrations in
//! place of the shop's.

use std::io::{self, Write};

use anyhow::Context;
use db_service::{ConfigService, DatabaseConfig, DatabaseService, params};
use singleton_core::testing::Scope;

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("usage: URL [endless]")?;
    let source = match std::env::args().nth(2) {
        None => &tests::SHOP_MIGRATIONS,
        Some(_) => &tests::ENDLESS_MIGRATIONS,
    };
    let config = ConfigService::new(DatabaseConfig::new(url.parse()?));
    Scope::new().provide(config).run(|| {
        DatabaseService::execute_query("SELECT 1", params! {})?;
        println!("ready");
        io::stdout().flush()?;
        io::stdin().read_line(&mut String::new())?;
        println!("{}", DatabaseService::run_migrations(source)?.len());
        Ok(())
    })
}
