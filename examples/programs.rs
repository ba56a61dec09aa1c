//! The programs, run as a user runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::TestDatabase;

fn program(name: &str, folder: &Path) -> Command {
    let here = std::env::current_exe().expect("a path");
    let built: PathBuf = here
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps")
        .join("examples")
        .join(name);
    let mut command = Command::new(built);
    command
        .current_dir(folder)
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

#[track_caller]
fn text(output: Output) -> String {
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn assert_each(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is missing in: {text}");
    }
}

/// Runs each program twice, because each must be repeatable.
fn run_all(folder: &Path, url: Option<&str>) {
    let run = |name| {
        let mut command = program(name, folder);
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        let text = text(command.output().expect("the program runs"));
        assert_eq!(
            text.contains("DATABASE_URL is not set: using the SQLite file"),
            url.is_none()
        );
        text
    };
    for _ in 0..2 {
        assert_each(
            &run("quickstart"),
            &[
                "Created user: john_doe (ID: ",
                "Retrieved user: john@example.com",
                "Updated email: john.doe@example.com",
                "Password verification successful",
                "users\nUser stats: UserStats {",
                "Pool status: PoolStatus {\n    pool_size: 5,\n    checked_in: 1,\n    checked_out: 0,\n",
            ],
        );
        assert_each(
            &run("transaction"),
            &[
                "Successfully created 3 users in transaction: [(\"alice\", ",
                "Transaction failed, all changes rolled back: ",
                "dave exists: false",
                "rolled back: 1",
            ],
        );
        assert_each(
            &run("maintenance"),
            &[
                "Users table has 4 rows",
                "  username ",
                "Database maintenance completed",
                "pool_size: 5",
            ],
        );
    }
}

#[test]
fn programs_without_a_url_use_a_file_and_print_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    run_all(folder.path(), None);
    assert!(folder.path().join("singleton-services.db").exists());
}

#[test]
fn programs_run_on_postgres() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    run_all(
        tempfile::tempdir().expect("a folder").path(),
        Some(database.url()),
    );
}

/// Starts several processes without the table, so that all of them want to create it.
fn concurrent_processes_start(url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let running: Vec<_> = (0..8)
        .map(|_| {
            let mut command = program("maintenance", folder.path());
            command
                .env("DATABASE_URL", url)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().expect("the program runs")
        })
        .collect();
    for process in running {
        let shown = text(process.wait_with_output().expect("the program runs"));
        assert_each(
            &shown,
            &["Users table has 0 rows", "Database maintenance completed"],
        );
    }
}

#[test]
fn concurrent_processes_start_on_sqlite() {
    concurrent_processes_start(TestDatabase::sqlite().url());
}

#[test]
fn concurrent_processes_start_on_postgres() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    concurrent_processes_start(database.url());
}

