//! The side effects of SQL texts on their session: transactions and session state.
//!
//! The words of a text decide. They cannot show what a function, trigger, view or default of the database does, so a
//! text is harmless only if it calls nothing but known functions.

use super::script::BlockNesting;
use crate::backend::Backend;
use crate::tokens::Kind;

/// The effects of a text on its session, by its words.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SideEffects {
    /// Whether a transaction that the driver does not track is open after the text. `None` if the text neither begins
    /// nor ends one.
    pub(crate) transaction: Option<bool>,
    /// The text begins a transaction. It stays open if a later statement of the text fails.
    pub(crate) begin: bool,
    /// The text ends the current transaction, and may begin another one.
    pub(crate) end: bool,
    /// The text changes session state that outlives transactions: a setting, a temporary table, a session lock, a
    /// subscription.
    pub(crate) session: bool,
    /// The text may change such state: it calls an unknown function or is an unknown statement.
    pub(crate) is_unsure: bool,
    /// The text may change the types of columns and parameters: it defines something, or changes a setting such as
    /// `search_path`.
    pub(crate) redefines: bool,
}

/// Collects the side effects of a text from its tokens.
pub(crate) struct SideEffectScanner<'a> {
    backend: Backend,
    found: SideEffects,
    statement: StatementScan<'a>,
    nesting: BlockNesting,
}

/// The statement that is being scanned.
#[derive(Default)]
struct StatementScan<'a> {
    first: Option<&'a str>,
    second: Option<&'a str>,
    previous: Option<Previous<'a>>,
    before_previous: Option<Previous<'a>>,
    count: usize,
    /// Whether the statement ends a transaction, unless `TO` follows.
    ends: bool,
    name: TableName,
}

/// The position in the name of a table, which a list of columns in parentheses may follow.
#[derive(Default, Clone, Copy, PartialEq)]
enum TableName {
    #[default]
    None,
    Expected,
    Read,
}

type Previous<'a> = (Kind, &'a str);

impl<'a> SideEffectScanner<'a> {
    pub(crate) fn new(backend: Backend) -> Self {
        SideEffectScanner {
            backend,
            found: SideEffects::default(),
            statement: StatementScan::default(),
            nesting: BlockNesting::new(backend),
        }
    }

    /// Processes the next token.
    pub(crate) fn take(&mut self, kind: Kind, text: &'a str) {
        match kind {
            Kind::Space => return,
            Kind::Semicolon => {
                if !self.nesting.is_open() {
                    self.nesting = BlockNesting::new(self.backend);
                }
                return self.end_statement();
            }
            _ => {}
        }
        let is_in_body = self.nesting.is_open();
        self.nesting.take(kind, text);
        let statement = &self.statement;
        if kind == Kind::Word {
            self.take_word(text, is_in_body);
        } else if statement.count == 0 {
            // A parenthesis begins a query. Anything else is no statement of a known kind.
            self.found.is_unsure |= kind != Kind::Open;
        }
        match self.backend {
            Backend::Postgres => self.take_postgres(kind, text),
            Backend::Sqlite => self.take_sqlite(kind, text),
        }
        self.statement.add(kind, text);
    }

    pub(crate) fn finish(mut self) -> SideEffects {
        self.end_statement();
        self.found
    }

    fn end_statement(&mut self) {
        if std::mem::take(&mut self.statement).ends {
            self.found.end = true;
            self.found.transaction = Some(false);
        }
        // `COMMIT AND CHAIN` begins the next one, which `take_word` has noted by now.
    }

    fn take_word(&mut self, word: &str, is_in_body: bool) {
        const ENDS: [&str; 4] = ["COMMIT", "END", "ROLLBACK", "ABORT"];
        const REDEFINE: [&str; 9] = [
            "ALTER", "CALL", "CREATE", "DISCARD", "DO", "DROP", "IMPORT", "RESET", "SET",
        ];
        let statement = &mut self.statement;
        self.found.redefines |= statement.count == 0 && is_one_of(word, &REDEFINE);
        match statement.count {
            0 if is_one_of(word, &["BEGIN", "START", "SAVEPOINT"]) => {
                self.found.transaction = Some(true);
                self.found.begin = true;
            }
            // `END` can be the end of a body.
            0 if is_in_body && is_one_of(word, &["END"]) => {}
            0 => statement.ends = is_one_of(word, &ENDS),
            // `PREPARE TRANSACTION` separates the transaction from the session.
            1 if statement.is_first("PREPARE") && is_one_of(word, &["TRANSACTION"]) => {
                statement.ends = true;
            }
            _ if statement.ends && is_one_of(word, &["TO"]) => statement.ends = false,
            // `COMMIT AND CHAIN` ends a transaction and begins another one.
            _ if statement.ends && is_one_of(word, &["CHAIN"]) && !statement.follows("NO") => {
                statement.ends = false;
                self.found.end = true;
                self.found.transaction = Some(true);
                self.found.begin = true;
            }
            // `COMMIT PREPARED` ends a transaction that the session has left.
            1 if statement.ends && is_one_of(word, &["PREPARED"]) => statement.ends = false,
            _ => {}
        }
    }

