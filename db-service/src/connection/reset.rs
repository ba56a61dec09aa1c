//! The reset of a returned connection for the next caller.

use super::{Connection, on_each};
use crate::backend::Backend;
use crate::config::{DatabaseConfig, ResetOnReturn};
use crate::dialect::ParameterTypes;
use crate::error::DbError;
use crate::sql::quote;
use crate::values::Params;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::Error as DieselError;

/// Resets the state of a PostgreSQL session that outlives a transaction: role, settings, cursors, subscriptions, locks,
/// temporary objects and the memory of sequences, as `DISCARD ALL` does, but without the prepared statements of the
/// driver. Fails if a statement of the user is prepared. No view shows all settings: those of the user's own, such as
/// `app.tenant`, appear nowhere.
///
/// All names are qualified and there are no operators, because a schema of the user can precede `pg_catalog` in the
/// search path. The role is reset by itself, not only as an effect of the session authorization.
const POSTGRES_RESET: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; \
     SELECT CAST(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
     THEN 'prepared' ELSE '1' END AS pg_catalog.int4); \
     SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'; ";

/// Resets the role and the settings of a PostgreSQL session, also inside a transaction. The driver sets the time zone
/// and the encoding when it connects.
const POSTGRES_SETTINGS: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; \
     SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'; ";

/// Resets what else a migration can leave behind in a PostgreSQL session, except prepared statements.
const POSTGRES_OBJECTS: &str = "CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); \
     DISCARD TEMP; DISCARD SEQUENCES; ";

/// Resets the settings of a SQLite connection that a migration can change, apart from those of the service.
#[cfg(feature = "sqlite")]
const SQLITE_SETTINGS: &str = "PRAGMA legacy_alter_table = OFF; PRAGMA writable_schema = RESET; \
     PRAGMA defer_foreign_keys = OFF; PRAGMA ignore_check_constraints = OFF; PRAGMA recursive_triggers = OFF; \
     PRAGMA query_only = OFF; PRAGMA read_uncommitted = OFF; PRAGMA reverse_unordered_selects = OFF; ";

