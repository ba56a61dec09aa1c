//! Users, and what is asked and said of them.

use std::fmt;

use chrono::{DateTime, Utc};
use db_service::{DbError, Row};

/// A user. `Debug` hides the hash of the password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The number by which the database knows the user.
    pub id: i64,
    /// The name, unique.
    pub username: String,
    /// The address, unique.
    pub email: String,
    /// The hash of the password, as a PHC string.
    pub password_hash: String,
    /// False once the user was deleted.
    pub is_active: bool,
    /// When the user was created.
    pub created_at: DateTime<Utc>,
    /// When the user was last changed.
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// The columns that [`from_row`](User::from_row) reads.
    pub(crate) const COLUMNS: &'static str =
        "id, username, email, password_hash, is_active, created_at, updated_at";

    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(User {
            id: row.get("id")?,
            username: row.get("username")?,
            email: row.get("email")?,
            password_hash: row.get("password_hash")?,
            is_active: row.get("is_active")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("email", &self.email)
            .field("password_hash", &"***")
            .field("is_active", &self.is_active)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .finish()
    }
}

/// What to change of a user; what is not named stays as it is.
///
/// # Examples
///
/// ```
/// use user_repo::UserUpdate;
///
/// let update = UserUpdate::new().email("ada@example.com").is_active(true);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserUpdate {
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) is_active: Option<bool>,
}

impl UserUpdate {
    /// Makes an update that changes nothing yet.
    pub fn new() -> Self {
        UserUpdate::default()
    }

    /// Changes the name.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Changes the address.
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Deactivates the user, or activates it again.
    pub fn is_active(mut self, is_active: bool) -> Self {
        self.is_active = Some(is_active);
        self
    }
}

/// Which users to list.
///
/// # Examples
///
/// ```
/// use user_repo::ListUsers;
///
/// let second_page = ListUsers::default().offset(20).limit(20).active_only(false);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListUsers {
    pub(crate) offset: u64,
    pub(crate) limit: u32,
    pub(crate) active_only: bool,
}

impl Default for ListUsers {
    /// The first 100 active users.
    fn default() -> Self {
        ListUsers {
            offset: 0,
            limit: 100,
            active_only: true,
        }
    }
}

impl ListUsers {
    /// How many users to pass over; 0 unless set.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// How many users to list at most; 100 unless set, and 1000 at the most.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Whether to leave out deleted users; so unless set.
    pub fn active_only(mut self, active_only: bool) -> Self {
        self.active_only = active_only;
        self
    }
}

/// Numbers about all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserStats {
    /// How many there are, deleted ones included.
    pub total_users: i64,
    /// How many of them are active.
    pub active_users: i64,
    /// How many of them are deleted.
    pub inactive_users: i64,
    /// When the first was created.
    pub first_user_created: Option<DateTime<Utc>>,
    /// When the last was created.
    pub last_user_created: Option<DateTime<Utc>>,
}

impl UserStats {
    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(UserStats {
            total_users: row.get("total_users")?,
            active_users: row.get("active_users")?,
            inactive_users: row.get("inactive_users")?,
            first_user_created: row.get("first_user_created")?,
            last_user_created: row.get("last_user_created")?,
        })
    }
}