    fn take_postgres(&mut self, kind: Kind, text: &str) {
        let statement = &self.statement;
        match kind {
            Kind::Word => {
                self.found.session |= statement.changes_postgres_session(text);
                self.found.is_unsure |= match statement.count {
                    0 => !is_one_of(text, &PLAIN_STATEMENTS),
                    // The schema of temporary tables, and the view whose update changes a setting.
                    _ => is_one_of(text, &["pg_temp", "pg_settings"]),
                };
            }
            Kind::Quoted if !text.starts_with('\'') => {
                self.found.session |= statement.count == 1 && statement.is_first("SET");
                // `U&"…"` can spell any name, and so can a quoted one.
                self.found.is_unsure |= statement.is_unicode_prefix()
                    || is_one_of(text.trim_matches('"'), &["pg_temp", "pg_settings"]);
            }
            // `SET local.name = …`
            Kind::Other if statement.count == 2 && statement.is_first("SET") => {
                self.found.session = true;
            }
            Kind::Open => self.found.is_unsure |= !statement.calls_nothing_unknown(),
            _ => {}
        }
    }

    fn take_sqlite(&mut self, kind: Kind, text: &str) {
        let statement = &self.statement;
        let is_pragma = statement.is_first("PRAGMA");
        self.found.session |= match kind {
            Kind::Word if statement.count == 0 => is_one_of(text, &["ATTACH", "DETACH"]),
            // SQLite applies a pragma when it prepares it, also in an `EXPLAIN`.
            Kind::Word => {
                statement.makes_temporary(text)
                    || statement.is_first("EXPLAIN") && is_one_of(text, &["PRAGMA"])
            }
            // `PRAGMA name = value` and `PRAGMA name(value)` set a value, except those that read something.
            Kind::Open => is_pragma && !statement.follows_one_of(&READING_PRAGMAS),
            Kind::Other if text == "=" => is_pragma,
            // `temp.name` creates or changes something temporary.
            Kind::Other if text == "." => statement.follows_name("temp"),
            _ => false,
        };
    }
}

impl<'a> StatementScan<'a> {
    fn add(&mut self, kind: Kind, text: &'a str) {
        if self.count == 0 {
            self.first = Some(text);
        } else if self.count == 1 {
            self.second = Some(text);
        }
        let precedes_table = ["INTO", "TABLE", "EXISTS", "REFERENCES", "VIEW"];
        self.name = match (kind, self.name) {
            (Kind::Word, _) if is_one_of(text, &precedes_table) => TableName::Expected,
            (Kind::Word, _) if is_one_of(text, &["ON"]) && self.creates_index() => {
                TableName::Expected
            }
            (Kind::Word | Kind::Quoted, TableName::Expected) => TableName::Read,
            // `schema.table`
            (Kind::Other, TableName::Read) if text == "." => TableName::Expected,
            _ => TableName::None,
        };
        self.before_previous = self.previous.replace((kind, text));
        self.count += 1;
    }

    fn creates_index(&self) -> bool {
        let kind = self.second.unwrap_or_default();
        self.is_first("CREATE") && is_one_of(kind, &["INDEX", "UNIQUE"])
    }

    fn is_first(&self, word: &str) -> bool {
        self.first
            .is_some_and(|first| first.eq_ignore_ascii_case(word))
    }

    fn follows(&self, word: &str) -> bool {
        self.follows_one_of(&[word])
    }

    fn follows_one_of(&self, words: &[&str]) -> bool {
        matches!(self.previous, Some((Kind::Word, previous)) if is_one_of(previous, words))
    }

