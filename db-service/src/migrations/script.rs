//! The script of a migration: what it may contain, checked before anything of a run is applied.

use super::source::Migration;
use crate::backend::Backend;
use crate::error::{MigrationError, RefusedStatement};
use crate::sql::{ScriptStatement, statements};
use crate::tokens::{Kind, Token, Tokens};

/// A script that passed the checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    /// Whether SQLite enforces foreign keys while the script runs, if its first statements set it.
    pub(crate) foreign_keys: Option<bool>,
}

/// The effect of a statement on transactions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bracket {
    None,
    Begin,
    Commit,
    /// Anything else that belongs to a transaction: a savepoint, or a rollback to one.
    Inside,
    /// A statement that no migration may contain, such as `ROLLBACK` and `COMMIT AND CHAIN`.
    Refused,
}

impl<'a> Script<'a> {
    /// Checks a script of the migration.
    ///
    /// # Errors
    ///
    /// Returns [`MigrationError::Refused`] with the first statement that would break the rules of the migration's
    /// transaction, change the connection for other users, or not be executed as it is written.
    pub(crate) fn check(
        migration: &Migration,
        text: &'a str,
        backend: Backend,
    ) -> Result<Self, MigrationError> {
        let statements = statements(text, backend);
        let refuse = |index: usize, line: usize, reason: RefusedStatement| {
            Err(MigrationError::Refused {
                migration: migration.name.clone(),
                statement: index + 1,
                line,
                reason,
            })
        };
        let mut pragmas = Pragmas::new(&statements, backend);
        let mut begun: Option<(usize, usize)> = None;
        for (index, ScriptStatement { text, line }) in statements.iter().enumerate() {
            let words = Words::new(text, backend);
            let is_in_transaction = migration.in_transaction || begun.is_some();
            let shown = || words.first_words();
            if let Some(reason) = words.unsupported(is_in_transaction) {
                return refuse(index, *line, reason);
            }
            match bracket(text, backend) {
                Bracket::None => {}
                _ if migration.in_transaction => {
                    return refuse(index, *line, RefusedStatement::InTransaction(shown()));
                }
                Bracket::Begin if begun.is_none() => begun = Some((index, *line)),
                Bracket::Commit if begun.is_some() => begun = None,
                Bracket::Inside if begun.is_some() => {}
                _ => return refuse(index, *line, RefusedStatement::OutsideTransaction(shown())),
            }
            if let Some(pragma) = words.pragma()
                && is_in_transaction
                && !pragmas.accept(index, &pragma, migration.in_transaction)
            {
                return refuse(index, *line, RefusedStatement::Pragma(pragma.name));
            }
        }
        if let Some((index, line)) = begun {
            let reason = RefusedStatement::OutsideTransaction("BEGIN".to_owned());
            return refuse(index, line, reason);
        }
        Ok(Script {
            text,
            foreign_keys: pragmas.foreign_keys,
        })
    }
}

/// Returns what the database executes of a file: without a byte-order mark at its beginning, and without the two
/// commands for psql that `pg_dump` writes. Lines keep their numbers.
pub(crate) fn executable(file: &str, backend: Backend) -> String {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut text = String::with_capacity(file.len());
    if backend == Backend::Sqlite || !file.contains("restrict") {
        text.push_str(file);
        return text;
    }
    let (mut position, mut skip_to, mut begins) = (0, 0, true);
    for Token { kind, text: token } in Tokens::new(file, backend) {
        let rest = &file[position..];
        let is_command = ["\\restrict ", "\\unrestrict "]
            .iter()
            .any(|command| rest.starts_with(command));
        if begins && is_command && position >= skip_to {
            skip_to = position + rest.find('\n').unwrap_or(rest.len());
        }
        if position >= skip_to {
            text.push_str(token);
            begins = kind == Kind::Semicolon || kind == Kind::Space && begins;
        }
        position += token.len();
    }
    text
}

