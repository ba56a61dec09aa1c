//! Tests of the example programs, run as separate processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::TestDatabase;

/// Returns a command that runs an example program in `directory`, without the variables that its settings come from.
fn program(name: &str, directory: &Path) -> Command {
    let test = std::env::current_exe().expect("a path");
    let executable: PathBuf = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps")
        .join("examples")
        .join(name);
    let mut command = Command::new(executable);
    command
        .current_dir(directory)
        .env_remove("DATABASE_URL")
        .env_remove("RUST_LOG");
    for variable in [
        "DB_POOL_SIZE",
        "DB_MAX_OVERFLOW",
        "DB_POOL_TIMEOUT",
        "DB_POOL_RECYCLE",
        "DB_ECHO_SQL",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Returns the standard output of a program that succeeded without writing to its standard error.
#[track_caller]
fn successful_output(output: Output) -> String {
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn assert_contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// The programs that use a database, in the order in which the tests run them, with parts of their output.
const PROGRAMS: [(&str, &[&str]); 3] = [
    (
        "quickstart",
        &[
            "Created user: john_doe (ID: ",
            "Retrieved user: john@example.com",
            "Updated email: john.doe@example.com",
            "Password verified",
            "users\nUser statistics: UserStats {",
            "Pool status: PoolStatus {\n    pool_size: 5,\n    checked_in: 1,\n    checked_out: 0,\n",
        ],
    ),
    (
        "transaction",
        &[
            "Created 3 users in one transaction: [(\"alice\", ",
            "Transaction failed and was rolled back: ",
            "User dave exists: false",
            ", rolled back: 1",
        ],
    ),
    (
        "maintenance",
        &[
            // One user of `quickstart`, and three of `transaction`.
            "Table users has 4 rows",
            "  username ",
            "Maintenance completed",
            "pool_size: 5",
        ],
    ),
];

/// Runs each program twice, because a second run finds the users of the first one.
#[track_caller]
fn run_programs_twice(directory: &Path, url: Option<&str>) {
    for _ in 0..2 {
        for (name, parts) in PROGRAMS {
            let mut command = program(name, directory);
            if let Some(url) = url {
                command.env("DATABASE_URL", url);
            }
            let output = successful_output(command.output().expect("the program runs"));
            assert_contains_all(&output, parts);
            assert_eq!(
                output.contains("DATABASE_URL is not set: using the SQLite file"),
                url.is_none()
            );
        }
    }
}

#[test]
fn programs_without_a_url_use_a_sqlite_file_and_report_it() {
    let directory = tempfile::tempdir().expect("a directory");
    run_programs_twice(directory.path(), None);
    assert!(directory.path().join("singleton-services.db").exists());
}

#[test]
fn programs_run_on_postgres() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    run_programs_twice(
        tempfile::tempdir().expect("a directory").path(),
        Some(database.url()),
    );
}

/// Starts eight processes at once on an empty database, so that all of them try to create the table.
#[track_caller]
fn concurrent_first_runs_succeed(url: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let processes: Vec<_> = (0..8)
        .map(|_| {
            let mut command = program("maintenance", directory.path());
            command
                .env("DATABASE_URL", url)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().expect("the program runs")
        })
        .collect();
    for process in processes {
        let output = successful_output(process.wait_with_output().expect("the program runs"));
        assert_contains_all(
            &output,
            &["Table users has 0 rows", "Maintenance completed"],
        );
    }
}

#[test]
fn concurrent_first_runs_succeed_on_sqlite() {
    concurrent_first_runs_succeed(TestDatabase::sqlite().url());
}

#[test]
fn concurrent_first_runs_succeed_on_postgres() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    concurrent_first_runs_succeed(database.url());
}

#[test]
fn dotenv_file_is_read_and_an_invalid_line_is_not_quoted() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(
        directory.path().join(".env"),
        "DATABASE_URL=sqlite:///from-dotenv.db\nDB_POOL_SIZE=2\n",
    )
    .expect("a file");
    let output = successful_output(
        program("maintenance", directory.path())
            .output()
            .expect("the program runs"),
    );
    assert_contains_all(&output, &["pool_size: 2"]);
    assert!(directory.path().join("from-dotenv.db").exists());

    fs::write(
        directory.path().join(".env"),
        "DATABASE_URL=postgres://u:hunter2@h/d oops\n",
    )
    .expect("a file");
    let output = program("maintenance", directory.path())
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(
        !output.status.success() && errors.contains("a line of .env cannot be read"),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

/// Runs `maintenance`. Returns its standard error, and whether it has used the database that `.env` names.
#[cfg(unix)]
#[track_caller]
fn run_with_dotenv(directory: &Path) -> (String, bool) {
    let output = program("maintenance", directory)
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{errors}");
    let is_used = directory.join("from-dotenv.db").exists();
    assert_ne!(is_used, directory.join("singleton-services.db").exists());
    (errors, is_used)
}

#[cfg(unix)]
#[test]
fn dotenv_file_that_other_users_can_write_is_ignored_with_a_warning() {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const DOTENV: &str = "DATABASE_URL=sqlite:///from-dotenv.db\nPASSWORD=hunter2\n";
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a file of this user");
    };
    type Setup<'a> = &'a dyn Fn(&Path) -> bool;
    let write = |directory: &Path| {
        let path = directory.join(".env");
        fs::write(&path, DOTENV).expect("a file");
        set_mode(&path, 0o644);
        path
    };
    // Each closure creates `.env`, and returns whether it could.
    let cases: [(&str, Setup<'_>); 6] = [
        ("all users can write to it", &|directory| {
            set_mode(&write(directory), 0o646);
            true
        }),
        ("all users can write to its directory", &|directory| {
            write(directory);
            set_mode(directory, 0o757);
            true
        }),
        // As in /tmp: all users can create files, and only their owners can remove them.
        ("all users can write to its directory", &|directory| {
            write(directory);
            set_mode(directory, 0o1777);
            true
        }),
        ("it is not a regular file", &|directory| {
            let target = directory.join("target");
            fs::write(&target, DOTENV).expect("a file");
            symlink(target, directory.join(".env")).expect("a link");
            true
        }),
        ("it is not a regular file", &|directory| {
            let mkfifo = Command::new("mkfifo").arg(directory.join(".env")).status();
            mkfifo.expect("mkfifo").success()
        }),
        ("it belongs to another user", &|directory| {
            // Only root can change the owner.
            chown(write(directory), Some(4711), None).is_ok()
        }),
    ];
    for (reason, set_up) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        if !set_up(directory.path()) {
            continue;
        }
        let (errors, is_used) = run_with_dotenv(directory.path());
        assert!(!is_used, "{reason}");
        assert!(
            errors.contains(".env") && errors.contains(reason),
            "{errors}"
        );
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[cfg(unix)]
#[test]
fn dotenv_file_in_a_parent_directory_is_not_read() {
    let parent = tempfile::tempdir().expect("a directory");
    fs::write(
        parent.path().join(".env"),
        "DATABASE_URL=sqlite:///from-dotenv.db",
    )
    .expect("a file");
    let directory = parent.path().join("child");
    fs::create_dir(&directory).expect("a directory");
    assert_eq!(run_with_dotenv(&directory), (String::new(), false));
}

#[test]
fn invalid_settings_are_all_reported_and_create_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = program("quickstart", directory.path())
        .env("DATABASE_URL", "mysql://u:hunter2@h/d")
        .env("DB_POOL_SIZE", "0")
        .env("DB_POOL_TIMEOUT", "soon")
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_contains_all(
        &errors,
        &[
            "failed to initialize UserRepository because of ConfigService: ",
            "DATABASE_URL: the scheme is none of",
            "; DB_POOL_SIZE must be between 1 and 100",
            "; Invalid database configuration: DB_POOL_TIMEOUT: \"soon\" is not a whole number",
        ],
    );
    assert!(!output.status.success() && !errors.contains("hunter2"));
    assert_eq!(
        fs::read_dir(directory.path()).expect("a directory").count(),
        0
    );
}

#[test]
fn graph_is_printed_in_each_format() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = successful_output(
        program("graph", directory.path())
            .output()
            .expect("it runs"),
    );
    for part in [
        "critical chain: Config -> Database -> Catalog -> ",
        "* Website ",
        "Website (ready, ",
        "digraph services {",
        "flowchart LR",
        "{\"services\":[",
        "together: healthy",
        "shut down in ",
    ] {
        assert!(output.contains(part), "no {part:?} in\n{output}");
    }
    let is_drawn = directory.path().join("target/services.svg").exists();
    assert!(is_drawn || output.contains("Graphviz is not installed"));
}

/// Returns the code of a program without its `//!` lines.
fn code(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(path).expect("the program is readable");
    let code = text.lines().skip_while(|line| line.starts_with("//!"));
    code.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[test]
fn first_service_of_the_readme_runs_as_pasted() {
    let readme = code("../README.md");
    assert!(readme.contains(&format!("```rust\n{}\n```", code("visits.rs"))));
    let directory = tempfile::tempdir().expect("a directory");
    for expected in ["1 visits\n", "2 visits\n"] {
        let mut visits = program("visits", directory.path());
        visits.env("DATABASE_URL", "sqlite:///visits.db");
        assert_eq!(
            successful_output(visits.output().expect("the program runs")),
            expected
        );
    }
}

#[test]
fn application_of_the_readme_starts_and_shuts_down() {
    let readme = code("../singleton-core/README.md");
    let program_text = code("application.rs");
    let main = program_text
        .split_once("fn main()")
        .expect("a main function")
        .1;
    assert!(readme.contains(main));
    let directory = tempfile::tempdir().expect("a directory");
    let output = successful_output(
        program("application", directory.path())
            .output()
            .expect("it runs"),
    );
    assert_contains_all(
        &output,
        &[
            "critical chain: Cache -> Website",
            "together: healthy",
            "shut down in ",
        ],
    );
}
