//! `UserRepository`, the public service.

use std::fmt;

use chrono::{DateTime, SubsecRound, Utc};
use db_service::{DatabaseService, DbError, Params, Row, params};
use singleton_core::{Service, guarded, requires, service};

use crate::error::UserError;
use crate::migrations::MIGRATIONS;
use crate::password::{CheckError, PasswordService, Verification};
use crate::user::{ListUsers, User, UserStats, UserUpdate};
use crate::validation::validate;

/// The maximum limit of a list.
const MAX_LIMIT: u32 = 1000;

/// The process's users, stored in the table `users` of [`DatabaseService`].
#[service]
#[requires(DatabaseService, PasswordService)]
pub struct UserRepository {
    _private: (),
}

impl Service for UserRepository {
    fn initialize() -> anyhow::Result<Self> {
        for version in DatabaseService::run_migrations(&MIGRATIONS)? {
            log::info!("applied migration {version} of the users");
        }
        Ok(UserRepository { _private: () })
    }
}

impl UserRepository {
    /// Creates an active user, in one round trip to the database.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Invalid`], [`UserError::UsernameTaken`] or [`UserError::EmailTaken`]. If two concurrent
    /// calls use one name, exactly one succeeds.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig};
    /// # use singleton_core::testing::Scope;
    /// # use user_repo::{UserError, UserRepository};
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let ada = UserRepository::create_user("ada", "ada@example.com", "correct horse")?;
    /// assert!(UserRepository::verify_password("ada", "correct horse")?.is_some());
    /// let again = UserRepository::create_user("ada", "other@example.com", "battery staple");
    /// assert_eq!(again.unwrap_err().to_string(), "Username 'ada' already exists");
    /// # Ok::<(), UserError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    #[track_caller]
    pub fn create_user(
        &self,
        username: &str,
        email: &str,
        password: &str,
    ) -> Result<User, UserError> {
        validate(Some(username), Some(email), Some(password))?;
        let now = now();
        let sql = format!(
            "INSERT INTO users (username, email, password_hash, is_active, created_at, updated_at) \
             VALUES (:username, :email, :password_hash, :is_active, :now, :now) RETURNING {}",
            User::COLUMNS
        );
        let params = params! {
            "username" => username,
            "email" => email,
            "password_hash" => PasswordService::hash(password)?,
            "is_active" => true,
            "now" => now,
        };
        let rows = DatabaseService::execute_query(&sql, params)
            .map_err(|error| taken(error, username, email))?;
        Ok(User::from_row(only(&rows)?)?)
    }

