//! No error shows a value, whatever the language of the server's messages.
//!
//! Statements that fail with a value in the message get random secrets, which are hard to separate from the text around
//! them. `FUZZ_INPUTS` sets the number of secrets per server (default 1,500). `FUZZ_SEED` repeats a run.

use db_service::{
    ConfigService, DatabaseConfig, DatabaseService, DbError, ServerError, params, values,
};
use diesel::connection::SimpleConnection;
use diesel::result::Error as DieselError;
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestServer};

use crate::reporting::errors::causes::causes;
use crate::reporting::logs;

/// A statement that fails, and the place of the secret in it.
#[derive(Debug, Clone, Copy)]
enum FailingStatement {
    /// The secret is in the parameter `:p`, between this prefix and this suffix.
    Parameter(&'static str, &'static str, &'static str),
    /// The secret replaces `{}` inside a literal or comment of the statement.
    Spliced(&'static str),
    /// The secret number is the parameter `:p`.
    Number(&'static str),
    /// The secret replaces `{}` in SQL that is sent unchanged.
    Raw(&'static str),
}

use FailingStatement::{Number, Parameter, Raw, Spliced};

/// A secret text with a marker that no other text contains, and a secret number.
struct Secret {
    text: String,
    marker: String,
    number: i64,
}

/// The letters of markers. No message contains four of them in a row.
const LETTERS: &[u8] = b"jkqvwxz";

/// Text around a marker: pieces of messages, and characters that end a quotation.
const SURROUNDINGS: &[&str] = &[
    "",
    "",
    "",
    "",
    " ",
    "\n",
    "\t",
    "'",
    "''",
    "\"",
    "\"\"",
    "«",
    "» ",
    "„",
    "”",
    "`",
    "[",
    "]",
    "(",
    ")",
    ")=(",
    "{",
    "}",
    ":",
    ";",
    "\\",
    "%",
    "$",
    "é",
    "日本",
    "1",
    "-",
    "--",
    "/*",
    "\u{2028}",
    "\u{202e}",
    "\u{1b}",
    "relation \"",
    "column \"x\" of relation \"",
    "\" is out of range for type ",
    "\nDETAIL: ",
    "deadlock detected",
    "database is locked",
    "no such table: ",
    "UNIQUE constraint failed: ",
    "duplicate key value violates unique constraint \"",
    "n'existe pas",
    "terminating connection",
    "Key (a)=(",
];

impl Secret {
    fn random(random: &mut fastrand::Rng) -> Self {
        let marker: String = (0..12)
            .map(|_| char::from(LETTERS[random.usize(..LETTERS.len())]))
            .collect();
        let mut around = || SURROUNDINGS[random.usize(..SURROUNDINGS.len())];
        let text = format!("{}{}{marker}{}{}", around(), around(), around(), around());
        Secret {
            text,
            marker,
            number: random.i64(1_000_000_007..2_000_000_000),
        }
    }

    /// Returns whether a text contains four consecutive letters of the marker, or the number.
    fn appears_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let has = |part: &[u8]| {
            text.as_bytes()
                .windows(part.len())
                .any(|window| window == part)
        };
        self.marker.as_bytes().windows(4).any(has) || has(self.number.to_string().as_bytes())
    }
}

const ON_POSTGRES: &[FailingStatement] = &[
    // Input functions of types.
    Parameter("SELECT :p::int", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS smallint)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS bigint)", "", ""),
    Parameter(
        "SELECT CAST(CAST(:p AS text) AS bigint)",
        "99999999999999999999",
        "",
    ),
    Parameter("SELECT CAST(CAST(:p AS text) AS numeric)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS real)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS float8)", "1e999", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS money)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS bool)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS date)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS date)", "2020-13-45 ", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS time)", "", ""),
    Parameter(
        "SELECT CAST(CAST(:p AS text) AS timestamp)",
        "2020-01-01 99:",
        "",
    ),
    Parameter(
        "SELECT CAST(CAST(:p AS text) AS timestamptz)",
        "2020-01-01 00:00 ",
        "",
    ),
    Parameter("SELECT CAST(CAST(:p AS text) AS interval)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS uuid)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS json)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS json)", "{\"a\": ", "}"),
    Parameter("SELECT CAST(CAST(:p AS text) AS jsonb)", "[\"\\u00", "\"]"),
    Parameter("SELECT CAST(CAST(:p AS text) AS jsonpath)", "$.", " ]"),
    Parameter("SELECT CAST(CAST(:p AS text) AS xml)", "<a>", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS inet)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS cidr)", "10.0.0.0/", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS macaddr)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS point)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS bit(3))", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS varbit)", "x", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS bytea)", "\\x", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS int[])", "{", "}"),
    Parameter("SELECT CAST(CAST(:p AS text) AS int[])", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS text[])", "{{a},{", "}"),
    Parameter("SELECT CAST(CAST(:p AS text) AS int4range)", "[", ",2)"),
    Parameter("SELECT CAST(CAST(:p AS text) AS int4multirange)", "{", "}"),
    Parameter("SELECT CAST(CAST(:p AS text) AS tsquery)", "a & ", " & ("),
    Parameter("SELECT CAST(CAST(:p AS text) AS tsvector)", "'", ":"),
    Parameter("SELECT CAST(CAST(:p AS text) AS pg_lsn)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS oid)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS mood)", "", ""),
    Parameter("SELECT CAST(CAST(:p AS text) AS pair)", "(1,", ")"),
    Parameter("SELECT CAST(CAST(:p AS text) AS even)", "", ""),
    // Functions.
    Parameter("SELECT to_date(:p, 'YYYY-MM-DD')", "", ""),
    Parameter("SELECT to_timestamp(:p, 'Day Month')", "", ""),
    Parameter("SELECT to_number(:p, '999')", "", ""),
    Parameter("SELECT 'x' ~ :p", "(", ""),
    Parameter("SELECT 'x' ~ :p", "[[:", ":]]"),
    Parameter("SELECT regexp_match('x', 'y', :p)", "", ""),
    Parameter("SELECT decode(:p, 'hex')", "", ""),
    Parameter("SELECT decode(:p, 'base64')", "", "*"),
    Parameter("SELECT convert_to(:p, 'LATIN1')", "日", ""),
    Parameter("SELECT set_config('work_mem', :p, false)", "", ""),
    Parameter("SELECT set_config('datestyle', :p, false)", "", ""),
    Parameter("SELECT now() AT TIME ZONE :p", "", ""),
    Parameter("SELECT date_trunc(:p, now())", "", ""),
    Parameter(
        "SELECT extract(epoch FROM CAST(CAST(:p AS text) AS interval))",
        "",
        "",
    ),
    Parameter("SELECT xpath(:p, '<a/>')", "//", "["),
    Parameter("SELECT xmlparse(DOCUMENT :p)", "", ""),
    Parameter("SELECT format(:p)", "%", "q"),
    Parameter(
        "SELECT jsonb_path_query('{}', CAST(CAST(:p AS text) AS jsonpath))",
        "strict $.",
        "",
    ),
    Parameter("SELECT jsonb_set('[1]', ARRAY[:p], '1')", "", ""),
    Parameter("SELECT pg_read_file(:p)", "/nowhere/", ""),
    Parameter(
        "SELECT pg_notify(:p, '')",
        "",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ),
    Parameter(
        "SELECT CAST(get_byte(convert_to(:p, 'UTF8'), 0) AS int) / 0",
        "",
        "",
    ),
    Parameter("SELECT encode('x', :p)", "", ""),
    // Errors that functions and triggers raise.
    Parameter("SELECT raises(:p)", "", ""),
    Parameter("SELECT raises_in_full(:p, 'unique_violation')", "", ""),
    Parameter("SELECT raises_in_full(:p, 'check_violation')", "", ""),
    Parameter("SELECT raises_in_full(:p, 'not_null_violation')", "", ""),
    Parameter("SELECT raises_in_full(:p, 'foreign_key_violation')", "", ""),
    Parameter("SELECT raises_in_full(:p, 'serialization_failure')", "", ""),
    Parameter("SELECT raises_in_full(:p, 'P0001')", "", ""),
    Parameter("SELECT executes(:p)", "'", "'::int"),
    Parameter("INSERT INTO guarded (v) VALUES (:p)", "", ""),
    // Constraints.
    Parameter("INSERT INTO t (v) VALUES (:p), (:p)", "", ""),
    Parameter("INSERT INTO t (w) VALUES (:p), (:p)", "", ""),
    Parameter("INSERT INTO t (v, n) VALUES (:p, -1)", "", ""),
    Parameter("INSERT INTO t (v, must) VALUES (:p, NULL)", "", ""),
    Parameter("INSERT INTO t (parent) VALUES (:p)", "", ""),
    Parameter("INSERT INTO t (brief) VALUES (:p)", "", "xxxxxxxx"),
    Parameter("INSERT INTO parts (v) VALUES (:p)", "", ""),
    Number("INSERT INTO t (n) VALUES (:p), (:p)"),
    Number("INSERT INTO t (n) VALUES (-:p)"),
    Number(
        "INSERT INTO spans (r) VALUES (int8range(:p::bigint, :p::bigint + 2)), (int8range(:p::bigint, :p::bigint + 3))",
    ),
    Number("SELECT int4range(:p::int, :p::int - 1)"),
    Number("SELECT :p::int::smallint"),
    Number("SELECT :p::int * :p::int"),
    Number("SELECT CAST('2000-01-01' AS date) + CAST(:p AS int) + CAST(:p AS int)"),
    Number("SELECT make_date(CAST(:p AS int), 1, 1)"),
    Number("SELECT (:p::numeric)::numeric(3, 1)"),
    Number("SELECT chr(:p::int)"),
    Number("SELECT setval('counter', :p::bigint)"),
    // Statements.
    Spliced("SELEC '{}'"),
    Spliced("SELECT '{}' x y"),
    Spliced("SELECT '{}'::int"),
    Spliced("SELECT '{}"),
    Spliced("SELECT E'\\u00{}'"),
    Spliced("SELECT U&'\\00{}'"),
    Spliced("SELECT $x${}$x$ y z"),
    Spliced("SELECT $x${}"),
    Spliced("SELECT B'{}'"),
    Spliced("SELECT X'{}'"),
    Spliced("SELECT 1; '{}'"),
    Spliced("SELECT 1 /* '{}"),
    Spliced("SELECT date '{}'"),
    Spliced("SELECT $1 || '{}'"),
    Raw("PREPARE ready (text) AS SELECT $1::int; EXECUTE ready('{}')"),
    Raw("DEALLOCATE ALL; PREPARE ready (int) AS SELECT $1; EXECUTE ready('{}')"),
    Raw("DO $x$ BEGIN RAISE EXCEPTION '%', '{}'; END $x$"),
    Raw("ALTER TABLE t ALTER n SET DEFAULT '{}'"),
    Raw("SET work_mem = '{}'"),
    Raw("COPY t FROM '/nowhere/{}'"),
];