/// The state of a SQLite connection: temporary objects, attached databases and settings.
const SQLITE_STATE: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM sqlite_temp_schema), \
     (SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')), \
     (SELECT foreign_keys FROM pragma_foreign_keys), (SELECT query_only FROM pragma_query_only), \
     (SELECT defer_foreign_keys FROM pragma_defer_foreign_keys), \
     (SELECT ignore_check_constraints FROM pragma_ignore_check_constraints), \
     (SELECT recursive_triggers FROM pragma_recursive_triggers), \
     (SELECT reverse_unordered_selects FROM pragma_reverse_unordered_selects), \
     (SELECT read_uncommitted FROM pragma_read_uncommitted), \
     (SELECT synchronous FROM pragma_synchronous), (SELECT timeout FROM pragma_busy_timeout)) AS state";

impl Connection {
    /// Returns whether session state was changed that only the end of the session resets.
    pub(crate) fn is_dirty(&mut self) -> bool {
        self.session().is_dirty
    }

    /// Returns whether session state was changed, and no transaction is open that must be rolled back first.
    pub(crate) fn is_only_dirty(&mut self) -> bool {
        let depth = self.transaction_depth();
        let session = self.session();
        session.is_dirty && session.is_idle() && depth == 0 && !session.transaction.has_raw
    }

    /// Ends a checkout. Returns whether nothing is left to reset and no reason to close the connection.
    pub(crate) fn is_clean(&mut self) -> bool {
        let is_broken =
            on_each!(self, inner => AnsiTransactionManager::is_broken_transaction_manager(inner));
        let session = self.session();
        session.end_checkout();
        !is_broken
            && session.is_idle()
            && !session.is_dirty
            && !session.transaction.has_raw
            && !session.is_waiting()
            && !session.must_reset_state()
            && !session.statements.must_be_dropped()
    }

    /// Resets the connection for the next checkout. Returns `false` if the connection must be closed.
    pub(crate) fn restore(&mut self) -> bool {
        self.roll_back_to(0);
        let session = self.session();
        // If an answer is still pending, it was not read to its end.
        session.end_wait();
        let has_raw_transaction = std::mem::take(&mut session.transaction.has_raw);
        if session.is_lost || has_raw_transaction && !self.roll_back_raw() {
            return false;
        }
        if self.session().must_reset_state() && !self.session().is_dirty {
            let is_reset = self.reset_state();
            let session = self.session();
            session.is_unsure = false;
            session.is_dirty = !is_reset;
        }
        !self.is_lost()
            && !on_each!(self, inner => AnsiTransactionManager::is_broken_transaction_manager(inner))
    }

    /// Returns whether the words of a statement since the checkout show that it changed session state, or leave it open.
    pub(crate) fn may_have_changed_session(&mut self) -> bool {
        let session = self.session();
        session.is_dirty || session.is_unsure
    }

    /// Resets the role and the settings of a PostgreSQL session, also inside a transaction. Does nothing on SQLite.
    pub(crate) fn reset_settings(&mut self) -> Result<(), DieselError> {
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let sql = format!("{POSTGRES_SETTINGS}{}", self.session().session_limits);
        self.run(&sql)
    }

    /// Resets the session after a migration, for the next one. The pool still closes or resets the connection.
    pub(crate) fn reset_after_migration(&mut self, config: &DatabaseConfig) -> Result<(), DbError> {
        match self.backend() {
            Backend::Postgres => {
                self.reset_settings()?;
                self.run(POSTGRES_OBJECTS)?;
            }
            Backend::Sqlite => {
                #[cfg(feature = "sqlite")]
                self.run(&format!("{SQLITE_SETTINGS}{}", config.sqlite.statements()))?;
                let attached =
                    "SELECT name FROM pragma_database_list WHERE name NOT IN ('main', 'temp')";
                for row in self.execute_query(attached, Params::new())? {
                    let name: String = row.get("name")?;
                    self.run(&format!("DETACH {}", quote(&name)))?;
                }
            }
        }
        let _ = config;
        Ok(())
    }

    /// Resets the session's state. Returns `false` if it cannot be reset.
    fn reset_state(&mut self) -> bool {
        match self.backend() {
            Backend::Postgres => {
                // The driver sets the time zone and the encoding when it connects.
                let limits = &self.session().session_limits;
                let sql = format!("{POSTGRES_RESET}{limits}");
                self.run(&sql).is_ok()
            }
            // A new connection to a file costs little.
            Backend::Sqlite => {
                let state = self.internally(Self::sqlite_state).ok();
                state.is_some() && state == self.session().clean_state
            }
        }
    }

    /// Stores the state of this new connection to SQLite if later states will be compared with it.
    pub(super) fn store_clean_state(&mut self) {
        let is_compared = self.session().reset_on_return == ResetOnReturn::Always;
        if is_compared && self.backend() == Backend::Sqlite {
            self.session().clean_state = self.internally(Self::sqlite_state).ok();
        }
    }

    /// Returns a text that is equal for equal states of a SQLite connection.
    fn sqlite_state(&mut self) -> Result<String, DbError> {
        let statement = self.known(SQLITE_STATE)?;
        let rows = self.load(&statement, &Params::new(), ParameterTypes::NotNeeded, None)?;
        rows.first().ok_or(DbError::NoRow)?.get("state")
    }
}

impl super::session::Session {
    /// Returns whether the session's state must be reset before the next checkout.
    fn must_reset_state(&self) -> bool {
        let is_postgres = self.observed.backend == Backend::Postgres;
        // Without a statement cache, PgBouncer may run each statement in another session.
        let has_session = !is_postgres || self.statements.prepared.is_on();
        has_session
            && match self.reset_on_return {
                ResetOnReturn::Always => true,
                // On SQLite, the words of a statement show each change.
                ResetOnReturn::Auto => self.is_unsure && is_postgres,
            }
    }
}
