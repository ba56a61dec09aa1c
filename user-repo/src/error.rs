//! What can be wrong with a user, or with asking for one.

use std::fmt;

use db_service::DbError;
use singleton_core::__private::Escaped;

/// Why the repository did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The repository, or a service that it requires, could not be initialised.
    #[error(transparent)]
    Service(#[from] singleton_core::Error),
    /// What was given is not valid; all that is wrong with it, joined by `; `.
    #[error("{}", Joined(.0))]
    Invalid(Vec<ValidationFault>),
    /// Another user has the name.
    #[error("Username '{name}' already exists", name = Escaped(.0))]
    UsernameTaken(String),
    /// Another user has the address.
    #[error("Email '{email}' already registered", email = Escaped(.0))]
    EmailTaken(String),
    /// A list may hold 1000 users at most.
    #[error("Limit cannot exceed 1000")]
    LimitExceeded,
    /// An update that changes nothing.
    #[error("No updates provided")]
    NoUpdates,
    /// A password could not be hashed.
    #[error("the password could not be hashed: {0}")]
    Hashing(#[source] argon2::password_hash::Error),
    /// What is stored in the place of a user's hash is none, or one whose check would take too much memory or time.
    #[error(
        "the password hash of user {user_id} cannot be used: {}; set a new password",
        Escaped(reason)
    )]
    #[non_exhaustive]
    UnusableHash {
        /// The user.
        user_id: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The database did not do its part.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// One thing that is wrong with what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidationFault {
    /// Fewer than 3 characters, white space at the ends apart.
    #[error("Username must be at least 3 characters")]
    UsernameTooShort,
    /// More than 50 characters.
    #[error("Username must be at most 50 characters")]
    UsernameTooLong,
    /// A tab, a line break, a NUL or the like.
    #[error("Username must not contain control characters")]
    UsernameControlCharacter,
    /// Not of the form `name@host`, or with white space in it.
    #[error("Valid email address is required")]
    InvalidEmail,
    /// More than 100 characters.
    #[error("Email must be at most 100 characters")]
    EmailTooLong,
    /// Fewer than 6 characters.
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
    fn a_name_stays_on_its_line() {
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