    /// Returns the user with an id, deleted or not, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn get_user_by_id(&self, id: i64) -> Result<Option<User>, UserError> {
        let sql = format!("SELECT {} FROM users WHERE id = :id", User::COLUMNS);
        first_user(&sql, params! { "id" => id })
    }

    /// Returns the user with exactly this name, deleted or not, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn get_user_by_username(&self, username: &str) -> Result<Option<User>, UserError> {
        // No name contains a NUL, and PostgreSQL refuses texts that do.
        if username.contains('\0') {
            return Ok(None);
        }
        let sql = format!(
            "SELECT {} FROM users WHERE username = :username",
            User::COLUMNS
        );
        first_user(&sql, params! { "username" => username })
    }

    /// Changes a user, deleted or not, and returns the changed user, or `None` if there is no user with that id.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`create_user`](Self::create_user), and [`UserError::NoUpdates`] if the update has no
    /// changes.
    #[guarded]
    #[track_caller]
    pub fn update_user(&self, id: i64, update: UserUpdate) -> Result<Option<User>, UserError> {
        let UserUpdate {
            username,
            email,
            is_active,
        } = update;
        validate(username.as_deref(), email.as_deref(), None)?;
        let mut changes = Vec::new();
        let mut params = params! { "id" => id, "now" => now() };
        if let Some(username) = &username {
            changes.push("username = :username, ");
            params = params.with("username", username);
        }
        if let Some(email) = &email {
            changes.push("email = :email, ");
            params = params.with("email", email);
        }
        if let Some(is_active) = is_active {
            changes.push("is_active = :is_active, ");
            params = params.with("is_active", is_active);
        }
        if changes.is_empty() {
            return Err(UserError::NoUpdates);
        }
        let sql = format!(
            "UPDATE users SET {}updated_at = :now WHERE id = :id RETURNING {}",
            changes.concat(),
            User::COLUMNS
        );
        let rows = DatabaseService::execute_query(&sql, params).map_err(|error| {
            taken(
                error,
                username.as_deref().unwrap_or_default(),
                email.as_deref().unwrap_or_default(),
            )
        })?;
        Ok(rows.first().map(User::from_row).transpose()?)
    }

    /// Marks a user as deleted. Returns `false` if there is no active user with that id.
    ///
    /// The name and the email address stay taken.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn delete_user(&self, id: i64) -> Result<bool, UserError> {
        let sql = "UPDATE users SET is_active = FALSE, updated_at = :now WHERE id = :id AND is_active RETURNING id";
        let rows = DatabaseService::execute_query(sql, params! { "id" => id, "now" => now() })?;
        Ok(!rows.is_empty())
    }

    /// Returns users, the newest first. Users that were created at the same time are sorted by id, the highest first.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::LimitExceeded`] for a limit above 1000, or [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn list_users(&self, options: ListUsers) -> Result<Vec<User>, UserError> {
        if options.limit > MAX_LIMIT {
            return Err(UserError::LimitExceeded);
        }
        let sql = format!(
            "SELECT {} FROM users {} ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset",
            User::COLUMNS,
            if options.active_only {
                "WHERE is_active"
            } else {
                ""
            }
        );
        let offset = i64::try_from(options.offset).unwrap_or(i64::MAX);
        let rows = DatabaseService::execute_query(
            &sql,
            params! { "limit" => options.limit, "offset" => offset },
        )?;
        Ok(rows.iter().map(User::from_row).collect::<Result<_, _>>()?)
    }

    /// Returns the number of users, or of active users.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn count_users(&self, active_only: bool) -> Result<i64, UserError> {
        let filter = if active_only { "WHERE is_active" } else { "" };
        let rows = DatabaseService::execute_query(
            &format!("SELECT count(*) AS count FROM users {filter}"),
            params! {},
        )?;
        Ok(only(&rows)?.get("count")?)
    }

    /// Returns the user if the user is active and the password is correct.
    ///
    /// Returns `None` for an unknown user, a deleted user and a wrong password, after the same work.
    ///
    /// A login replaces a stored hash that is weaker than a new one: the unsalted SHA-256 of an earlier Python version
    /// of this program, Argon2i and Argon2d, Argon2 version 16, and a hash with less memory, fewer passes, fewer lanes,
    /// a shorter salt or a shorter output. It keeps a stronger hash, whose check takes longer.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::UnusableHash`] if the stored hash cannot be checked, after the same work as for an unknown
    /// user. Returns [`UserError::Hashing`] or [`UserError::Database`] if hashing or the database fails.
    #[guarded]
    #[track_caller]
    pub fn verify_password(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<User>, UserError> {
        let user = Self::get_user_by_username(username)?.filter(|user| user.is_active);
        let stored = user.as_ref().map(|user| user.password_hash.as_str());
        match (PasswordService::check(password, stored), user) {
            (Err(CheckError::Service(error)), _) => Err(error.into()),
            (Err(CheckError::Hashing(error)), _) => Err(UserError::Hashing(error)),
            (Ok(Verification::Invalid), _) | (_, None) => Ok(None),
            (Ok(Verification::Valid), Some(user)) => Ok(Some(user)),
            (Ok(Verification::ValidNeedsRehash), Some(mut user)) => {
                match replace_hash(&user, password) {
                    Ok(Some(hash)) => user.password_hash = hash,
                    Ok(None) => {}
                    // The password is correct; the next login tries again.
                    Err(error) => log::warn!(
                        "the password hash of user {} was not replaced: {error}",
                        user.id
                    ),
                }
                Ok(Some(user))
            }
            (Err(CheckError::Unusable(reason)), Some(user)) => Err(UserError::UnusableHash {
                user_id: user.id,
                reason,
            }),
        }
    }

    /// Returns the numbers of users, and the creation times of the first and the last one.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Database`].
    #[guarded]
    #[track_caller]
    pub fn get_user_stats(&self) -> Result<UserStats, UserError> {
        let sql = "SELECT count(*) AS total_users, \
                   count(*) FILTER (WHERE is_active) AS active_users, \
                   count(*) FILTER (WHERE NOT is_active) AS inactive_users, \
                   min(created_at) AS first_user_created, max(created_at) AS last_user_created FROM users";
        let rows = DatabaseService::execute_query(sql, params! {})?;
        Ok(UserStats::from_row(only(&rows)?)?)
    }
}

