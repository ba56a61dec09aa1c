//! Placeholders are found only outside literals, quoted names and comments. All other SQL is sent unchanged.

use db_service::{Connection, DatabaseService, DbError, Params, Value, params};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use tests::TestDatabase;

on_both_backends!(
    literals_and_comments_are_read_as_the_server_reads_them,
    parameter_count_is_limited_only_by_the_server,
);

/// Pieces of literals, quoted names and comments.
const CONTENT: &[&str] = &[
    ":b", ":b", "\\", "\\", "'", "''", "\"", "$", "$$", "$t$", "\n", "\r", "--", "/*", "*/", "a",
    " ", "`", "]", "é",
];
/// Opening and closing quotes.
const QUOTES: &[(&str, &str)] = &[
    ("'", "'"),
    ("'", "'"),
    ("E'", "'"),
    ("e'", "'"),
    ("U&'", "'"),
    ("$$", "$$"),
    ("$t$", "$t$"),
    ("N'", "'"),
    ("a$\"", "\""),
    ("\"c\" || \"", "\""),
    ("[", "]"),
    ("`", "`"),
];
/// Text between two quoted parts.
const SEPARATORS: &[&str] = &[
    "\n",
    "\n",
    "\r",
    " \t\n ",
    " -- ':b\n",
    "\n--\\\n",
    "/* :b */",
    "/* ' /* */",
    " ",
    " || ",
    " || ",
    "::text || ",
    " , ",
    "a$b",
    ")",
];

/// Cases that random SQL rarely contains: escape strings that continue after a line break, and names with a dollar
/// sign.
const RARE_CASES: &[&str] = &[
    "SELECT E'a'\n'\\':b' AS v",
    "SELECT E'a' -- it's\r\t'\\':b' AS v",
    "SELECT e'a'\n-- \\\n 'b'\n'\\':b' AS v",
    "SELECT E'a'\n'b' || '\\' || ':b' AS v",
    "SELECT 'a'\n'\\' || ':b' AS v",
    "SELECT U&'a'\n'\\\\' || ':b' AS v",
    "SELECT a$b || \"a$:b\" AS v FROM names",
    "SELECT names.a$b AS v FROM names",
];

/// Returns a `SELECT` of random literals, quoted names and comments. Many of them are not valid SQL.
fn random_select(random: &mut fastrand::Rng) -> String {
    let mut sql = "SELECT ".to_owned();
    for part in 0..random.usize(1..4) {
        if part > 0 {
            sql.push_str(random.choice(SEPARATORS).unwrap());
        }
        let (opening, closing) = random.choice(QUOTES).unwrap();
        sql.push_str(opening);
        for _ in 0..random.usize(..4) {
            sql.push_str(random.choice(CONTENT).unwrap());
        }
        sql.push_str(closing);
    }
    sql.push_str(" AS v FROM names");
    sql
}

#[derive(QueryableByName)]
struct Shown {
    #[diesel(sql_type = Nullable<Text>)]
    v: Option<String>,
}

/// An instruction of the bytecode that SQLite compiles a statement to.
#[derive(QueryableByName)]
struct Instruction {
    #[diesel(sql_type = Text)]
    opcode: String,
}

/// Returns `v` of the first row when diesel sends the SQL unchanged, or `None` if the server refuses it or returns no
/// `v`.
fn shown(connection: &mut Connection, sql: &str) -> Option<Option<String>> {
    connection.batch_execute(sql).ok()?;
    let rows: Vec<Shown> = diesel::sql_query(sql).load(connection).ok()?;
    rows.into_iter().map(|row| row.v).next()
}

/// Returns whether SQLite finds a parameter in the SQL. To PostgreSQL, `:b` is never a parameter.
fn has_parameters(connection: &mut Connection, sql: &str) -> bool {
    let Connection::Sqlite(connection) = connection else {
        return false;
    };
    let instructions: Vec<Instruction> = diesel::sql_query(format!("EXPLAIN {sql}"))
        .load(connection)
        .unwrap();
    instructions
        .iter()
        .any(|instruction| instruction.opcode == "Variable")
}

fn literals_and_comments_are_read_as_the_server_reads_them(database: &TestDatabase) {
    const COUNT: usize = 4000;
    let seed =
        std::env::var("FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    database.scope().run(|| {
        let table = "CREATE TABLE names (\":b\" TEXT, a$b TEXT, \"a$:b\" TEXT, a TEXT, c TEXT)";
        DatabaseService::execute_query(table, params! {}).unwrap();
        let row = "INSERT INTO names VALUES ('1', '2', '3', '4', '5')";
        DatabaseService::execute_query(row, params! {}).unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        let mut accepted = 0;
        let rare_cases = RARE_CASES.iter().map(|&sql| sql.to_owned());
        for sql in rare_cases.chain((0..COUNT).map(|_| random_select(&mut random))) {
            let Some(expected) = shown(&mut connection, &sql) else {
                continue;
            };
            accepted += 1;
            let found = connection.execute_query(&sql, params! {});
            if has_parameters(&mut connection, &sql) {
                assert!(
                    matches!(
                        found,
                        Err(DbError::MissingParameter { .. } | DbError::RawPlaceholder { .. })
                    ),
                    "{found:?} of {sql:?}, seed {seed}"
                );
            } else {
                let found = found.unwrap_or_else(|error| panic!("{error} in {sql:?}, seed {seed}"));
                assert_eq!(found[0]["v"], Value::from(expected), "{sql:?}, seed {seed}");
            }
        }
        assert!(
            accepted > COUNT / 20,
            "the server accepted only {accepted} of {COUNT}, seed {seed}"
        );
    });
}

/// The time grows linearly with the number of parameters. If each were compared with all others, this test would take
/// minutes.
fn parameter_count_is_limited_only_by_the_server(database: &TestDatabase) {
    let count = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("p{number}")).collect();
        let sql = format!("SELECT 7 AS n WHERE 5 IN (:{})", names.join(", :"));
        let params = names
            .into_iter()
            .zip(0..)
            .fold(Params::new(), |params, (name, number)| {
                params.with(name, number)
            });
        DatabaseService::execute_query(&sql, params)
    };
    let maximum = if database.url().starts_with("postgres") {
        65_535
    } else {
        32_766
    };
    database.scope().run(|| {
        assert_eq!(count(maximum).unwrap()[0].get::<i64>("n").unwrap(), 7);
        let error = count(maximum + 1).unwrap_err();
        assert!(matches!(error, DbError::Query(_)), "{error:?}");
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}
