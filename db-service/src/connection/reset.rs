//! The reset of a returned connection for the next caller.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::Error as DieselError;

use super::{Connection, on_each};
use crate::backend::Backend;
use crate::config::ResetOnReturn;
use crate::error::DbError;
use crate::values::Params;

/// The state of a PostgreSQL session that outlives a transaction: settings, roles, locks, subscriptions, temporary
/// objects, open cursors and the user's prepared statements. Equal texts mean equal states.
const POSTGRES_STATE: &str = "SELECT pg_catalog.concat_ws(' ', \
     (SELECT pg_catalog.string_agg(pg_catalog.concat(name, '=', setting), ',' ORDER BY name) \
      FROM pg_catalog.pg_settings WHERE source = 'session'), \
     session_user, current_user, pg_catalog.current_setting('role'), \
     (SELECT count(*) FROM pg_catalog.pg_locks \
      WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()), \
     (SELECT count(*) FROM pg_catalog.pg_listening_channels()), \
     (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()), \
     (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable), \
     (SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql)) AS state";

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
            && !session.must_compare_state()
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
        if self.session().must_compare_state() && !self.session().is_dirty {
            self.compare_state();
        }
        !self.is_lost()
            && !on_each!(self, inner => AnsiTransactionManager::is_broken_transaction_manager(inner))
    }

    /// Resets the settings, and compares the state with that of a new session. If the two differ, or if one of them is
    /// unknown, the connection is closed.
    fn compare_state(&mut self) {
        let clean = Arc::clone(&self.session().clean_state);
        let is_clean = match clean.text.get() {
            Some(clean) => {
                self.reset_settings().is_ok()
                    && self
                        .internally(Self::state)
                        .is_ok_and(|state| state == *clean)
            }
            None => {
                clean.is_wanted.store(true, Ordering::Relaxed);
                false
            }
        };
        let session = self.session();
        session.is_unsure = false;
        session.is_dirty = !is_clean;
    }

    /// Resets the settings of a PostgreSQL session. No view shows settings of the user's own, such as `app.tenant`.
    fn reset_settings(&mut self) -> Result<(), DieselError> {
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        // The driver sets the second and the third when it connects.
        let own = &self.session().session_limits;
        let sql = format!("RESET ALL; SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'; {own}");
        self.run(&sql)
    }

    /// Stores the state of this new session if it is needed. After a failure, the next new session is asked.
    pub(super) fn store_clean_state(&mut self) {
        let session = self.session();
        let clean = Arc::clone(&session.clean_state);
        let is_wanted = clean.is_wanted.load(Ordering::Relaxed)
            || session.reset_on_return == ResetOnReturn::Always;
        if is_wanted
            && session.may_compare_state()
            && clean.text.get().is_none()
            && let Ok(state) = self.internally(Self::state)
        {
            // Of several new sessions at once, each has the same state.
            let _ = clean.text.set(state);
        }
    }

    /// Returns a text that is equal for equal states of the session.
    fn state(&mut self) -> Result<String, DbError> {
        let statement = self.known(match self.backend() {
            Backend::Postgres => POSTGRES_STATE,
            Backend::Sqlite => SQLITE_STATE,
        })?;
        let rows = self.load(&statement, &Params::new(), None, None)?;
        rows.first().ok_or(DbError::NoRow)?.get("state")
    }

    fn roll_back_raw(&mut self) -> bool {
        match (self.run("ROLLBACK"), self.backend()) {
            (Ok(()), _) => true,
            (Err(DieselError::DatabaseError(_, information)), Backend::Sqlite) => {
                information.message().contains("no transaction is active")
            }
            (Err(_), _) => false,
        }
    }
}

impl super::session::Session {
    /// Returns whether the session's state must be compared before the next checkout.
    fn must_compare_state(&self) -> bool {
        match self.reset_on_return {
            ResetOnReturn::Always => self.may_compare_state(),
            // On SQLite, the words of a statement show each change.
            ResetOnReturn::Auto => {
                self.is_unsure
                    && self.may_compare_state()
                    && self.observed.backend == Backend::Postgres
            }
        }
    }

    /// Returns whether the state belongs to this connection. Without a statement cache, PgBouncer may run each
    /// statement in another session.
    fn may_compare_state(&self) -> bool {
        self.observed.backend == Backend::Sqlite || self.statements.prepared.is_on()
    }
}
