//! Maintenance of a database: a table's columns and rows, a vacuum, the state of the pool.

use db_service::DatabaseService;
use user_repo::UserRepository;

fn main() -> anyhow::Result<()> {
    examples::prepare()?;
    // The repository creates the table when it initializes.
    UserRepository::instance()?;

    let table = DatabaseService::get_table_info("users")?;
    println!("Users table has {} rows", table.row_count);
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
    println!("Database maintenance completed");

    println!(
        "Connection pool status: {:#?}",
        DatabaseService::get_pool_status()?
    );
    Ok(())
}