const POSTGRES_SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE pair AS (a int, b int);
    CREATE DOMAIN even AS text CONSTRAINT is_even CHECK (length(VALUE) < 2);
    CREATE SEQUENCE counter MAXVALUE 10;
    CREATE TABLE parents (v text PRIMARY KEY);
    CREATE TABLE t (v text UNIQUE, w text, n bigint UNIQUE CHECK (n >= 0), must int NOT NULL DEFAULT 1,
        parent text REFERENCES parents, brief varchar(5));
    CREATE UNIQUE INDEX lower_w ON t (lower(w), (w || ')=('));
    CREATE TABLE spans (r int8range, EXCLUDE USING gist (r WITH &&));
    CREATE TABLE parts (v text) PARTITION BY LIST (v);
    CREATE FUNCTION raises(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', v; END $$;
    CREATE FUNCTION raises_in_full(v text, code text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'it is %', v USING ERRCODE = code, DETAIL = 'Key (' || v || ')=(' || v || ') is wrong', HINT = v; END $$;
    CREATE FUNCTION executes(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT ' || v; RETURN 1; END $$;
    CREATE TABLE guarded (v text);
    CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'the value % of column % is not allowed', NEW.v, 'v'; END $$;
    CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
";

const ON_SQLITE: &[FailingStatement] = &[
    // Full text.
    Parameter("SELECT * FROM texts WHERE texts MATCH :p", "", ":x"),
    Parameter("SELECT * FROM texts WHERE texts MATCH :p", "\"", ""),
    Parameter("SELECT * FROM texts WHERE texts MATCH :p", "", " AND"),
    Parameter("SELECT * FROM texts WHERE texts MATCH :p", "(", ""),
    Parameter("SELECT * FROM texts WHERE texts MATCH :p", "- ", ""),
    Parameter("INSERT INTO texts (texts) VALUES (:p)", "", ""),
    Parameter("INSERT INTO texts (texts, rank) VALUES (:p, 1)", "", ""),
    Parameter(
        "INSERT INTO texts (texts, rank) VALUES ('rank', :p)",
        "",
        "(",
    ),
    // JSON.
    Parameter("SELECT json_extract('{}', :p)", "", ""),
    Parameter("SELECT json_extract('{\"a\": []}', :p)", "$.a[", ""),
    Parameter("SELECT '{}' ->> :p", "$", ""),
    Parameter("SELECT json_set('{}', :p, 1)", "", ""),
    Parameter("SELECT json(:p)", "", ""),
    Parameter("SELECT * FROM json_each(:p)", "[", ""),
    Parameter("SELECT * FROM json_each('{}', :p)", "", ""),
    // Files, schemas and pragmas.
    Parameter("VACUUM INTO :p", "/nowhere/", "/x.db"),
    Parameter("ATTACH :p AS other", "/nowhere/", "/x.db"),
    Parameter("ATTACH :p AS other", "file:x?vfs=", ""),
    Parameter("DETACH :p", "", ""),
    Parameter("SELECT * FROM pragma_integrity_check(:p)", "", ""),
    Parameter("SELECT * FROM pragma_quick_check(:p)", "", ""),
    Parameter("SELECT * FROM pragma_foreign_key_check(:p)", "", ""),
    Parameter("SELECT * FROM pragma_table_info('t', :p)", "", ""),
    Parameter("SELECT * FROM pragma_index_list('t', :p)", "", ""),
    Parameter("SELECT load_extension(:p)", "", ""),
    Parameter("SELECT 'x' LIKE 'y' ESCAPE :p", "", ""),
    Parameter("SELECT unistr(:p)", "\\", ""),
    // Constraints.
    Parameter("INSERT INTO t (v) VALUES (:p), (:p)", "", ""),
    Parameter("INSERT INTO t (w) VALUES (:p), (:p)", "", ""),
    Parameter("INSERT INTO t (v, n) VALUES (:p, -1)", "", ""),
    Parameter("INSERT INTO t (v, must) VALUES (:p, NULL)", "", ""),
    Parameter("INSERT INTO t (parent) VALUES (:p)", "", ""),
    Parameter("INSERT INTO strict_ (n) VALUES (:p)", "", ""),
    Number("INSERT INTO t (n) VALUES (:p), (:p)"),
    Number("INSERT INTO t (n) VALUES (-:p)"),
    Number("SELECT zeroblob(:p * 100)"),
    Number("SELECT sum(9223372036854775807) FROM (SELECT :p UNION SELECT 1)"),
    // Statements.
    Spliced("SELEC '{}'"),
    Spliced("SELECT '{}' x y"),
    Spliced("SELECT '{}"),
    Spliced("SELECT X'{}'"),
    Spliced("SELECT 1; '{}'"),
    Spliced("SELECT 1; -- '{}'\n'{}'"),
    Spliced("SELECT ? || '{}'"),
    Spliced("SELECT nothing('{}')"),
    Spliced("SELECT * FROM pragma_integrity_check('{}')"),
    Raw(
        "CREATE TABLE checked (v CHECK (v <> '{}')); INSERT INTO checked VALUES ('{}'); DROP TABLE checked",
    ),
    Raw(
        "DROP TABLE IF EXISTS checked; CREATE TABLE checked (v CHECK (v IN ('{}'))); INSERT INTO checked VALUES (1)",
    ),
    Raw(
        "DROP TRIGGER IF EXISTS guard; CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, '{}'); END; \
         INSERT INTO guarded VALUES (1)",
    ),
    Raw("CREATE VIRTUAL TABLE more USING fts5(x, tokenize = '{}')"),
    Raw("CREATE VIRTUAL TABLE more USING fts5(x, '{}')"),
];

const SQLITE_SCHEMA: &str = "
    CREATE VIRTUAL TABLE texts USING fts5(body);
    CREATE TABLE parents (v TEXT PRIMARY KEY);
    CREATE TABLE t (v TEXT UNIQUE, w TEXT, n INTEGER UNIQUE CHECK (n >= 0), must INTEGER NOT NULL DEFAULT 1,
        parent TEXT REFERENCES parents);
    CREATE UNIQUE INDEX lower_w ON t (lower(w));
    CREATE TABLE strict_ (n INTEGER) STRICT;
    CREATE TABLE guarded (v);
";

fn inputs() -> usize {
    std::env::var("FUZZ_INPUTS").map_or(1_500, |count| count.parse().unwrap())
}

/// Returns everything that an error and its causes show.
fn shown(error: DbError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    for cause in causes(&error) {
        text += &format!(" {cause} {cause:?} {cause:#?}");
    }
    // `{:?}` would include a backtrace, which takes long and adds nothing.
    let error = anyhow::Error::from(error).context("it failed");
    text + &format!(" {error:#}")
}

/// Returns the server's message with its details and its hint, as the driver has them.
fn server_message(error: &DbError) -> String {
    let server = causes(error).find_map(|cause| cause.downcast_ref::<ServerError>());
    match server.map(ServerError::driver_error) {
        Some(DieselError::DatabaseError(_, information)) => [
            Some(information.message()),
            information.details(),
            information.hint(),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" "),
        _ => String::new(),
    }
}

fn run(statement: FailingStatement, secret: &Secret) -> Result<(), DbError> {
    let literal = secret.text.replace('\'', "''");
    match statement {
        Parameter(sql, prefix, suffix) => {
            let value = format!("{prefix}{}{suffix}", secret.text);
            DatabaseService::execute_query(sql, params! { "p" => value }).map(drop)
        }
        Number(sql) => {
            DatabaseService::execute_query(sql, params! { "p" => secret.number }).map(drop)
        }
        Spliced(sql) => {
            let sql = sql.replace("{}", &literal);
            DatabaseService::execute_query(&sql, params! {}).map(drop)
        }
        Raw(sql) => {
            let sql = sql.replace("{}", &literal.replace('$', ""));
            let mut connection = DatabaseService::connection()?;
            connection.batch_execute(&sql).map_err(DbError::from)
        }
    }
}

/// Runs the statements in round-robin order, each time with another secret.
fn fuzz(statements: &[FailingStatement]) {
    logs::capture();
    let seed =
        std::env::var("FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut failures = vec![0; statements.len()];
    let mut with_secret = 0;
    for round in 0..inputs().max(2 * statements.len()) {
        let (index, secret) = (round % statements.len(), Secret::random(&mut random));
        let Err(error) = run(statements[index], &secret) else {
            continue;
        };
        failures[index] += 1;
        with_secret += usize::from(secret.appears_in(&server_message(&error)));
        let message = server_message(&error);
        let is_misclassified = matches!(
            error,
            DbError::ConnectionLost(_)
                | DbError::Deadlock(_)
                | DbError::DiskFull(_)
                | DbError::LockTimeout(_)
                | DbError::StatementTimeout(_)
        );
        assert!(!is_misclassified, "{error:?}: {message:?}");
        let shown = shown(error);
        assert!(
            !secret.appears_in(&shown),
            "{:?}, secret {:?}: {message:?} is shown as {shown}",
            statements[index],
            secret.text
        );
        let one_line = shown
            .lines()
            .all(|line| !line.contains(['\u{1b}', '\u{2028}', '\u{202e}']));
        assert!(one_line, "{shown:?}");
        assert_eq!(logs::lines_with(&secret.marker), [""; 0]);
    }
    let never_failed: Vec<_> = statements
        .iter()
        .zip(&failures)
        .filter(|(_, count)| **count == 0)
        .collect();
    assert!(
        never_failed.is_empty(),
        "these statements never fail: {never_failed:#?}"
    );
    let all: usize = failures.iter().sum();
    println!("{all} errors, {with_secret} of them with a secret in the server's message");
    assert!(with_secret > all / 3, "{with_secret} of {all}");
}

/// Checks the errors that only Rust code can cause: wrong types, bulk inserts and too many parameters.
fn assert_rust_values_are_not_shown(is_postgres: bool) {
    let secret = Secret::random(&mut fastrand::Rng::new());
    let mut errors = Vec::new();
    let rows =
        DatabaseService::execute_query("SELECT :p AS v", params! { "p" => secret.text.as_str() });
    let rows = rows.unwrap();
    errors.push(rows[0].get::<i64>("v").unwrap_err());
    errors.push(rows[0].get::<bool>("w").unwrap_err());
    let rows = || [values![secret.text.as_str(), 1, 1]];
    let insert = DatabaseService::bulk_insert("t", &["v", "n", "must"], rows());
    insert.unwrap();
    errors.push(DatabaseService::bulk_insert("t", &["v", "n", "must"], rows()).unwrap_err());
    if is_postgres {
        let rows = || [values![1, secret.text.as_str()]];
        errors.push(DatabaseService::bulk_insert("t", &["must", "n"], rows()).unwrap_err());
    }
    // More parameters than PostgreSQL, libpq or SQLite accepts.
    let names: Vec<String> = (0..70_000).map(|number| format!("p{number}")).collect();
    let sql = format!("SELECT 1 WHERE '' IN (:{})", names.join(", :"));
    let many = names.iter().fold(params! {}, |params, name| {
        params.with(name.clone(), secret.text.as_str())
    });
    errors.push(DatabaseService::execute_query(&sql, many).unwrap_err());
    for error in errors {
        let shown = shown(error);
        assert!(!secret.appears_in(&shown), "{shown}");
    }
}

#[test]
fn sqlite_errors_do_not_show_values() {
    TestDatabase::sqlite().scope().run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(SQLITE_SCHEMA)
            .unwrap();
        assert_rust_values_are_not_shown(false);
        fuzz(ON_SQLITE);
    });
}

#[test]
fn postgres_errors_do_not_show_values() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(POSTGRES_SCHEMA)
            .unwrap();
        assert_rust_values_are_not_shown(true);
        fuzz(ON_POSTGRES);
    });
}

