//! Reads more than 150 MB from a database row by row, and prints two numbers.
//!
//! The first number is the number of bytes read. The second one is by how many KiB the process's peak memory has grown.
//! The argument is the database's URL.

use std::fs;
use std::ops::ControlFlow;

use anyhow::Context;
use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use singleton_core::testing::Scope;

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("usage: URL")?;
    // 100,000 rows of 1 to 2 KB, and five rows of 4 MB.
    let sql = if url.starts_with("postgres") {
        "SELECT repeat('x', 1000 + n % 1000) AS x FROM generate_series(1, 100000) AS n \
         UNION ALL SELECT repeat('x', 4000000) FROM generate_series(1, 5)"
    } else {
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 100005) \
         SELECT printf('%.*c', CASE WHEN n > 100000 THEN 4000000 ELSE 1000 + n % 1000 END, 'x') AS x FROM numbers"
    };
    let config = ConfigService::new(DatabaseConfig::new(url.parse()?));
    Scope::new().provide(config).run(|| {
        DatabaseService::execute_query("SELECT 1", params! {})?;
        let peak_before = peak_memory_kib()?;
        let mut bytes = 0;
        DatabaseService::for_each_row(sql, params! {}, |row| {
            bytes += row.get::<String>("x")?.len();
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })?;
        println!("{bytes} {}", peak_memory_kib()? - peak_before);
        Ok(())
    })
}

fn peak_memory_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(peak
        .context("/proc/self/status has no VmHWM in kB")?
        .trim()
        .parse()?)
}