    /// Returns whether the previous token is a name, quoted or not.
    fn follows_name(&self, name: &str) -> bool {
        let is_quote = |character| matches!(character, '"' | '`' | '[' | ']' | '\'');
        matches!(self.previous, Some((Kind::Word | Kind::Quoted, previous))
            if previous.trim_matches(is_quote).eq_ignore_ascii_case(name))
    }

    /// Returns whether `U&` was just read.
    fn is_unicode_prefix(&self) -> bool {
        matches!(self.previous, Some((Kind::Other, "&")))
            && matches!(self.before_previous, Some((Kind::Word, word)) if word.eq_ignore_ascii_case("U"))
    }

    /// Returns whether an opening parenthesis after the tokens so far calls no unknown function.
    fn calls_nothing_unknown(&self) -> bool {
        let Some((kind, name)) = self.previous else {
            return true;
        };
        let is_qualified = matches!(self.before_previous, Some((Kind::Other, ".")));
        match kind {
            _ if self.name == TableName::Read => true,
            Kind::Word => !is_qualified && is_one_of(name, &HARMLESS),
            Kind::Quoted => name.starts_with('\''),
            _ => true,
        }
    }

    fn makes_temporary(&self, word: &str) -> bool {
        is_one_of(word, &["TEMP", "TEMPORARY"])
            && self.follows_one_of(&["CREATE", "LOCAL", "GLOBAL", "REPLACE", "INTO"])
    }

    fn changes_postgres_session(&self, word: &str) -> bool {
        const FUNCTIONS: [&str; 5] = [
            "set_config",
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ];
        match self.count {
            0 => is_one_of(
                word,
                &[
                    "LISTEN",
                    "LOAD",
                    "PREPARE",
                    "DEALLOCATE",
                    "RESET",
                    "DISCARD",
                ],
            ),
            // `SET local.name TO …` sets a session's setting.
            2 if self.is_first("SET") && is_one_of(word, &["TO"]) => true,
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
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The first words of PostgreSQL's statements that, apart from the functions that they call, change no session state.
const PLAIN_STATEMENTS: [&str; 38] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "WITH",
    "VALUES",
    "TABLE",
    "MERGE",
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
    "SET",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "COMMENT",
    "GRANT",
    "REVOKE",
    "LOCK",
    "ANALYZE",
    "VACUUM",
    "EXPLAIN",
    "SHOW",
    "NOTIFY",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "REINDEX",
    "REFRESH",
    "CHECKPOINT",
    "UNLISTEN",
];

/// SQLite's pragmas that take an argument and only read.
const READING_PRAGMAS: [&str; 13] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_info",
    "index_xinfo",
    "index_list",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
    "optimize",
    "function_list",
    "wal_checkpoint",
];

/// The words that may precede a parenthesis in PostgreSQL without a call of an unknown function: keywords, types, and
/// functions of PostgreSQL that only compute.
const HARMLESS: [&str; 209] = [
    // Keywords.
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "CHECK",
    "CONFLICT",
    "CROSS",
    "CUBE",
    "DISTINCT",
    "DO",
    "ELSE",
    "EXCEPT",
    "EXISTS",
    "FILTER",
    "FOREIGN",
    "FROM",
    "GROUP",
    "HAVING",
    "IN",
    "INCLUDE",
    "INTERSECT",
    "IS",
    "JOIN",
    "KEY",
    "LATERAL",
    "LIKE",
    "ILIKE",
    "LIMIT",
    "MATERIALIZED",
    "NOT",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRIMARY",
    "RETURNING",
    "ROLLUP",
    "ROW",
    "SELECT",
    "SET",
    "SETS",
    "SIMILAR",
    "SOME",
    "THEN",
    "UNION",
    "UNIQUE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITHIN",
    "ANALYZE",
    "EXPLAIN",
    "CAST",
    // Types with a length.
    "bit",
    "char",
    "character",
    "decimal",
    "numeric",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "varbit",
    "varchar",
    "varying",
    "interval",
    "precision",
    "float",
    // Aggregates and window functions.
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "max",
    "min",
    "string_agg",
    "sum",
    "stddev",
    "variance",
    "row_number",
    "rank",
    "dense_rank",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "ntile",
    "percentile_cont",
    "percentile_disc",
    "mode",
    // Conditions and numbers.
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "abs",
    "ceil",
    "ceiling",
    "floor",
    "mod",
    "power",
    "random",
    "round",
    "sign",
    "sqrt",
    "trunc",
    "exp",
    "ln",
    "log",
    // Text and bytes.
    "btrim",
    "char_length",
    "character_length",
    "concat",
    "concat_ws",
    "convert_from",
    "convert_to",
    "decode",
    "encode",
    "format",
    "initcap",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "md5",
    "octet_length",
    "overlay",
    "position",
    "quote_ident",
    "quote_literal",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "sha256",
    "split_part",
    "strpos",
    "substr",
    "substring",
    "to_char",
    "to_date",
    "to_number",
    "to_timestamp",
    "translate",
    "trim",
    "upper",
    "starts_with",
    // Times.
    "age",
    "clock_timestamp",
    "date_part",
    "date_trunc",
    "extract",
    "make_date",
    "make_interval",
    "make_timestamptz",
    "now",
    // Arrays, JSON, rows and identifiers.
    "array_length",
    "cardinality",
    "generate_series",
    "unnest",
    "json_build_object",
    "jsonb_build_object",
    "jsonb_array_elements",
    "jsonb_set",
    "row_to_json",
    "to_json",
    "to_jsonb",
    "gen_random_uuid",
    "to_regclass",
    "pg_typeof",
    "nextval",
    "currval",
    "lastval",
    "setval",
    // Information about the server, and what ends with the transaction.
    "current_schema",
    "current_setting",
    "has_table_privilege",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_backend_pid",
    "pg_cancel_backend",
    "pg_current_wal_lsn",
    "pg_current_xact_id",
    "pg_is_in_recovery",
    "pg_relation_size",
    "pg_size_pretty",
    "pg_sleep",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "txid_current",
    "version",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Token, Tokens};

