//! The errors of the repository.

use std::error::Error as StdError;
use std::fmt;

use db_service::DbError;
use singleton_core::__private::Escaped;

/// An error of the repository.
///
/// `Display` is one line that ends with the messages of all causes, so [`source`](StdError::source) returns `None`.
/// [`cause`](UserError::cause) returns the error below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The repository or one of its dependencies could not be initialized.
    #[error(transparent)]
    Service(#[from] singleton_core::Error),
    /// The given values are invalid. `Display` joins all faults with `; `.
    #[error("{}", Joined(.0))]
    Invalid(Vec<ValidationFault>),
    /// Another user has the name.
    #[error("Username '{name}' already exists", name = Escaped(.0))]
    UsernameTaken(String),
    /// Another user has the email address.
    #[error("Email '{email}' already registered", email = Escaped(.0))]
    EmailTaken(String),
    /// The limit of a list is above 1000.
    #[error("Limit cannot exceed 1000")]
    LimitExceeded,
    /// An update has no changes.
    #[error("No updates provided")]
    NoUpdates,
    /// A password could not be hashed.
    #[error("the password could not be hashed: {}", Escaped(.0))]
    Hashing(argon2::password_hash::Error),
    /// The stored hash of a user is not a password hash, or its check would take too much memory or time.
    #[error(
        "the password hash of user {user_id} cannot be used: {}; set a new password",
        Escaped(reason)
    )]
    #[non_exhaustive]
    UnusableHash {
        /// The user.
        user_id: i64,
        /// The reason.
        reason: String,
    },
    /// The database returned an error.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl UserError {
    /// Returns the error below, for a downcast to its type: Argon2's error for [`Hashing`](UserError::Hashing), the
    /// [cause of the `DbError`](DbError::cause) for [`Database`](UserError::Database), and the error that the service's
    /// `initialize` or `ping` returned for [`Service`](UserError::Service).
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            UserError::Service(error) => error.cause(),
            UserError::Hashing(error) => Some(error),
            UserError::Database(error) => error.cause(),
            UserError::Invalid(_)
            | UserError::UsernameTaken(_)
            | UserError::EmailTaken(_)
            | UserError::LimitExceeded
            | UserError::NoUpdates
            | UserError::UnusableHash { .. } => None,
        }
    }
}

/// A problem with a given value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidationFault {
    /// The name has fewer than 3 characters, not counting white space at its ends.
    #[error("Username must be at least 3 characters")]
    UsernameTooShort,
    /// The name has more than 50 characters.
    #[error("Username must be at most 50 characters")]
    UsernameTooLong,
    /// The name contains a control character, such as a tab, a line break or a NUL.
    #[error("Username must not contain control characters")]
    UsernameControlCharacter,
    /// The address does not have the form `name@host`, or contains white space.
    #[error("Valid email address is required")]
    InvalidEmail,
    /// The address has more than 100 characters.
    #[error("Email must be at most 100 characters")]
    EmailTooLong,
    /// The password has fewer than 6 characters.
    #[error("Password must be at least 6 characters")]
    PasswordTooShort,
}

struct Joined<'a>(&'a [ValidationFault]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_stays_on_one_line() {
        let hostile = "a\r\nb\u{1b}[2J\u{2028}\u{202e}";
        let shown = r"a\r\nb\u{1b}[2J\u{2028}\u{202e}";
        let taken = UserError::UsernameTaken(hostile.to_owned());
        assert_eq!(
            taken.to_string(),
            format!("Username '{shown}' already exists")
        );
        assert_eq!(format!("{taken:?}"), format!("UsernameTaken(\"{shown}\")"));
        let taken = UserError::EmailTaken(hostile.to_owned());
        assert_eq!(
            taken.to_string(),
            format!("Email '{shown}' already registered")
        );
        let unusable = UserError::UnusableHash {
            user_id: 7,
            reason: hostile.to_owned(),
        };
        assert!(unusable.to_string().contains(shown), "{unusable}");
    }
}