#[test]
fn french_postgres_errors_do_not_show_values() {
    let Some(server) = TestServer::start_in_language("fr_FR") else {
        return;
    };
    let config = DatabaseConfig::new(server.url().parse().unwrap());
    Scope::new().provide(ConfigService::new(config)).run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(POSTGRES_SCHEMA)
            .unwrap();
        assert_rust_values_are_not_shown(true);
        fuzz(ON_POSTGRES);
        singleton_core::registry().shutdown_all();
    });
}

/// Messages without values stay complete, and names stay readable beside redacted values.
#[test]
fn postgres_errors_show_names() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        DatabaseService::connection().unwrap().batch_execute(POSTGRES_SCHEMA).unwrap();
        for (sql, expected) in [
            ("SELECT * FROM nowhere", "relation \"nowhere\" does not exist"),
            ("SELECT * FROM \"No \u{1b} where\"", r#"relation "No \u{1b} where" does not exist"#),
            ("SELECT x FROM t", "column \"x\" does not exist"),
            ("SELECT t.x FROM t", "column t.x does not exist"),
            ("SELECT u.x FROM t", "missing FROM-clause entry for table \"u\""),
            ("UPDATE t SET x = 1", "column \"x\" of relation \"t\" does not exist"),
            ("SELECT f(1, 'a'::text)", "function f(integer, text) does not exist"),
            ("SELECT 1 + 'a'::text", "operator does not exist: integer + text"),
            ("SELECT 'a'::nothing", "type \"nothing\" does not exist"),
            ("CREATE TABLE t ()", "relation \"t\" already exists"),
            ("SELECT v FROM t, parents", "column reference \"v\" is ambiguous"),
            (
                "SELECT v, count(*) FROM t",
                "column \"t.v\" must appear in the GROUP BY clause or be used in an aggregate function",
            ),
            ("SELECT 1 / 0", "division by zero"),
            ("SELECT 'hush'::int", "invalid input syntax for type integer: \"…\""),
            ("SELECT 'hush'::mood", "invalid input value for enum mood: \"…\""),
            ("SELECT '99999999999'::int", "value \"…\" is out of range for type integer"),
            ("INSERT INTO t (brief) VALUES ('too long')", "value too long for type character varying(5)"),
            ("SELEC 1", "syntax error at or near \"SELEC\""),
            ("SELECT 1 FROM t WHERE )", "syntax error at or near \")\""),
            ("SELECT 1 x y 'hush'", "syntax error at or near \"y\""),
            ("SELECT 'hush' x hush", "syntax error at or near \"…\""),
            ("SELECT 1 'hush'", "syntax error at or near \"…\""),
            ("SELECT 1 x 4711", "syntax error at or near \"…\""),
            ("SELECT 1 x $$hush$$", "syntax error at or near \"…\""),
            ("SELECT (", "syntax error at end of input"),
            (
                "INSERT INTO t (must) VALUES (NULL)",
                "null value in column \"must\" of relation \"t\" violates not-null constraint",
            ),
            (
                "INSERT INTO t (v) VALUES ('hush'), ('hush')",
                "duplicate key value violates unique constraint \"t_v_key\"",
            ),
            (
                "INSERT INTO t (parent) VALUES ('hush')",
                "insert or update on table \"t\" violates foreign key constraint \"t_parent_fkey\"",
            ),
            (
                "INSERT INTO t (n) VALUES (-1)",
                "new row for relation \"t\" violates check constraint \"t_n_check\"",
            ),
            (
                "INSERT INTO spans VALUES ('[1,3)'), ('[2,4)')",
                "conflicting key value violates exclusion constraint \"spans_r_excl\"",
            ),
            ("SELECT 'hush'::text::even", "value for domain even violates check constraint \"is_even\""),
            ("SELECT nextval('nothing')", "relation \"nothing\" does not exist"),
            ("SET nothing = 1", "unrecognized configuration parameter \"nothing\""),
            ("SET work_mem = 'hush'", "invalid value for parameter \"work_mem\": \"…\""),
            ("DROP TABLE parents", "cannot drop table parents because other objects depend on it"),
            ("VACUUM nowhere", "relation \"nowhere\" does not exist"),
            ("SELECT (SELECT 1 UNION SELECT 2)", "more than one row returned by a subquery used as an expression"),
            ("SELECT max(max(n)) FROM t", "aggregate function calls cannot be nested"),
            ("SELECT n FROM t WHERE max(n) = 1", "aggregate functions are not allowed in WHERE"),
            ("CREATE TABLE y (a int CHECK ((SELECT true)))", "cannot use subquery in check constraint"),
            ("SET ROLE nobody_known", "role \"nobody_known\" does not exist"),
            ("SELECT pg_sleep('hush')", "invalid input syntax for type double precision: \"…\""),
        ] {
            let error = DatabaseService::execute_query(sql, params! {}).unwrap_err();
            let shown = error.to_string();
            assert!(shown.ends_with(&format!(": {expected}")), "{sql}: {shown}: {}", server_message(&error));
        }
        let error = DatabaseService::transaction(|connection| {
            connection.execute_query("SELECT 1 / 0", params! {}).unwrap_err();
            connection.execute_query("SELECT 1", params! {})
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("current transaction is aborted"), "{error}");
    });
}