    /// Returns the side effects of one or several statements.
    fn side_effects(sql: &str, backend: Backend) -> SideEffects {
        let mut scanner = SideEffectScanner::new(backend);
        for Token { kind, text } in Tokens::new(sql, backend) {
            scanner.take(kind, text);
        }
        scanner.finish()
    }

    #[test]
    fn transactions_of_raw_statements_are_tracked() {
        for sql in [
            "begin",
            " BEGIN;",
            "/* x */ START TRANSACTION",
            "SELECT 1; savepoint a",
            "COMMIT AND CHAIN",
            "COMMIT; BEGIN",
            "-- x\rBEGIN",
            "SELECT 1 -- binds: \n; BEGIN",
        ] {
            let found = side_effects(sql, Backend::Postgres).transaction;
            assert_eq!(found, Some(true), "{sql}");
        }
        let found = side_effects("\u{feff}BEGIN", Backend::Sqlite).transaction;
        assert_eq!(found, Some(true));
        for sql in ["BEGIN; SELECT 1; COMMIT", "COMMIT AND NO CHAIN", "ROLLBACK"] {
            let found = side_effects(sql, Backend::Postgres).transaction;
            assert_eq!(found, Some(false), "{sql}");
        }
        for sql in [
            "SELECT 'BEGIN'",
            "SELECT begin FROM start",
            "ROLLBACK TO a",
            "RELEASE a",
            "-- begin",
        ] {
            assert_eq!(
                side_effects(sql, Backend::Postgres).transaction,
                None,
                "{sql}"
            );
        }
    }

    #[test]
    fn begin_of_a_transaction_is_detected_before_its_end() {
        for sql in ["BEGIN; SELECT 1; COMMIT", "COMMIT AND CHAIN; ROLLBACK"] {
            assert!(side_effects(sql, Backend::Postgres).begin, "{sql}");
        }
        for sql in ["COMMIT; SELECT 1", "ROLLBACK TO a", "SELECT begin FROM t"] {
            assert!(!side_effects(sql, Backend::Postgres).begin, "{sql}");
        }
    }

    #[test]
    fn end_of_a_transaction_is_detected() {
        for sql in [
            "COMMIT",
            "end;",
            "/* x */ rollback work",
            "ABORT",
            "SELECT 1; COMMIT; SELECT 2",
            "COMMIT; BEGIN",
            "ROLLBACK AND CHAIN",
            "PREPARE TRANSACTION 'x'",
        ] {
            assert!(side_effects(sql, Backend::Postgres).end, "{sql}");
        }
        for sql in [
            "ROLLBACK TO SAVEPOINT a",
            "rollback work to a",
            "SELECT 1 AS end",
            "RELEASE a",
            "COMMIT PREPARED 'x'",
            "PREPARE x AS SELECT 1",
        ] {
            assert!(!side_effects(sql, Backend::Postgres).end, "{sql}");
        }
    }

