//! Time limits where the session is another with each transaction, as behind PgBouncer in transaction mode: what is set once
//! there is lost, and found by somebody else.

use diesel::connection::AnsiTransactionManager;
use diesel::result::Error as DieselError;

use crate::connection::on_each;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::scanner::Parsed;

impl Connection {
    /// Begins an outermost transaction with a statement of one's own.
    pub(crate) fn begin_as(&mut self, sql: &str) -> Result<(), DieselError> {
        let sql = self.with_limits(sql);
        on_each!(self, connection => AnsiTransactionManager::begin_transaction_sql(connection, &sql))
    }

    /// The beginning of a transaction, and what it sets for itself.
    fn with_limits(&mut self, begin: &str) -> String {
        match self.observer() {
            Some(observer) if !observer.limits.is_empty() => format!("{begin};{}", observer.limits),
            _ => begin.to_owned(),
        }
    }

    pub(crate) fn has_limits(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| !observer.limits.is_empty())
    }

    /// Runs a statement in a transaction of its own where limits are to be set for it, and it may be in one.
    pub(crate) fn within_limits<R>(
        &mut self,
        parsed: &Parsed<'_>,
        work: impl FnOnce(&mut Self) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let is_alone = self.transaction_depth() == 0
            && self.observer().is_some_and(|seen| !seen.raw_transaction);
        if !is_alone || !parsed.is_repeatable || !self.has_limits() {
            return work(self);
        }
        let begin = self.with_limits("BEGIN");
        if let Err(error) = self.run(&begin) {
            // It may have begun, and then failed to set a limit.
            self.undo("ROLLBACK");
            return Err(error.into());
        }
        let result = work(self);
        if result.is_ok() {
            if let Err(error) = self.run("COMMIT") {
                self.undo("ROLLBACK");
                return Err(DbError::of_commit(error));
            }
        } else {
            self.undo("ROLLBACK");
        }
        result
    }

    /// Rolls back what was begun without diesel's knowledge. A cancellation may hit the first attempt. If the second one fails
    /// too, the connection is given up: the next borrower would find a transaction that has failed.
    pub(crate) fn undo(&mut self, sql: &str) {
        if self.run(sql).is_err() && self.run(sql).is_err() {
            self.give_up();
        }
    }
}
