//! User accounts: creating, updating, listing and deleting users, and verifying passwords.

use chrono::{TimeDelta, Utc};
use db_service::{DatabaseService, params};
use sha2::{Digest, Sha256};
use tests::TestDatabase;
use user_repo::{ListUsers, UserError, UserRepository, UserUpdate};

on_both_backends!(
    user_can_be_created_updated_deleted_and_restored,
    user_lists_are_paginated,
    sha256_hash_is_replaced_at_login,
    weak_argon2_hash_is_replaced_at_login,
    hash_with_excessive_cost_is_an_error,
    invalid_users_are_rejected,
);

fn user_can_be_created_updated_deleted_and_restored(database: &TestDatabase) {
    database.scope().run(|| {
        let before = Utc::now() - TimeDelta::seconds(1);
        let user = UserRepository::create_user(
            "integration_test",
            "integration@test.com",
            "test_password123",
        )
        .unwrap();
        assert!(user.id > 0 && user.is_active);
        assert_eq!(
            (user.username.as_str(), user.email.as_str()),
            ("integration_test", "integration@test.com")
        );
        assert_eq!(user.created_at, user.updated_at);
        assert!(user.created_at > before && user.created_at <= Utc::now());
        assert!(user.password_hash.starts_with("$argon2id$"));
        assert!(!format!("{user:?}").contains("argon2id"), "{user:?}");

        assert_eq!(
            UserRepository::get_user_by_id(user.id).unwrap().as_ref(),
            Some(&user)
        );
        assert_eq!(
            UserRepository::get_user_by_username("integration_test")
                .unwrap()
                .as_ref(),
            Some(&user)
        );
        assert_eq!(UserRepository::get_user_by_id(user.id + 1).unwrap(), None);
        assert_eq!(
            UserRepository::get_user_by_username("Integration_test").unwrap(),
            None
        );

        let update = UserUpdate::new()
            .email("updated@test.com")
            .username("renamed");
        let updated = UserRepository::update_user(user.id, update)
            .unwrap()
            .unwrap();
        assert_eq!(
            (updated.username.as_str(), updated.email.as_str()),
            ("renamed", "updated@test.com")
        );
        assert!(updated.updated_at > user.updated_at && updated.created_at == user.created_at);
        assert_eq!(
            UserRepository::update_user(user.id + 1, UserUpdate::new().is_active(true)).unwrap(),
            None
        );
        assert!(matches!(
            UserRepository::update_user(user.id, UserUpdate::new()),
            Err(UserError::NoUpdates)
        ));

        let login = |name, password| UserRepository::verify_password(name, password).unwrap();
        assert_eq!(login("renamed", "test_password123").unwrap().id, user.id);
        assert_eq!(login("renamed", "test_password124"), None);
        assert_eq!(login("integration_test", "test_password123"), None);

        assert!(UserRepository::delete_user(user.id).unwrap());
        assert!(
            !UserRepository::delete_user(user.id).unwrap(),
            "the user is already deleted"
        );
        assert!(!UserRepository::delete_user(user.id + 1).unwrap());
        assert!(
            !UserRepository::get_user_by_id(user.id)
                .unwrap()
                .unwrap()
                .is_active
        );
        assert_eq!(login("renamed", "test_password123"), None);
        assert_eq!(
            (
                UserRepository::count_users(true).unwrap(),
                UserRepository::count_users(false).unwrap()
            ),
            (0, 1)
        );

        let restored = UserRepository::update_user(user.id, UserUpdate::new().is_active(true))
            .unwrap()
            .unwrap();
        assert!(restored.is_active && login("renamed", "test_password123").is_some());
    });
}

fn user_lists_are_paginated(database: &TestDatabase) {
    database.scope().run(|| {
        let empty = UserRepository::get_user_stats().unwrap();
        assert_eq!(
            (empty.total_users, empty.active_users, empty.inactive_users),
            (0, 0, 0)
        );
        assert_eq!(
            (empty.first_user_created, empty.last_user_created),
            (None, None)
        );

        let ids: Vec<i64> = (0..7)
            .map(|number| {
                UserRepository::create_user(
                    &format!("user{number}"),
                    &format!("u{number}@x"),
                    "secret",
                )
                .unwrap()
                .id
            })
            .collect();
        UserRepository::delete_user(ids[3]).unwrap();
        // All users get the same time, so only their IDs determine the order.
        let moment = Utc::now()
            .date_naive()
            .and_hms_opt(1, 2, 3)
            .unwrap()
            .and_utc();
        DatabaseService::execute_query(
            "UPDATE users SET created_at = :moment",
            params! { "moment" => moment },
        )
        .unwrap();

        let list = |options: ListUsers| -> Vec<i64> {
            UserRepository::list_users(options)
                .unwrap()
                .iter()
                .map(|user| user.id)
                .collect()
        };
        let newest_first: Vec<i64> = ids.iter().rev().copied().collect();
        let active: Vec<i64> = newest_first
            .iter()
            .copied()
            .filter(|id| *id != ids[3])
            .collect();
        let all = ListUsers::default().active_only(false);
        assert_eq!(list(ListUsers::default()), active);
        assert_eq!(list(all), newest_first);
        let pages: Vec<i64> = (0..4)
            .flat_map(|page| list(all.offset(page * 2).limit(2)))
            .collect();
        assert_eq!(pages, newest_first, "each user appears exactly once");
        assert_eq!(list(all.limit(0)), [0; 0]);
        assert_eq!(list(all.offset(u64::MAX)), [0; 0]);
        assert_eq!(list(all.limit(1000)).len(), 7);
        let error = UserRepository::list_users(all.limit(1001)).unwrap_err();
        assert_eq!(error.to_string(), "Limit cannot exceed 1000");

        let stats = UserRepository::get_user_stats().unwrap();
        assert_eq!(
            (stats.total_users, stats.active_users, stats.inactive_users),
            (7, 6, 1)
        );
        assert_eq!(
            (stats.first_user_created, stats.last_user_created),
            (Some(moment), Some(moment))
        );
    });
}