#[test]
fn dotenv_is_read_and_errors_do_not_quote_it() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(
        folder.path().join(".env"),
        "DATABASE_URL=sqlite:///from-dotenv.db\nDB_POOL_SIZE=2\n",
    )
    .expect("a file");
    let shown = text(
        program("maintenance", folder.path())
            .output()
            .expect("the program runs"),
    );
    assert_each(&shown, &["pool_size: 2"]);
    assert!(folder.path().join("from-dotenv.db").exists());

    fs::write(
        folder.path().join(".env"),
        "DATABASE_URL=postgres://u:hunter2@h/d oops\n",
    )
    .expect("a file");
    let output = program("maintenance", folder.path())
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(
        !output.status.success() && errors.contains("a line of .env cannot be read"),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

/// Returns the standard error of `maintenance`, and whether it used the database of `.env`.
#[cfg(unix)]
#[track_caller]
fn run_with_dotenv(folder: &Path) -> (String, bool) {
    let output = program("maintenance", folder)
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{errors}");
    let is_taken = folder.join("from-dotenv.db").exists();
    assert_ne!(is_taken, folder.join("singleton-services.db").exists());
    (errors, is_taken)
}

#[cfg(unix)]
#[test]
fn dotenv_that_other_users_can_change_is_ignored_with_a_warning() {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const DOTENV: &str = "DATABASE_URL=sqlite:///from-dotenv.db\nPASSWORD=hunter2\n";
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    type Place<'a> = &'a dyn Fn(&Path) -> bool;
    let write = |folder: &Path| {
        let path = folder.join(".env");
        fs::write(&path, DOTENV).expect("a file");
        set_mode(&path, 0o644);
        path
    };
    // Each returns whether it could be prepared.
    let places: [(&str, Place<'_>); 6] = [
        ("others can write to it", &|folder| {
            set_mode(&write(folder), 0o646);
            true
        }),
        ("others can write to its folder", &|folder| {
            write(folder);
            set_mode(folder, 0o757);
            true
        }),
        // Like /tmp, where anyone can create a file, and only its owner can remove it.
        ("others can write to its folder", &|folder| {
            write(folder);
            set_mode(folder, 0o1777);
            true
        }),
        ("it is not a regular file", &|folder| {
            let elsewhere = folder.join("elsewhere");
            fs::write(&elsewhere, DOTENV).expect("a file");
            symlink(elsewhere, folder.join(".env")).expect("a link");
            true
        }),
        ("it is not a regular file", &|folder| {
            let made = Command::new("mkfifo").arg(folder.join(".env")).status();
            made.expect("mkfifo").success()
        }),
        ("it belongs to another user", &|folder| {
            // Only root can change a file's owner.
            chown(write(folder), Some(4711), None).is_ok()
        }),
    ];
    for (why, place) in places {
        let folder = tempfile::tempdir().expect("a folder");
        if !place(folder.path()) {
            continue;
        }
        let (errors, is_taken) = run_with_dotenv(folder.path());
        assert!(!is_taken, "{why}");
        assert!(errors.contains(".env") && errors.contains(why), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[cfg(unix)]
#[test]
fn dotenv_of_a_parent_directory_is_not_read() {
    let parent = tempfile::tempdir().expect("a folder");
    fs::write(
        parent.path().join(".env"),
        "DATABASE_URL=sqlite:///from-dotenv.db",
    )
    .expect("a file");
    let folder = parent.path().join("child");
    fs::create_dir(&folder).expect("a folder");
    assert_eq!(run_with_dotenv(&folder), (String::new(), false));
}

#[test]
fn all_invalid_settings_are_reported_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = program("quickstart", folder.path())
        .env("DATABASE_URL", "mysql://u:hunter2@h/d")
        .env("DB_POOL_SIZE", "0")
        .env("DB_POOL_TIMEOUT", "soon")
        .output()
        .expect("the program runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_each(
        &errors,
        &[
            "failed to initialize UserRepository because of ConfigService: ",
            "DATABASE_URL: the scheme is none of",
            "; DB_POOL_SIZE must be between 1 and 100",
            "; Invalid database configuration: DB_POOL_TIMEOUT: \"soon\" is not a whole number",
        ],
    );
    assert!(!output.status.success() && !errors.contains("hunter2"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn graph_is_printed_in_each_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = text(program("graph", folder.path()).output().expect("it runs"));
    for part in [
        "critical chain: Config -> Database -> Catalogue -> ",
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
    let drawn = folder.path().join("target/services.svg").exists();
    assert!(drawn || output.contains("graphviz is not installed"));
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
    let folder = tempfile::tempdir().expect("a folder");
    for expected in ["1 visits\n", "2 visits\n"] {
        let mut visits = program("visits", folder.path());
        visits.env("DATABASE_URL", "sqlite:///visits.db");
        assert_eq!(text(visits.output().expect("the program runs")), expected);
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
    let folder = tempfile::tempdir().expect("a folder");
    let output = text(
        program("application", folder.path())
            .output()
            .expect("it runs"),
    );
    assert_each(
        &output,
        &[
            "critical chain: Cache -> Website",
            "together: healthy",
            "shut down in ",
        ],
    );
}
