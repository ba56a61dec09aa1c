//! The first service of the README: counts how often the program was run.

use db_service::{DatabaseService, DbError, params};
use singleton_core::{Service, guarded, requires, service};

#[service]
#[requires(DatabaseService)]
struct Visits;

impl Service for Visits {
    fn initialize() -> anyhow::Result<Self> {
        // DatabaseService is ready here.
        DatabaseService::execute_query(
            "CREATE TABLE IF NOT EXISTS visits (visitor TEXT NOT NULL)",
            params! {},
        )?;
        Ok(Visits)
    }
}

impl Visits {
    #[guarded]
    fn add(&self, visitor: &str) -> Result<(), DbError> {
        let insert = "INSERT INTO visits (visitor) VALUES (:visitor)";
        DatabaseService::execute_query(insert, params! { "visitor" => visitor })?;
        Ok(())
    }

    #[guarded]
    fn count(&self) -> Result<i64, DbError> {
        let rows = DatabaseService::execute_query("SELECT COUNT(*) AS n FROM visits", params! {})?;
        rows[0].get("n")
    }
}

fn main() -> anyhow::Result<()> {
    // The first call connects, creates the table, and adds the row.
    Visits::add("Ada")?;
    println!("{} visits", Visits::count()?);
    Ok(())
}
