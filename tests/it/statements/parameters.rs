//! Whatever a server takes as it stands holds no parameter, and is sent as it stands.

use db_service::{Connection, DatabaseService, DbError, Params, Value, params};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use tests::TestDatabase;

on_both_backends!(
    texts_are_taken_as_the_server_takes_them,
    a_statement_has_as_many_parameters_as_the_server_takes,
);

/// What texts, names and comments are made of.
const WITHIN: &[&str] = &[
    ":b", ":b", "\\", "\\", "'", "''", "\"", "$", "$$", "$t$", "\n", "\r", "--", "/*", "*/", "a",
    " ", "`", "]", "é",
];
const OPENED: &[(&str, &str)] = &[
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
const BETWEEN: &[&str] = &[
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

/// What chance seldom makes: texts with escapes that go on behind a line break, and names with a dollar sign.
const HARD: &[&str] = &[
    "SELECT E'a'\n'\\':b' AS v",
    "SELECT E'a' -- it's\r\t'\\':b' AS v",
    "SELECT e'a'\n-- \\\n 'b'\n'\\':b' AS v",
    "SELECT E'a'\n'b' || '\\' || ':b' AS v",
    "SELECT 'a'\n'\\' || ':b' AS v",
    "SELECT U&'a'\n'\\\\' || ':b' AS v",
    "SELECT a$b || \"a$:b\" AS v FROM names",
    "SELECT names.a$b AS v FROM names",
];

/// A `SELECT` of texts of all kinds, one behind the other; many are none that a server would take.
fn random_text(random: &mut fastrand::Rng) -> String {
    let mut sql = "SELECT ".to_owned();
    for part in 0..random.usize(1..4) {
        if part > 0 {
            sql.push_str(random.choice(BETWEEN).unwrap());
        }
        let (opening, closing) = random.choice(OPENED).unwrap();
        sql.push_str(opening);
        for _ in 0..random.usize(..4) {
            sql.push_str(random.choice(WITHIN).unwrap());
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

/// A step of the program that SQLite makes of a statement.
#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    opcode: String,
}

/// What the server shows when nobody takes the text apart; `None` where it refuses it, or shows no `v`.
fn shown(connection: &mut Connection, sql: &str) -> Option<Option<String>> {
    connection.batch_execute(sql).ok()?;
    let rows: Vec<Shown> = diesel::sql_query(sql).load(connection).ok()?;
    rows.into_iter().map(|row| row.v).next()
}

/// Only to SQLite is `:b` anything where it is no part of a text, a name or a comment.
fn has_parameters(connection: &mut Connection, sql: &str) -> bool {
    let Connection::Sqlite(connection) = connection else {
        return false;
    };
    let steps: Vec<Step> = diesel::sql_query(format!("EXPLAIN {sql}"))
        .load(connection)
        .unwrap();
    steps.iter().any(|step| step.opcode == "Variable")
}

fn texts_are_taken_as_the_server_takes_them(database: &TestDatabase) {
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
        let mut taken = 0;
        let hard = HARD.iter().map(|&sql| sql.to_owned());
        for sql in hard.chain((0..COUNT).map(|_| random_text(&mut random))) {
            let Some(expected) = shown(&mut connection, &sql) else {
                continue;
            };
            taken += 1;
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
            taken > COUNT / 20,
            "only {taken} of {COUNT} were taken, seed {seed}"
        );
    });
}

/// Twice as many take twice as long: if each were compared with all others, this would take minutes.
fn a_statement_has_as_many_parameters_as_the_server_takes(database: &TestDatabase) {
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
    let most = if database.url().starts_with("postgres") {
        65_535
    } else {
        32_766
    };
    database.scope().run(|| {
        assert_eq!(count(most).unwrap()[0].get::<i64>("n").unwrap(), 7);
        let error = count(most + 1).unwrap_err();
        assert!(matches!(error, DbError::Query(_)), "{error:?}");
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}