/// Returns the effect of a statement on transactions.
pub(crate) fn bracket(statement: &str, backend: Backend) -> Bracket {
    let words = Words::new(statement, backend);
    let has = |word: &str| words.tokens.iter().any(|token| is(token, word));
    match words.first().to_ascii_uppercase().as_str() {
        "BEGIN" => Bracket::Begin,
        "START" => Bracket::Begin,
        "COMMIT" | "END" if has("CHAIN") && !has("NO") => Bracket::Refused,
        // `COMMIT PREPARED` and `ROLLBACK PREPARED` end a transaction of no session.
        "COMMIT" | "ROLLBACK" if words.is(1, "PREPARED") => Bracket::None,
        "COMMIT" | "END" => Bracket::Commit,
        "ROLLBACK" if has("TO") => Bracket::Inside,
        "SAVEPOINT" | "RELEASE" => Bracket::Inside,
        "ROLLBACK" | "ABORT" => Bracket::Refused,
        "PREPARE" if words.is(1, "TRANSACTION") => Bracket::Refused,
        _ => Bracket::None,
    }
}

/// Returns whether a statement only changes the state of its session, so that it must be repeated in another session.
pub(crate) fn sets_session(statement: &str, backend: Backend) -> bool {
    let words = Words::new(statement, backend);
    let is_setter = ["SET", "RESET", "LOAD", "PRAGMA", "ATTACH"]
        .iter()
        .any(|word| words.is(0, word));
    let calls_setter = || {
        words.is(0, "SELECT")
            && words
                .tokens
                .iter()
                .any(|token| name(token).eq_ignore_ascii_case("set_config"))
    };
    is_setter || calls_setter()
}

/// Returns the names and words of a script in lower case, without quotes.
pub(crate) fn names(script: &str, backend: Backend) -> std::collections::BTreeSet<String> {
    Tokens::new(script, backend)
        .filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))
        .map(|token| name(&token).to_lowercase())
        .collect()
}

/// Returns the names that a `DROP` statement contains, in lower case. Empty for other statements.
pub(crate) fn dropped_names(
    statement: &str,
    backend: Backend,
) -> std::collections::BTreeSet<String> {
    match Words::new(statement, backend).is(0, "DROP") {
        true => names(statement, backend),
        false => std::collections::BTreeSet::new(),
    }
}

/// The pragmas of a SQLite script that runs in a transaction.
struct Pragmas {
    /// The statements from the first to the last that is no pragma.
    others: Option<(usize, usize)>,
    foreign_keys: Option<bool>,
}

impl Pragmas {
    fn new(statements: &[ScriptStatement<'_>], backend: Backend) -> Self {
        let is_other = |statement: &ScriptStatement<'_>| {
            Words::new(statement.text, backend).pragma().is_none()
        };
        let first = statements.iter().position(is_other);
        let last = statements.iter().rposition(is_other);
        Pragmas {
            others: first.zip(last),
            foreign_keys: None,
        }
    }

    /// Returns whether a pragma does in the transaction what it says, and is undone for later users of the connection.
    fn accept(&mut self, index: usize, pragma: &Pragma, may_set_foreign_keys: bool) -> bool {
        let Some(value) = &pragma.value else {
            return true;
        };
        if !pragma.name.eq_ignore_ascii_case("foreign_keys") {
            return ACCEPTED_PRAGMAS
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&pragma.name));
        }
        let Some((first, last)) = self.others.filter(|_| may_set_foreign_keys) else {
            return false;
        };
        let enforced = is_true(value);
        if index < first {
            self.foreign_keys = Some(enforced);
            true
        } else {
            // The setting of the service is restored.
            index > last && enforced
        }
    }
}

/// The pragmas that have an effect in a transaction, and that either only read, belong to the file, or are restored
/// after the migration.
const ACCEPTED_PRAGMAS: [&str; 20] = [
    "application_id",
    "defer_foreign_keys",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "ignore_check_constraints",
    "incremental_vacuum",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "legacy_alter_table",
    "optimize",
    "quick_check",
    "recursive_triggers",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
    "writable_schema",
];

