//! The side effects of SQL texts on their session: transactions and session state.

use crate::backend::Backend;
use crate::tokens::{Kind, Token, Tokens};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SideEffects {
    /// The text begins a transaction that the driver does not track.
    pub(crate) transaction: bool,
    /// The text ends the current transaction.
    pub(crate) end: bool,
    /// The text changes session state that outlives transactions: a setting, a temporary table, a session lock, a
    /// subscription.
    pub(crate) session: bool,
}

/// Returns the side effects of one or several statements, judged by their keywords.
pub(crate) fn side_effects(sql: &str, backend: Backend) -> SideEffects {
    let mut side_effects = SideEffects::default();
    let mut statement = WordPosition::default();
    for Token { kind, text } in Tokens::new(sql, backend) {
        match kind {
            Kind::Semicolon => statement = WordPosition::default(),
            Kind::Space => {}
            Kind::Word => {
                side_effects.transaction |= statement.begins_transaction(text);
                side_effects.end |= statement.count == 0
                    && is_one_of(text, &["COMMIT", "END", "ROLLBACK", "ABORT"]);
                // `ROLLBACK TO SAVEPOINT` does not end the transaction.
                side_effects.end &= !(statement.is_first("ROLLBACK") && is_one_of(text, &["TO"]));
                side_effects.session |= match backend {
                    Backend::Postgres => statement.marks_postgres(text),
                    Backend::Sqlite => statement.marks_sqlite(text),
                };
                statement.add(text);
            }
            _ => {
                // `PRAGMA name = value` sets a value. Without a value, it only reads.
                side_effects.session |=
                    backend == Backend::Sqlite && text == "=" && statement.is_first("PRAGMA");
                statement.add(text);
            }
        }
    }
    side_effects
}

/// The position of a word in its statement.
#[derive(Default)]
struct WordPosition<'a> {
    first: Option<&'a str>,
    previous: Option<&'a str>,
    count: usize,
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

impl<'a> WordPosition<'a> {
    fn add(&mut self, text: &'a str) {
        self.first.get_or_insert(text);
        self.previous = Some(text);
        self.count += 1;
    }

    fn is_first(&self, word: &str) -> bool {
        self.first
            .is_some_and(|first| first.eq_ignore_ascii_case(word))
    }

    fn follows(&self, word: &str) -> bool {
        self.previous
            .is_some_and(|previous| previous.eq_ignore_ascii_case(word))
    }

    fn begins_transaction(&self, word: &str) -> bool {
        match self.first {
            None => is_one_of(word, &["BEGIN", "START", "SAVEPOINT"]),
            Some(first) => {
                is_one_of(word, &["CHAIN"])
                    && is_one_of(first, &["COMMIT", "END", "ROLLBACK", "ABORT"])
            }
        }
    }

    fn makes_temporary(&self, word: &str) -> bool {
        is_one_of(word, &["TEMP", "TEMPORARY"])
            && self.previous.is_some_and(|previous| {
                is_one_of(previous, &["CREATE", "LOCAL", "GLOBAL", "REPLACE", "INTO"])
            })
    }

    fn marks_postgres(&self, word: &str) -> bool {
        const FUNCTIONS: [&str; 5] = [
            "set_config",
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ];
        match self.count {
            0 => is_one_of(word, &["LISTEN", "LOAD", "PREPARE", "RESET", "DISCARD"]),
            1 if self.is_first("SET") => !is_one_of(word, &["LOCAL", "TRANSACTION", "CONSTRAINTS"]),
            _ => {
                self.makes_temporary(word)
                    || is_one_of(word, &FUNCTIONS)
                    || is_one_of(word, &["HOLD"])
                        && self.is_first("DECLARE")
                        && self.follows("WITH")
            }
        }
    }

    fn marks_sqlite(&self, word: &str) -> bool {
        match self.count {
            0 => is_one_of(word, &["ATTACH", "DETACH"]),
            _ => self.makes_temporary(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_begin_is_detected() {
        for sql in [
            "begin",
            " BEGIN;",
            "/* x */ START TRANSACTION",
            "SELECT 1; savepoint a",
            "COMMIT AND CHAIN",
            "-- x\rBEGIN",
            "SELECT 1 -- binds: \n; BEGIN",
        ] {
            assert!(side_effects(sql, Backend::Postgres).transaction, "{sql}");
        }
        assert!(side_effects("\u{feff}BEGIN", Backend::Sqlite).transaction);
        for sql in [
            "SELECT 'BEGIN'",
            "COMMIT",
            "SELECT begin FROM start",
            "INSERT INTO a VALUES (1); COMMIT",
            "-- begin",
        ] {
            assert!(!side_effects(sql, Backend::Postgres).transaction, "{sql}");
        }
    }

    #[test]
    fn raw_commit_and_rollback_are_detected() {
        for sql in ["COMMIT", "end;", "/* x */ rollback work", "ABORT"] {
            assert!(side_effects(sql, Backend::Postgres).end, "{sql}");
        }
        for sql in [
            "ROLLBACK TO SAVEPOINT a",
            "rollback work to a",
            "SELECT 1 AS end",
            "RELEASE a",
        ] {
            assert!(!side_effects(sql, Backend::Postgres).end, "{sql}");
        }
    }

    #[test]
    fn session_state_is_detected() {
        use Backend::{Postgres, Sqlite};
        for (backend, sql) in [
            (Postgres, "SET search_path = x"),
            (Postgres, "SELECT 1; set session authorization x"),
            (Postgres, "LISTEN news"),
            (Postgres, "CREATE TEMP TABLE t (n int)"),
            (Postgres, "CREATE LOCAL TEMPORARY TABLE t (n int)"),
            (Postgres, "SELECT 1 INTO TEMP t"),
            (Postgres, "SELECT pg_advisory_lock(1)"),
            (Postgres, "SELECT set_config('a.b', 'c', false)"),
            (Postgres, "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            (Postgres, "PREPARE p AS SELECT 1"),
            (Sqlite, "PRAGMA foreign_keys = OFF"),
            (Sqlite, "ATTACH 'x' AS y"),
            (Sqlite, "CREATE TEMP TABLE t (n)"),
        ] {
            assert!(side_effects(sql, backend).session, "{sql}");
        }
        for (backend, sql) in [
            (Postgres, "SET LOCAL statement_timeout = 1"),
            (Postgres, "SET TRANSACTION READ ONLY"),
            (Postgres, "UPDATE t SET temp = 1"),
            (Postgres, "SELECT temp, hold FROM t"),
            (Postgres, "SELECT 'LISTEN'"),
            (Postgres, "CREATE TABLE temp (n int)"),
            (Postgres, "SELECT pg_advisory_xact_lock(1)"),
            (Sqlite, "PRAGMA table_info(t)"),
            (Sqlite, "UPDATE t SET pragma = 1"),
        ] {
            assert!(!side_effects(sql, backend).session, "{sql}");
        }
    }
}