    #[test]
    fn end_of_a_body_ends_no_transaction() {
        for (backend, sql) in [
            (
                Backend::Sqlite,
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END",
            ),
            (
                Backend::Postgres,
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
            ),
        ] {
            let found = side_effects(sql, backend);
            assert!(!found.end && found.transaction.is_none(), "{sql}");
            assert!(
                side_effects(&format!("{sql}; COMMIT"), backend).end,
                "{sql}"
            );
        }
        let alias = "CREATE TABLE t AS SELECT begin atomic FROM a; COMMIT; SELECT 1";
        assert!(side_effects(alias, Backend::Postgres).end);
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
            (Postgres, "SELECT pg_catalog.set_config('a.b', 'c', false)"),
            (Postgres, "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
            (Postgres, "PREPARE p AS SELECT 1"),
            (Postgres, "DEALLOCATE ALL"),
            (Postgres, "SET \"search_path\" = x"),
            (Postgres, "SET local.tenant = '42'"),
            (Postgres, "SET transaction.tenant TO 'a'"),
            (Sqlite, "EXPLAIN PRAGMA foreign_keys = OFF"),
            (Sqlite, "EXPLAIN QUERY PLAN PRAGMA foreign_keys = OFF"),
            (Sqlite, "PRAGMA foreign_keys = OFF"),
            (Sqlite, "PRAGMA foreign_keys(0)"),
            (Sqlite, "PRAGMA main.foreign_keys (0)"),
            (Sqlite, "ATTACH 'x' AS y"),
            (Sqlite, "CREATE TEMP TABLE t (n)"),
            (Sqlite, "CREATE TABLE temp.t (n)"),
            (Sqlite, "CREATE TABLE \"temp\" . t (n)"),
            (Sqlite, "CREATE VIEW [temp].t AS SELECT 1"),
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
            (Sqlite, "SELECT temp FROM t"),
        ] {
            assert!(!side_effects(sql, backend).session, "{sql}");
        }
    }

    #[test]
    fn statements_that_call_only_known_functions_are_harmless() {
        for sql in [
            "SELECT id, lower(name) FROM pets WHERE id IN (1, 2) AND (a OR b)",
            "INSERT INTO pets (id, name) VALUES ($1, coalesce($2, 'x'))",
            "INSERT INTO public.pets (id) SELECT count(*) FROM (SELECT 1) AS x ON CONFLICT (id) DO NOTHING",
            "INSERT INTO \"pets\" (\"id\") VALUES (DEFAULT) RETURNING \"pets\".\"id\"",
            "WITH x AS (SELECT 1) UPDATE pets SET n = (SELECT max(n) FROM pets)",
            "SELECT \"pets\".\"id\" FROM \"pets\" WHERE (\"pets\".\"id\" = ANY($1))",
            "CREATE TABLE IF NOT EXISTS pets (id int PRIMARY KEY, name varchar(10), price numeric(10, 2) CHECK (price > 0))",
            "CREATE UNIQUE INDEX ON pets (id)",
            "(SELECT 1) UNION (SELECT 2)",
            "SELECT CAST($1 AS bigint)",
            "BEGIN; COMMIT",
            "DELETE FROM pets WHERE EXISTS (SELECT 1)",
        ] {
            let found = side_effects(sql, Backend::Postgres);
            assert!(!found.is_unsure && !found.session, "{sql}");
        }
        for sql in [
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            "CALL something()",
            "EXECUTE something",
            "SELECT \"pg_advisory_lock\"(1)",
            "SELECT pg_catalog.\"pg_advisory_lock\" (1)",
            "SELECT something()",
            "INSERT INTO pets SELECT something(1)",
            "SELECT 1 FROM a JOIN b ON something(a.n)",
            "CREATE INDEX ON pets (something(id))",
            "SELECT public.lower('x')",
            "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
            "UPDATE \"pg_catalog\".\"pg_settings\" SET setting = 'x'",
            "UPDATE U&\"pg!005fsettings\" UESCAPE '!' SET setting = 'x'",
            "CREATE TABLE pg_temp.x (n int)",
            "CREATE TABLE \"pg_temp\".x (n int)",
            "SELECT 1; COPY t FROM PROGRAM 'x'",
        ] {
            assert!(side_effects(sql, Backend::Postgres).is_unsure, "{sql}");
        }
    }
}
