//! What is wrong with the settings.

use std::fmt;

use super::url::UrlError;

/// All that is wrong with the environment; its text joins the faults with `; `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) faults: Vec<ConfigFault>,
}

impl ConfigError {
    /// Gathers the variables that are not in their range: whether each is, its name and the range.
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

    /// The faults, one a variable.
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

impl std::error::Error for ConfigError {}

/// What is wrong with one environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// `DATABASE_URL` is not set, or empty.
    #[error(
        "DATABASE_URL environment variable is required. Example: postgresql://user:password@localhost/dbname"
    )]
    MissingUrl,
    /// `DATABASE_URL` is not one that can be opened.
    #[error("Invalid database configuration: DATABASE_URL: {0}")]
    InvalidUrl(#[source] UrlError),
    /// One of `DB_REPLICA_URLS` is not one that can be opened.
    #[error("Invalid database configuration: DB_REPLICA_URLS: {0}")]
    InvalidReplicaUrl(#[source] UrlError),
    /// The value is no whole number.
    #[error("Invalid database configuration: {variable}: {value:?} is not a whole number")]
    #[non_exhaustive]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// Its value, or `***` if it does not resemble a number.
        value: String,
    },
    /// The number is outside of what makes sense.
    #[error("{variable} must be {range}")]
    #[non_exhaustive]
    OutOfRange {
        /// The variable.
        variable: &'static str,
        /// What it must be.
        range: &'static str,
    },
    /// The value is no text.
    #[error("Invalid database configuration: {variable}: the value is not valid UTF-8")]
    #[non_exhaustive]
    NotUnicode {
        /// The variable.
        variable: &'static str,
    },
}