#[test]
fn sqlite_errors_show_names() {
    TestDatabase::sqlite().scope().run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(SQLITE_SCHEMA)
            .unwrap();
        for (sql, expected) in [
            ("SELECT * FROM nowhere", "no such table: nowhere"),
            ("SELECT * FROM x.nowhere", "no such table: x.nowhere"),
            ("SELECT legs FROM t", "no such column: legs"),
            ("SELECT t.legs FROM t", "no such column: t.legs"),
            (
                "SELECT * FROM pragma_integrity_check('hush')",
                "no such table: …",
            ),
            ("SELECT unheard_of(1)", "no such function: unheard_of"),
            (
                "INSERT INTO t (legs) VALUES (1)",
                "table t has no column named legs",
            ),
            (
                "INSERT INTO t VALUES (1)",
                "table t has 5 columns but 1 values were supplied",
            ),
            ("CREATE TABLE t (a)", "table t already exists"),
            ("SELECT v FROM t, parents", "ambiguous column name: v"),
            (
                "INSERT INTO t (v) VALUES ('hush'), ('hush')",
                "UNIQUE constraint failed: t.v",
            ),
            (
                "INSERT INTO t (must) VALUES (NULL)",
                "NOT NULL constraint failed: t.must",
            ),
            (
                "INSERT INTO t (parent) VALUES ('hush')",
                "FOREIGN KEY constraint failed",
            ),
            (
                "INSERT INTO t (n) VALUES (-1)",
                "CHECK constraint failed: …",
            ),
            (
                "INSERT INTO strict_ VALUES ('hush')",
                "cannot store TEXT value in INTEGER column strict_.n",
            ),
            ("SELECT json('hush')", "malformed JSON"),
            ("SELEC 'hush'", "near \"SELEC\": syntax error"),
            ("SELECT 1 FROM t WHERE )", "near \")\": syntax error"),
            ("SELECT 1 x y 'hush'", "near \"y\": syntax error"),
            ("SELECT 1 x 'hush'", "near \"…\": syntax error"),
            ("SELECT 1 x 4711", "near \"…\": syntax error"),
            ("SELECT 'hush", "unrecognized token: \"…\""),
            ("SELECT (", "incomplete input"),
        ] {
            let error = DatabaseService::execute_query(sql, params! {}).unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.ends_with(&format!(": {expected}")),
                "{sql}: {shown}: {}",
                server_message(&error)
            );
        }
    });
}
