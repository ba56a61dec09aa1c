//! Connects to the database of its argument, prints a line, waits for a line, and applies the migrations of the shop,
//! or with a second argument those that never end. Prints the number of applied migrations.

use std::io::{self, Write};

use anyhow::Context;
use db_service::{ConfigService, DatabaseConfig, DatabaseService, params};
use singleton_core::testing::Scope;

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("the URL of a database")?;
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
