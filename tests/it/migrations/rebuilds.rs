//! SQLite: tables that a migration rebuilds, and pragmas in migrations.

use db_service::{DatabaseService, DbError, MigrationError, Migrations, RefusedStatement, params};
use tests::TestDatabase;

use super::{migration, outside, source};

const PARENTS: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parents ON DELETE CASCADE);
INSERT INTO parents VALUES (1, 'a'), (2, 'b');
INSERT INTO children VALUES (10, 1), (20, 2)";

const REBUILD: &str = "-- The procedure of SQLite's documentation.
PRAGMA foreign_keys=OFF;
CREATE TABLE new_parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO new_parents SELECT id, name FROM parents;
DROP TABLE parents;
ALTER TABLE new_parents RENAME TO parents;
PRAGMA foreign_key_check;
PRAGMA foreign_keys=ON;";

fn run(source: &Migrations) -> Result<Vec<String>, DbError> {
    DatabaseService::run_migrations(source)
}

fn count(sql: &str) -> i64 {
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    rows[0].get("n").unwrap()
}

fn children() -> i64 {
    count("SELECT count(*) AS n FROM children")
}

/// Returns whether foreign keys are enforced on the pool's only connection.
fn is_enforced() -> bool {
    count("SELECT foreign_keys AS n FROM pragma_foreign_keys") == 1
}

/// Runs `test` with a pool of one connection, in a database with parents and children.
fn with_parents(test: impl FnOnce()) {
    let database = TestDatabase::sqlite();
    let scope = database.scope_with(|config| {
        config.pool_size = 1;
        config.max_overflow = 0;
    });
    scope.run(|| {
        run(&source("", const { &[migration("001_a", PARENTS, None)] })).unwrap();
        test();
    });
}

#[test]
fn documented_procedure_keeps_the_rows_of_children() {
    with_parents(|| {
        let after = "INSERT INTO children VALUES (30, 99)";
        let rebuild = source(
            "",
            const {
                &[
                    migration("002_b", REBUILD, Some(REBUILD)),
                    migration("003_c", "SELECT 1", None),
                ]
            },
        );
        assert_eq!(run(&rebuild).unwrap(), ["002", "003"]);
        assert_eq!(children(), 2);
        assert!(is_enforced());
        let error = DatabaseService::execute_query(after, params! {}).unwrap_err();
        assert!(
            matches!(error, DbError::ForeignKeyViolation { .. }),
            "{error}"
        );
        let orphan = source(
            "x",
            const {
                &[migration(
                    "004_d",
                    "INSERT INTO children VALUES (30, 99)",
                    None,
                )]
            },
        );
        assert!(
            run(&orphan).is_err(),
            "foreign keys hold in the next migration"
        );
        let last = source("y", const { &[migration("002_b", REBUILD, Some(REBUILD))] });
        run(&last).unwrap();
        assert_eq!(
            DatabaseService::revert_migrations(&last, 1).unwrap(),
            ["002"]
        );
        assert_eq!((children(), is_enforced()), (2, true));
    });
}

#[test]
fn rebuild_outside_a_transaction_keeps_the_rows_of_children() {
    with_parents(|| {
        let next = migration("003_c", "INSERT INTO children VALUES (30, 99)", None);
        let script = "PRAGMA foreign_keys=OFF; BEGIN; CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p SELECT id FROM parents; \
                      DROP TABLE parents; ALTER TABLE p RENAME TO parents; COMMIT";
        let steps = [outside("002_b", script, None), next];
        let error = run(&source("", Box::leak(Box::new(steps)))).unwrap_err();
        assert!(
            error.to_string().contains("003_c failed"),
            "foreign keys are on again: {error}"
        );
        assert_eq!((children(), is_enforced()), (2, true));
    });
}

