//! Unit tests with a fake database: no configuration is read and no database is opened.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{TimeZone, Utc};
use db_service::{ConfigService, DatabaseService, DbError, Row, Value, params};
use singleton_core::testing::Scope;
use singleton_core::{Error, Service, guarded, requires, service};
use user_repo::{PasswordService, UserRepository};

fn user_row(username: &str, hash: &str) -> Row {
    let moment = Utc.with_ymd_and_hms(2024, 1, 1, 0, 0, 0).unwrap();
    Row::new([
        ("id", Value::from(1)),
        ("username", username.into()),
        ("email", "test@example.com".into()),
        ("password_hash", hash.into()),
        ("is_active", true.into()),
        ("created_at", moment.into()),
        ("updated_at", moment.into()),
    ])
}

fn scope(fake: DatabaseService) -> Scope {
    Scope::new().provide(fake).provide(tests::cheap_passwords())
}

#[test]
fn user_is_created_with_a_single_statement() {
    let statements = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&statements);
    let fake = DatabaseService::fake(move |sql, params| {
        seen.lock().unwrap().push(sql.to_owned());
        let Some(Value::Text(hash)) = params.get("password_hash") else {
            panic!("there is no hash")
        };
        assert!(hash.starts_with("$argon2id$"));
        Ok(vec![user_row("testuser", hash)])
    });
    scope(fake).run(|| {
        let user =
            UserRepository::create_user("testuser", "test@example.com", "password123").unwrap();
        assert_eq!(
            (user.id, user.username.as_str(), user.email.as_str()),
            (1, "testuser", "test@example.com")
        );
        assert!(
            !ConfigService::is_initialized(),
            "the configuration is not read"
        );
    });
    let statements = statements.lock().unwrap();
    assert!(
        statements.len() == 1
            && statements[0].starts_with("INSERT INTO users")
            && statements[0].contains(" RETURNING ")
    );
}

#[test]
fn invalid_users_do_not_reach_the_database() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let fake = DatabaseService::fake(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    });
    scope(fake).run(|| {
        for (name, email, password, text) in [
            (
                "ab",
                "test@example.com",
                "password123",
                "Username must be at least 3 characters",
            ),
            (
                "testuser",
                "invalid-email",
                "password123",
                "Valid email address is required",
            ),
            (
                "testuser",
                "test@example.com",
                "12345",
                "Password must be at least 6 characters",
            ),
        ] {
            assert_eq!(
                UserRepository::create_user(name, email, password)
                    .unwrap_err()
                    .to_string(),
                text
            );
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn users_are_found_and_passwords_are_verified() {
    let hash = Scope::new()
        .provide(tests::cheap_passwords())
        .run(|| PasswordService::hash("correct_password").unwrap());
    let fake = DatabaseService::fake(move |sql, params| {
        let key = params.get("username").or(params.get("id"));
        let known = [Value::from("testuser"), Value::from(1)];
        assert!(sql.starts_with("SELECT"));
        Ok(if key.is_some_and(|key| known.contains(key)) {
            vec![user_row("testuser", &hash)]
        } else {
            vec![]
        })
    });
    scope(fake).run(|| {
        assert_eq!(
            UserRepository::get_user_by_id(1).unwrap().unwrap().username,
            "testuser"
        );
        assert_eq!(UserRepository::get_user_by_id(999).unwrap(), None);
        assert!(
            UserRepository::verify_password("testuser", "correct_password")
                .unwrap()
                .is_some()
        );
        assert!(
            UserRepository::verify_password("testuser", "wrong_password")
                .unwrap()
                .is_none()
        );
        assert!(
            UserRepository::verify_password("nobody", "correct_password")
                .unwrap()
                .is_none()
        );
    });
}

#[test]
fn login_returns_the_hash_it_read_if_the_password_changes_concurrently() {
    // The SHA-256 of "password123", as the Python program stores it.
    let outdated = "ef92b778bafe771e89245b89ecbc08a44a4e166c06659911881f383d4473e94f";
    let updates = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&updates);
    let fake = DatabaseService::fake(move |sql, params| {
        if sql.starts_with("SELECT") {
            return Ok(vec![user_row("testuser", outdated)]);
        }
        assert!(sql.contains("AND password_hash = :old"), "{sql}");
        assert_eq!(params.get("old"), Some(&Value::from(outdated)));
        counter.fetch_add(1, Ordering::Relaxed);
        // No row has the old hash anymore.
        Ok(Vec::new())
    });
    scope(fake).run(|| {
        let user = UserRepository::verify_password("testuser", "password123").unwrap();
        assert_eq!(user.unwrap().password_hash, outdated);
    });
    assert_eq!(updates.load(Ordering::Relaxed), 1);
}

#[test]
fn fake_supports_only_statements() {
    let fake = DatabaseService::fake(|_, _| Err(DbError::Closed));
    scope(fake).run(|| {
        assert!(matches!(
            DatabaseService::execute_query("SELECT 1", params! {}),
            Err(DbError::Closed)
        ));
        assert!(matches!(
            DatabaseService::connection(),
            Err(DbError::Fake {
                what: "connections",
                ..
            })
        ));
        assert!(matches!(
            DatabaseService::transaction(|_| Ok::<_, DbError>(())),
            Err(DbError::Fake { .. })
        ));
        assert!(matches!(
            DatabaseService::get_pool_status(),
            Err(DbError::Fake { .. })
        ));
    });
}

/// A custom service that depends on the user repository.
#[service]
#[requires(UserRepository)]
struct Greeter {
    greeting: &'static str,
}

impl Service for Greeter {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Greeter { greeting: "Hello" })
    }
}

impl Greeter {
    #[guarded]
    fn greet(&self, id: i64) -> anyhow::Result<String> {
        let user = UserRepository::get_user_by_id(id)?;
        Ok(format!(
            "{} {}",
            self.greeting,
            user.map_or("stranger".to_owned(), |user| user.username)
        ))
    }

    #[guarded]
    fn greeting(&self) -> Result<&str, Error> {
        Ok(self.greeting)
    }
}

#[test]
fn custom_services_can_be_tested_with_a_fake() {
    let fake = || DatabaseService::fake(|_, _| Ok(vec![user_row("ada", "x")]));
    assert_eq!(
        scope(fake()).run(|| Greeter::greet(1)).unwrap(),
        "Hello ada"
    );
    assert_eq!(
        scope(fake())
            .provide(Greeter { greeting: "Hi" })
            .run(|| Greeter::greet(1))
            .unwrap(),
        "Hi ada"
    );
    assert_eq!(
        Scope::new()
            .provide(Greeter { greeting: "Hey" })
            .run(Greeter::greeting)
            .unwrap(),
        "Hey"
    );
}
