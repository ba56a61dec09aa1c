//! The error of invalid settings.

use std::error::Error as StdError;
use std::fmt;

use super::url::UrlError;

/// All invalid environment variables. `Display` joins their messages with `; `, including those of their causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) faults: Vec<ConfigFault>,
}

impl ConfigError {
    /// Collects the variables that are out of range, from tuples of whether each is in range, its name and its range.
    pub(crate) fn of_ranges(
        checks: impl IntoIterator<Item = (bool, &'static str, &'static str)>,
    ) -> Result<(), ConfigError> {
        let faults: Vec<_> = checks
            .into_iter()
            .filter(|(in_range, ..)| !in_range)
            .map(|(_, variable, range)| ConfigFault::OutOfRange { variable, range })
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { faults })
        }
    }

    /// Returns the problems, one per variable.
    pub fn faults(&self) -> &[ConfigFault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.faults.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl StdError for ConfigError {}

/// The problem with one environment variable.
///
/// `Display` ends with the message of the cause, so [`source`](StdError::source) returns `None`.
/// [`cause`](ConfigFault::cause) returns the error below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// `DATABASE_URL` is unset or empty.
    #[error(
        "DATABASE_URL environment variable is required. Example: postgresql://user:password@localhost/dbname"
    )]
    MissingUrl,
    /// `DATABASE_URL` is invalid.
    #[error("Invalid database configuration: DATABASE_URL: {0}")]
    InvalidUrl(UrlError),
    /// One of the URLs in `DB_REPLICA_URLS` is invalid.
    #[error("Invalid database configuration: DB_REPLICA_URLS: {0}")]
    InvalidReplicaUrl(UrlError),
    /// The value is not a whole number.
    #[error("Invalid database configuration: {variable}: {value:?} is not a whole number")]
    #[non_exhaustive]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// The value, or `***` if it does not resemble a number.
        value: String,
    },
    /// The value is out of range.
    #[error("{variable} must be {range}")]
    #[non_exhaustive]
    OutOfRange {
        /// The variable.
        variable: &'static str,
        /// The range.
        range: &'static str,
    },
    /// The value is not valid UTF-8.
    #[error("Invalid database configuration: {variable}: the value is not valid UTF-8")]
    #[non_exhaustive]
    NotUnicode {
        /// The variable.
        variable: &'static str,
    },
}

impl ConfigFault {
    /// Returns the [`UrlError`] of an invalid URL, for a downcast to its type.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            ConfigFault::InvalidUrl(error) | ConfigFault::InvalidReplicaUrl(error) => Some(error),
            ConfigFault::MissingUrl
            | ConfigFault::NotANumber { .. }
            | ConfigFault::OutOfRange { .. }
            | ConfigFault::NotUnicode { .. } => None,
        }
    }
}