fn set_hash(id: i64, hash: &str) {
    let params = params! { "id" => id, "hash" => hash };
    DatabaseService::execute_query(
        "UPDATE users SET password_hash = :hash WHERE id = :id",
        params,
    )
    .unwrap();
}

fn sha256_hash_is_replaced_at_login(database: &TestDatabase) {
    database.scope().run(|| {
        let id = UserRepository::create_user("veteran", "v@x", "another one")
            .unwrap()
            .id;
        let sha256: String = Sha256::digest("password123")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        set_hash(id, &sha256);
        let stored = || {
            UserRepository::get_user_by_id(id)
                .unwrap()
                .unwrap()
                .password_hash
        };

        assert_eq!(
            UserRepository::verify_password("veteran", "password124").unwrap(),
            None
        );
        assert_eq!(
            stored(),
            sha256,
            "a wrong password does not replace the hash"
        );
        let user = UserRepository::verify_password("veteran", "password123")
            .unwrap()
            .unwrap();
        assert!(user.password_hash.starts_with("$argon2id$"));
        assert_eq!(stored(), user.password_hash);
        assert!(
            UserRepository::verify_password("veteran", "password123")
                .unwrap()
                .is_some()
        );
        assert_eq!(
            stored(),
            user.password_hash,
            "the hash is replaced only once"
        );
    });
}

fn weak_argon2_hash_is_replaced_at_login(database: &TestDatabase) {
    // Hashes of "password123" with the costs of the tests: Argon2i, a salt of 8 bytes, version 16.
    let weak = [
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$9H3vLJi4Svm3A6VggvcavrmZdwM1PiLgXuFUySg3qbs",
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$9qD9MrylYttjjrL3NO9XPPs0kHIC4C4J3NVTfbNxKHo",
        "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$cl6iLCl+uChnX/XCwU4BEGTrguOz7h5+Ld81mCd1Iow",
    ];
    // A hash of the same password with more memory and passes. It is not replaced.
    let strong = "$argon2id$v=19$m=16,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$nahWXJZZS4Z2KyF0tgafaQftQbwsE3yOCG34BZ57nwo";
    database.scope().run(|| {
        let id = UserRepository::create_user("veteran", "v@x", "another one")
            .unwrap()
            .id;
        let stored = || {
            UserRepository::get_user_by_id(id)
                .unwrap()
                .unwrap()
                .password_hash
        };
        let login = |password| UserRepository::verify_password("veteran", password).unwrap();
        for hash in weak {
            set_hash(id, hash);
            assert_eq!(login("password124"), None);
            assert_eq!(stored(), hash, "a wrong password does not replace the hash");
            let replaced = login("password123").unwrap().password_hash;
            assert!(
                replaced.starts_with("$argon2id$v=19$m=8,t=1,p=1$"),
                "{replaced}"
            );
            assert_ne!(replaced, hash);
            assert_eq!(stored(), replaced);
            assert!(login("password123").is_some());
            assert_eq!(stored(), replaced, "the hash is replaced only once");
        }
        set_hash(id, strong);
        assert!(login("password123").is_some());
        assert_eq!(stored(), strong);
    });
}

fn hash_with_excessive_cost_is_an_error(database: &TestDatabase) {
    database.scope().run(|| {
        let id = UserRepository::create_user("victim", "v@x", "secret")
            .unwrap()
            .id;
        set_hash(
            id,
            "$argon2id$v=19$m=4294967295,t=9,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
        );
        let error = UserRepository::verify_password("victim", "secret").unwrap_err();
        assert!(
            matches!(error, UserError::UnusableHash { user_id, .. } if user_id == id),
            "{error}"
        );
    });
}

fn invalid_users_are_rejected(database: &TestDatabase) {
    database.scope().run(|| {
        let error = UserRepository::create_user("", "x", "y").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Username must be at least 3 characters; Valid email address is required; Password must be at least 6 characters"
        );
        for (name, email) in [("a\0b", "a@b"), ("abc", "a\0@b"), ("'; DROP TABLE users; --\n", "a@b"), (&*"x".repeat(51), "a@b")] {
            assert!(matches!(UserRepository::create_user(name, email, "secret"), Err(UserError::Invalid(_))), "{name:?} {email:?}");
        }
        let bobby = UserRepository::create_user("'; DROP TABLE users; --", "b@x", "secret'; --").unwrap();
        assert!(UserRepository::verify_password("'; DROP TABLE users; --", "secret'; --").unwrap().is_some());
        for name in ["", "\0", "a\0b", "' OR 1=1 --", &"x".repeat(100_000)] {
            assert_eq!(UserRepository::get_user_by_username(name).unwrap(), None);
            assert_eq!(UserRepository::verify_password(name, "\0").unwrap(), None);
        }
        for id in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(UserRepository::get_user_by_id(id).unwrap(), None);
            assert_eq!(UserRepository::update_user(id, UserUpdate::new().is_active(false)).unwrap(), None);
            assert!(!UserRepository::delete_user(id).unwrap());
        }
        assert_eq!(UserRepository::list_users(Default::default()).unwrap(), [bobby]);
    });
}
