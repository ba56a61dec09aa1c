//! The reset of a returned connection for the next caller.

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

    /// Returns whether the session is unchanged, so that a reset need not send anything.
    pub(crate) fn is_clean(&mut self) -> bool {
        let is_in_order =
            !on_each!(self, inner => AnsiTransactionManager::is_broken_transaction_manager(inner));
        let depth = self.transaction_depth();
        let session = self.session();
        session.take_row_failure();
        session.note_interruption();
        session.user_instrumentation = None;
        let transaction = &session.transaction;
        let is_idle = depth == 0 && transaction.levels == 0 && !transaction.has_raw;
        is_in_order
            && is_idle
            && !session.is_lost
            && !session.is_waiting()
            && !session.must_compare_state()
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
            let state = self.internally(Self::state);
            let session = self.session();
            session.is_unsure = false;
            // Without a state to compare with, or if the question fails, the session may be in any state.
            session.is_dirty = state.is_err() || state.ok().as_ref() != session.clean_state.get();
        }
        !self.is_lost()
            && !on_each!(self, inner => AnsiTransactionManager::is_broken_transaction_manager(inner))
    }

    /// Stores the state of a new session, with which later states are compared.
    pub(crate) fn store_clean_state(&mut self) {
        if self.session().may_compare_state()
            && let Ok(state) = self.internally(Self::state)
        {
            // Of several first connections, each has the same state.
            let _ = self.session().clean_state.set(state);
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

    pub(super) fn roll_back_raw(&mut self) -> bool {
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
