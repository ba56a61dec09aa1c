//! Prints the columns and rows of a table, vacuums the table, and prints the state of the connection pool.

use db_service::DatabaseService;
use user_repo::UserRepository;

fn main() -> anyhow::Result<()> {
    examples::prepare()?;
    // Creates the table on the first run.
    UserRepository::instance()?;

    let table = DatabaseService::get_table_info("users")?;
    println!("Table users has {} rows", table.row_count);
    for column in &table.columns {
        println!(
            "  {} {}{}{}",
            column.column_name,
            column.data_type,
            if column.is_nullable { "" } else { " NOT NULL" },
            column
                .column_default
                .as_ref()
                .map(|default| format!(" DEFAULT {default}"))
                .unwrap_or_default(),
        );
    }

    println!("Running VACUUM ANALYZE...");
    DatabaseService::vacuum_analyze(Some("users"))?;
    println!("Maintenance completed");

    println!("Pool status: {:#?}", DatabaseService::get_pool_status()?);
    Ok(())
}