/// A pragma of SQLite.
struct Pragma {
    name: String,
    value: Option<String>,
}

/// Reads a truth value as SQLite does: a number by its leading digits, a word, and anything else as false.
fn is_true(value: &str) -> bool {
    let is_digit = |next: char| next.is_ascii_digit();
    let digits = &value[..value.find(|next| !is_digit(next)).unwrap_or(value.len())];
    digits.contains(|digit: char| digit != '0')
        || ["on", "yes", "true"]
            .iter()
            .any(|word| word.eq_ignore_ascii_case(value))
}

/// The tokens of a statement, without white space and comments.
struct Words<'a> {
    tokens: Vec<Token<'a>>,
    backend: Backend,
}

impl<'a> Words<'a> {
    fn new(statement: &'a str, backend: Backend) -> Self {
        let tokens = Tokens::new(statement, backend).filter(|token| token.kind != Kind::Space);
        Words {
            tokens: tokens.collect(),
            backend,
        }
    }

    fn first(&self) -> &'a str {
        match self.tokens.first() {
            Some(Token {
                kind: Kind::Word,
                text,
            }) => text,
            _ => "",
        }
    }

    fn is(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| is(token, word))
    }

    /// Returns up to two words at the beginning, in upper case.
    fn first_words(&self) -> String {
        let words = self.tokens.iter().take(2);
        let words = words.take_while(|token| token.kind == Kind::Word);
        let words: Vec<_> = words.map(|token| token.text.to_ascii_uppercase()).collect();
        words.join(" ")
    }

    /// Returns the pragma, also if it is only explained: SQLite applies a pragma when it prepares it.
    fn pragma(&self) -> Option<Pragma> {
        if self.backend != Backend::Sqlite {
            return None;
        }
        let explained = match (self.is(0, "EXPLAIN"), self.is(1, "QUERY")) {
            (true, true) => 3,
            (true, false) => 1,
            (false, _) => 0,
        };
        if !self.is(explained, "PRAGMA") {
            return None;
        }
        let mut rest = &self.tokens[explained + 1..];
        if rest.get(1).is_some_and(|token| token.text == ".") {
            rest = &rest[2..];
        }
        let (first, rest) = rest.split_first()?;
        // The sign of a number is a token of its own.
        let value = rest
            .iter()
            .skip(1)
            .filter(|token| token.kind != Kind::Close && token.text != "+");
        let value: String = value.map(name).collect();
        Some(Pragma {
            name: name(first),
            value: (!rest.is_empty()).then_some(value),
        })
    }

    /// Returns why the statement would not do what it says.
    fn unsupported(&self, is_in_transaction: bool) -> Option<RefusedStatement> {
        if self.backend != Backend::Postgres {
            return None;
        }
        if self.tokens.first().is_some_and(|token| token.text == "\\") {
            let command = self.tokens.get(1).map_or("", |token| token.text);
            return Some(RefusedStatement::PsqlCommand(format!("\\{command}")));
        }
        let mut pairs = self.tokens.windows(2);
        if self.is(0, "COPY") && pairs.any(|pair| is(&pair[0], "FROM") && is(&pair[1], "STDIN")) {
            return Some(RefusedStatement::CopyFromStdin);
        }
        if !self.is(0, "SET") {
            return None;
        }
        // `SET local.name = …` sets a setting named `local.name`.
        let is_qualified = self.tokens.get(2).is_some_and(|token| token.text == ".");
        let is_local = self.is(1, "LOCAL") && !is_qualified;
        if is_local && !is_in_transaction {
            return Some(RefusedStatement::SetLocal);
        }
        let from = 1 + usize::from(is_local || self.is(1, "SESSION"));
        let sets_encoding = self.tokens.get(from).is_some_and(|token| {
            ["client_encoding", "names"]
                .iter()
                .any(|setting| name(token).eq_ignore_ascii_case(setting))
        });
        let value: String = self.tokens.last().map(name).unwrap_or_default();
        let is_utf8 = ["utf8", "utf-8", "unicode", "default"]
            .iter()
            .any(|encoding| value.eq_ignore_ascii_case(encoding));
        // `SET NAMES UTF-8` without quotes is not valid, so a value is one token.
        (sets_encoding && !is_utf8).then_some(RefusedStatement::Encoding)
    }
}

fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == Kind::Word && token.text.eq_ignore_ascii_case(word)
}

/// Returns a name or a value without its quotes.
fn name(token: &Token<'_>) -> String {
    let text = token.text;
    if token.kind != Kind::Quoted {
        return text.to_owned();
    }
    let quote = text.chars().next().unwrap_or_default();
    let inner = text.trim_matches(['"', '\'', '`', '[', ']']);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(in_transaction: bool) -> Migration {
        Migration {
            version: "1".to_owned(),
            name: "1_name".to_owned(),
            up: String::new(),
            down: None,
            in_transaction,
            checksum: String::new(),
            marked_checksum: None,
        }
    }

    #[track_caller]
    fn refused(
        sql: &str,
        backend: Backend,
        in_transaction: bool,
    ) -> Option<(usize, usize, RefusedStatement)> {
        match Script::check(&migration(in_transaction), sql, backend) {
            Ok(_) => None,
            Err(MigrationError::Refused {
                statement,
                line,
                reason,
                ..
            }) => Some((statement, line, reason)),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn transactions_are_refused_with_their_place() {
        for (sql, shown) in [
            ("BEGIN", "BEGIN"),
            ("begin work", "BEGIN WORK"),
            ("START TRANSACTION", "START TRANSACTION"),
            ("COMMIT", "COMMIT"),
            ("end", "END"),
            ("ROLLBACK", "ROLLBACK"),
            ("ABORT", "ABORT"),
            ("SAVEPOINT a", "SAVEPOINT A"),
            ("RELEASE a", "RELEASE A"),
            ("ROLLBACK TO a", "ROLLBACK TO"),
        ] {
            for backend in [Backend::Postgres, Backend::Sqlite] {
                let script = format!("SELECT 1; -- one;\n/* two; */ {sql} ; SELECT 2");
                let expected = (2, 2, RefusedStatement::InTransaction(shown.to_owned()));
                assert_eq!(refused(&script, backend, true), Some(expected), "{sql}");
            }
        }
        let trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END; SELECT 'COMMIT'; SELECT \"begin\"";
        assert_eq!(refused(trigger, Backend::Sqlite, true), None);
        let function = "DO $$ BEGIN COMMIT; END $$; CREATE FUNCTION f() RETURNS int AS $x$ BEGIN; END $x$ LANGUAGE plpgsql; \
                        CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT $$;COMMIT;$$";
        assert_eq!(refused(function, Backend::Postgres, true), None);
    }

    #[test]
    fn outside_a_transaction_each_begin_needs_its_commit() {
        for backend in [Backend::Postgres, Backend::Sqlite] {
            let complete = "BEGIN; SELECT 1; SAVEPOINT a; RELEASE a; COMMIT; VACUUM; BEGIN; END";
            assert_eq!(refused(complete, backend, false), None);
            for (sql, statement) in [
                ("SELECT 1; BEGIN; SELECT 2", 2),
                ("BEGIN; BEGIN; COMMIT", 2),
                ("BEGIN; ROLLBACK", 2),
                ("SELECT 1; COMMIT", 2),
                ("SAVEPOINT a", 1),
                ("BEGIN; COMMIT AND CHAIN", 2),
                ("BEGIN; PREPARE TRANSACTION 'a'", 2),
            ] {
                let found = refused(sql, backend, false).map(|(found, ..)| found);
                assert_eq!(found, Some(statement), "{sql}");
            }
        }
    }

    #[test]
    fn foreign_keys_are_set_at_the_beginning_in_each_spelling() {
        let set = |sql: &str| {
            Script::check(&migration(true), sql, Backend::Sqlite)
                .unwrap()
                .foreign_keys
        };
        for pragma in [
            "PRAGMA foreign_keys = OFF",
            "pragma FOREIGN_KEYS=0",
            "PRAGMA foreign_keys(false)",
            "PRAGMA main.foreign_keys = no",
            "PRAGMA \"foreign_keys\" = 'off'",
            "PRAGMA [main] . `foreign_keys` (-1)",
            "/* off */ PRAGMA legacy_alter_table = ON; PRAGMA foreign_keys = OFF",
        ] {
            let script = format!("-- a\n{pragma}; DROP TABLE a; PRAGMA foreign_keys = ON;");
            assert_eq!(set(&script), Some(false), "{pragma}");
        }
        assert_eq!(set("PRAGMA foreign_keys = +1; DROP TABLE a"), Some(true));
        assert_eq!(set("PRAGMA foreign_keys; DROP TABLE a"), None);
        assert_eq!(set("SELECT 'PRAGMA foreign_keys = OFF'"), None);
    }

    #[test]
    fn pragmas_without_effect_are_refused() {
        for (sql, statement) in [
            ("SELECT 1; PRAGMA foreign_keys = OFF; SELECT 2", 2),
            ("SELECT 1; PRAGMA foreign_keys = OFF", 2),
            ("PRAGMA foreign_keys = OFF", 1),
            ("PRAGMA journal_mode = DELETE; SELECT 1", 1),
            ("SELECT 1; EXPLAIN PRAGMA main.synchronous(0)", 2),
            ("EXPLAIN QUERY PLAN PRAGMA query_only = 1", 1),
        ] {
            let found = refused(sql, Backend::Sqlite, true);
            assert!(
                matches!(found, Some((found, _, RefusedStatement::Pragma(_))) if found == statement),
                "{sql}"
            );
        }
        let accepted = "PRAGMA user_version = 3; SELECT 1; PRAGMA table_info(a); PRAGMA journal_mode; PRAGMA foreign_key_check";
        assert_eq!(refused(accepted, Backend::Sqlite, true), None);
        let outside = "PRAGMA journal_mode = DELETE; VACUUM";
        assert_eq!(refused(outside, Backend::Sqlite, false), None);
        let inside = "BEGIN; PRAGMA foreign_keys = OFF; COMMIT";
        assert!(refused(inside, Backend::Sqlite, false).is_some());
    }

    #[test]
    fn input_for_psql_is_refused_and_its_restrictions_are_left_out() {
        let dump = "\u{feff}-- dump\n\\restrict aB3\n\nSET client_encoding = 'UTF8';\nCREATE TABLE a (b text DEFAULT '\n\\restrict x');\n\\unrestrict aB3\n";
        let text = executable(dump, Backend::Postgres);
        assert_eq!(
            text,
            "-- dump\n\n\nSET client_encoding = 'UTF8';\nCREATE TABLE a (b text DEFAULT '\n\\restrict x');\n\n"
        );
        assert_eq!(refused(&text, Backend::Postgres, true), None);
        for (sql, reason) in [
            (
                "COPY public.a (b) FROM stdin;\n1\n\\.\n",
                RefusedStatement::CopyFromStdin,
            ),
            (
                "\\connect other",
                RefusedStatement::PsqlCommand("\\connect".to_owned()),
            ),
            ("SET client_encoding = 'LATIN1'", RefusedStatement::Encoding),
        ] {
            assert_eq!(
                refused(sql, Backend::Postgres, true),
                Some((1, 1, reason)),
                "{sql}"
            );
        }
        let local = Some((1, 1, RefusedStatement::SetLocal));
        assert_eq!(
            refused("SET LOCAL search_path = a", Backend::Postgres, false),
            local
        );
        assert_eq!(
            refused("SET LOCAL search_path = a", Backend::Postgres, true),
            None
        );
        assert_eq!(
            refused("SET local.tenant = 'a'", Backend::Postgres, false),
            None
        );
    }
}