impl fmt::Debug for UserRepository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UserRepository")
    }
}

/// Returns the current time, in the precision that both backends store.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

#[track_caller]
fn first_user(sql: &str, params: Params) -> Result<Option<User>, UserError> {
    let rows = DatabaseService::execute_query(sql, params)?;
    Ok(rows.first().map(User::from_row).transpose()?)
}

/// Returns the row of a statement that always returns one.
fn only(rows: &[Row]) -> Result<&Row, UserError> {
    rows.first().ok_or(UserError::Database(DbError::NoRow))
}

/// Returns the error for the field that another user has, from the violated constraint.
fn taken(error: DbError, username: &str, email: &str) -> UserError {
    let DbError::UniqueViolation {
        constraint,
        columns,
        ..
    } = &error
    else {
        return error.into();
    };
    let is_about =
        |column: &str, name: &str| constraint.as_deref() == Some(name) || *columns == [column];
    if is_about("username", "users_username_key") {
        UserError::UsernameTaken(username.to_owned())
    } else if is_about("email", "users_email_key") {
        UserError::EmailTaken(email.to_owned())
    } else {
        error.into()
    }
}

/// Stores a new hash and returns it. Returns `None` if the stored hash was changed since `user` was read.
#[track_caller]
fn replace_hash(user: &User, password: &str) -> Result<Option<String>, UserError> {
    let hash = PasswordService::hash(password)?;
    let sql = "UPDATE users SET password_hash = :new \
               WHERE id = :id AND password_hash = :old RETURNING id";
    let params = params! { "new" => &hash, "id" => user.id, "old" => &user.password_hash };
    let replaced = DatabaseService::execute_query(sql, params)?;
    Ok((!replaced.is_empty()).then_some(hash))
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use db_service::{ConfigService, DatabaseConfig};
    use singleton_core::testing::Scope;

    use super::*;
    use crate::password::Argon2Params;

    #[test]
    fn login_does_not_overwrite_a_password_changed_meanwhile() {
        let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse().unwrap()));
        let passwords = PasswordService::new(Argon2Params {
            memory_kib: 8,
            iterations: 1,
            parallelism: 1,
        });
        Scope::new()
            .provide(memory)
            .provide(passwords.unwrap())
            .run(|| {
                let read =
                    UserRepository::create_user("ada", "ada@example.com", "old one").unwrap();
                let changed = PasswordService::hash("new one").unwrap();
                let params = params! { "id" => read.id, "hash" => &changed };
                let sql = "UPDATE users SET password_hash = :hash WHERE id = :id";
                DatabaseService::execute_query(sql, params).unwrap();

                assert_eq!(replace_hash(&read, "old one").unwrap(), None);
                let mut stored = UserRepository::get_user_by_id(read.id).unwrap().unwrap();
                assert_eq!(stored.password_hash, changed);

                let replaced = replace_hash(&stored, "new one").unwrap();
                stored = UserRepository::get_user_by_id(read.id).unwrap().unwrap();
                assert_eq!(replaced, Some(stored.password_hash));
            });
    }
}
