//! The services together, as their users use them, on SQLite and on PostgreSQL.

/// Makes a test of each function for each backend, with a database of its own.
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

mod bad_input;
mod bulk;
mod bulk_values;
mod casts;
mod conflicts;
mod copy_failures;
#[cfg(target_os = "linux")]
mod descriptors_left;
mod errors;
mod fakes;
mod far_values;
#[cfg(target_os = "linux")]
mod foreign_descriptors;
mod hostile_text;
mod hosts;
mod interruptions;
mod lifecycle;
mod loans;
mod logs;
mod losses;
mod migration_history;
mod migration_kill;
mod migrations;
mod parameters;
mod patience;
mod pgbouncer;
mod pool;
#[cfg(unix)]
mod private_files;
mod queries;
mod replicas;
mod schema;
mod secrets;
mod seed_faults;
mod settings;
mod single_statement;
mod statement_cache;
mod statistics;
#[cfg(target_os = "linux")]
mod stopped;
mod streaming;
mod table_names;
mod transactions;
mod url_secrets;
