//! Users, and the parameters and results of their queries.

use std::fmt;

use chrono::{DateTime, Utc};
use db_service::{DbError, Row};

/// A user. `Debug` hides the password hash.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The id.
    pub id: i64,
    /// The unique name.
    pub username: String,
    /// The unique email address.
    pub email: String,
    /// The password hash as a PHC string.
    pub password_hash: String,
    /// Whether the user is active. A deleted user is not.
    pub is_active: bool,
    /// The time of creation.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// The columns for [`from_row`](User::from_row).
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

/// Changes to a user. Fields that are not set keep their values.
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
    /// Creates an update without changes.
    pub fn new() -> Self {
        UserUpdate::default()
    }

    /// Changes the name.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Changes the email address.
    pub fn email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Activates or deactivates the user.
    pub fn is_active(mut self, is_active: bool) -> Self {
        self.is_active = Some(is_active);
        self
    }
}

/// The range and the filter of a list of users.
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
    /// Returns the options for the first 100 active users.
    fn default() -> Self {
        ListUsers {
            offset: 0,
            limit: 100,
            active_only: true,
        }
    }
}

impl ListUsers {
    /// Sets the number of users to skip. Default: 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the maximum number of users, up to 1000. Default: 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Sets whether deleted users are left out. Default: true.
    pub fn active_only(mut self, active_only: bool) -> Self {
        self.active_only = active_only;
        self
    }
}

/// Statistics of all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserStats {
    /// The number of users, deleted ones included.
    pub total_users: i64,
    /// The number of active users.
    pub active_users: i64,
    /// The number of deleted users.
    pub inactive_users: i64,
    /// The creation time of the first user.
    pub first_user_created: Option<DateTime<Utc>>,
    /// The creation time of the last user.
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