#[test]
fn drop_that_would_cascade_is_refused() {
    with_parents(|| {
        let lossy = "CREATE TABLE p AS SELECT * FROM parents; DROP TABLE parents; ALTER TABLE p RENAME TO parents";
        let lossy = source("", Box::leak(Box::new([migration("002_b", lossy, None)])));
        let error = run(&lossy).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::CascadingDrop { table, child, .. }) if table == "parents" && child == "children"),
            "{error}"
        );
        assert_eq!(children(), 2);
        let wanted = "DROP TABLE IF EXISTS main.\"parents\"; DROP TABLE children";
        let wanted = source("", Box::leak(Box::new([migration("002_b", wanted, None)])));
        assert_eq!(run(&wanted).unwrap(), ["002"]);
    });
}

#[test]
fn violations_that_the_migration_adds_roll_it_back() {
    with_parents(|| {
        let adds = "PRAGMA foreign_keys = 0; DELETE FROM parents WHERE id = 1";
        let adds = source("", Box::leak(Box::new([migration("002_b", adds, None)])));
        let error = run(&adds).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::ForeignKeys { tables, .. }) if *tables == [("children".to_owned(), 1)]),
            "{error}"
        );
        assert_eq!(count("SELECT count(*) AS n FROM parents"), 2);
        assert!(is_enforced());
        let broken = source(
            "",
            const {
                &[migration(
                    "002_b",
                    "PRAGMA foreign_keys = 0; SELECT * FROM nowhere",
                    None,
                )]
            },
        );
        assert!(run(&broken).is_err());
        assert!(is_enforced(), "restored after an error");
    });
}

#[test]
fn earlier_violations_do_not_block_a_rebuild() {
    with_parents(|| {
        let mut connection = DatabaseService::connection().unwrap();
        for sql in [
            "PRAGMA foreign_keys = OFF",
            "INSERT INTO children VALUES (30, 99)",
        ] {
            connection.execute_query(sql, params! {}).unwrap();
        }
        drop(connection);
        let rename = "PRAGMA foreign_keys = OFF; ALTER TABLE children RENAME TO kids; ALTER TABLE kids ADD COLUMN age INTEGER";
        let steps = [
            migration("002_b", REBUILD, None),
            migration("003_c", rename, None),
        ];
        assert_eq!(
            run(&source("", Box::leak(Box::new(steps)))).unwrap(),
            ["002", "003"]
        );
        assert_eq!(count("SELECT count(*) AS n FROM kids"), 3);
    });
}

#[test]
fn pragma_without_effect_stops_the_run_before_it_begins() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        let first = migration("001_a", "CREATE TABLE a (b)", None);
        let second = migration("002_b", "CREATE TABLE c (d);\nPRAGMA foreign_keys=OFF;\nDROP TABLE a", None);
        let steps: &'static _ = Box::leak(Box::new([first, second]));
        let error = run(&source("", steps)).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::Refused { migration, statement: 2, line: 2, reason: RefusedStatement::Pragma(name), .. })
                if migration == "002_b" && name == "foreign_keys"),
            "{error}"
        );
        assert!(error.to_string().contains("before all other statements"), "{error}");
        assert!(DatabaseService::plan_migrations(&source("", steps)).is_err());
        assert_eq!(DatabaseService::list_tables().unwrap(), [""; 0], "nothing is applied");
    });
}

#[test]
fn pragmas_of_a_migration_end_with_it() {
    with_parents(|| {
        let script = "PRAGMA legacy_alter_table = ON; PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON; \
                      PRAGMA user_version = 7; CREATE TABLE t (n INTEGER CHECK (n > 0))";
        let steps = [
            migration("002_b", script, None),
            migration("003_c", "INSERT INTO t VALUES (0)", None),
        ];
        let error = run(&source("", Box::leak(Box::new(steps)))).unwrap_err();
        assert!(error.to_string().contains("003_c failed"), "{error}");
        assert_eq!(
            count("SELECT user_version AS n FROM pragma_user_version"),
            7
        );
    });
}
