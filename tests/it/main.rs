//! Tests of all services together through their public interface, on SQLite and PostgreSQL.

/// Defines one test per function and backend. Each test gets its own database.
///
/// Without a PostgreSQL server, the PostgreSQL tests do nothing, or fail if `REQUIRE_POSTGRES=1`.
macro_rules! on_both_backends {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[test]
                fn $test() {
                    super::$test(&tests::TestDatabase::sqlite());
                }
            )*
        }

        mod postgres {
            $(
                #[test]
                fn $test() {
                    if let Some(database) = tests::TestDatabase::postgres() {
                        super::$test(&database);
                    }
                }
            )*
        }
    };
}

mod architecture;
mod bulk;
mod connections;
mod dsl;
mod migrations;
mod replicas;
mod reporting;
mod schema;
mod security;
mod settings;
mod statements;
mod transactions;
mod users;
mod values;
