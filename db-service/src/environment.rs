//! Reads the settings from environment variables, and tells all that is wrong with them.

use std::fmt;
use std::time::Duration;

use crate::config::DatabaseConfig;
use crate::url::{DatabaseUrl, UrlError};

/// Reads the settings, wherever `lookup` finds the variables.
pub(crate) fn read(
    lookup: impl Fn(&'static str) -> Option<Result<String, NotUnicode>>,
) -> Result<DatabaseConfig, ConfigError> {
    let mut variables = Variables {
        lookup,
        faults: Vec::new(),
    };
    let url = variables.url();
    let pool_size = variables.count("DB_POOL_SIZE", 5, 1);
    let max_overflow = variables.count("DB_MAX_OVERFLOW", 10, 0);
    let pool_timeout = variables.seconds("DB_POOL_TIMEOUT", 30, false);
    let pool_recycle = variables.seconds("DB_POOL_RECYCLE", 3600, true);
    let echo_sql = variables
        .text("DB_ECHO_SQL")
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    match url {
        Some(url) if variables.faults.is_empty() => Ok(DatabaseConfig {
            pool_size,
            max_overflow,
            pool_timeout: pool_timeout.unwrap_or_default(),
            pool_recycle,
            echo_sql,
            ..DatabaseConfig::new(url)
        }),
        _ => Err(ConfigError {
            faults: variables.faults,
        }),
    }
}

/// All that is wrong with the environment; its text joins the faults with `; `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<ConfigFault>,
}

impl ConfigError {
    /// Gathers the variables that are not in their range: whether each is, its name and the range.
    pub(crate) fn of_ranges<const N: usize>(
        checks: [(bool, &'static str, &'static str); N],
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
    /// The value is no whole number.
    #[error("Invalid database configuration: {variable}: {value:?} is not a whole number")]
    #[non_exhaustive]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// Its value.
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

/// Says that a variable is set to what is no text.
pub(crate) struct NotUnicode;

/// Reads variables and gathers what is wrong with them.
struct Variables<L> {
    lookup: L,
    faults: Vec<ConfigFault>,
}

impl<L: Fn(&'static str) -> Option<Result<String, NotUnicode>>> Variables<L> {
    /// The value, unless it is missing or empty, which counts as missing: `VARIABLE=` in a shell or `.env` means none.
    fn text(&mut self, variable: &'static str) -> Option<String> {
        match (self.lookup)(variable)? {
            Ok(value) => Some(value).filter(|value| !value.trim().is_empty()),
            Err(NotUnicode) => {
                self.faults.push(ConfigFault::NotUnicode { variable });
                None
            }
        }
    }

    fn url(&mut self) -> Option<DatabaseUrl> {
        let faults = self.faults.len();
        let Some(text) = self.text("DATABASE_URL") else {
            if self.faults.len() == faults {
                self.faults.push(ConfigFault::MissingUrl);
            }
            return None;
        };
        DatabaseUrl::parse(text.trim())
            .map_err(|error| self.faults.push(ConfigFault::InvalidUrl(error)))
            .ok()
    }

    fn number(&mut self, variable: &'static str, default: i64) -> Option<i64> {
        let Some(value) = self.text(variable) else {
            return Some(default);
        };
        let number = value.trim().parse().ok();
        if number.is_none() {
            self.faults
                .push(ConfigFault::NotANumber { variable, value });
        }
        number
    }

    fn count(&mut self, variable: &'static str, default: u32, minimum: u32) -> u32 {
        let Some(number) = self.number(variable, default.into()) else {
            return default;
        };
        match u32::try_from(number) {
            Ok(count) if (minimum..=100).contains(&count) => count,
            _ => {
                let range = if minimum == 0 {
                    "between 0 and 100"
                } else {
                    "between 1 and 100"
                };
                self.faults
                    .push(ConfigFault::OutOfRange { variable, range });
                default
            }
        }
    }

    /// A time in seconds, at most a hundred years; `None` for never.
    fn seconds(
        &mut self,
        variable: &'static str,
        default: i64,
        allows_never: bool,
    ) -> Option<Duration> {
        const LONGEST: i64 = 100 * 365 * 24 * 3600;
        let number = self.number(variable, default)?;
        match u64::try_from(number.min(LONGEST)) {
            Ok(seconds @ 1..) => return Some(Duration::from_secs(seconds)),
            Err(_) if allows_never && number == -1 => {}
            _ => {
                let range = if allows_never {
                    "more than 0, or -1 for never"
                } else {
                    "more than 0"
                };
                self.faults
                    .push(ConfigFault::OutOfRange { variable, range });
            }
        }
        None
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<DatabaseConfig, String> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| Ok((*value).to_owned()))
        };
        super::read(lookup).map_err(|error| error.to_string())
    }

    const URL: (&str, &str) = ("DATABASE_URL", "sqlite::memory:");

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = read(&[URL, ("DB_POOL_SIZE", " ")]).unwrap();
        assert_eq!((config.pool_size, config.max_overflow), (5, 10));
        assert_eq!(
            (config.pool_timeout, config.pool_recycle),
            (Duration::from_secs(30), Some(Duration::from_secs(3600)))
        );
        assert!(!config.echo_sql);
    }

    #[test]
    fn every_variable_is_read() {
        let config = read(&[
            URL,
            ("DB_POOL_SIZE", "100"),
            ("DB_MAX_OVERFLOW", "0"),
            ("DB_POOL_TIMEOUT", " 1 "),
            ("DB_POOL_RECYCLE", "-1"),
            ("DB_ECHO_SQL", "TruE"),
        ])
        .unwrap();
        assert_eq!((config.pool_size, config.max_overflow), (100, 0));
        assert_eq!(
            (config.pool_timeout, config.pool_recycle),
            (Duration::from_secs(1), None)
        );
        assert!(config.echo_sql);
        assert!(
            read(&[URL, ("DB_POOL_TIMEOUT", "9223372036854775807")]).is_ok(),
            "no overflow"
        );
    }

    #[test]
    fn each_fault_has_its_text() {
        for (variable, value, text) in [
            (
                "DB_POOL_SIZE",
                "0",
                "DB_POOL_SIZE must be between 1 and 100",
            ),
            (
                "DB_POOL_SIZE",
                "101",
                "DB_POOL_SIZE must be between 1 and 100",
            ),
            (
                "DB_POOL_SIZE",
                "-1",
                "DB_POOL_SIZE must be between 1 and 100",
            ),
            (
                "DB_MAX_OVERFLOW",
                "101",
                "DB_MAX_OVERFLOW must be between 0 and 100",
            ),
            (
                "DB_POOL_TIMEOUT",
                "0",
                "DB_POOL_TIMEOUT must be more than 0",
            ),
            (
                "DB_POOL_TIMEOUT",
                "-1",
                "DB_POOL_TIMEOUT must be more than 0",
            ),
            (
                "DB_POOL_RECYCLE",
                "0",
                "DB_POOL_RECYCLE must be more than 0, or -1 for never",
            ),
            (
                "DB_POOL_RECYCLE",
                "-2",
                "DB_POOL_RECYCLE must be more than 0, or -1 for never",
            ),
            (
                "DB_POOL_SIZE",
                "5.5",
                "Invalid database configuration: DB_POOL_SIZE: \"5.5\" is not a whole number",
            ),
            (
                "DB_POOL_SIZE",
                "99999999999999999999",
                "Invalid database configuration: DB_POOL_SIZE: \"99999999999999999999\" is not a whole number",
            ),
        ] {
            assert_eq!(read(&[URL, (variable, value)]).unwrap_err(), text);
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let error = read(&[("DB_POOL_SIZE", "many"), ("DB_MAX_OVERFLOW", "-1")]).unwrap_err();
        assert_eq!(
            error,
            "DATABASE_URL environment variable is required. Example: postgresql://user:password@localhost/dbname; \
             Invalid database configuration: DB_POOL_SIZE: \"many\" is not a whole number; \
             DB_MAX_OVERFLOW must be between 0 and 100"
        );
        assert_eq!(
            read(&[("DATABASE_URL", "")])
                .unwrap_err()
                .split(". ")
                .next()
                .unwrap(),
            "DATABASE_URL environment variable is required"
        );
        let not_unicode = super::read(|_| Some(Err(NotUnicode))).unwrap_err();
        assert_eq!(not_unicode.faults().len(), 6);
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        let error = read(&[("DATABASE_URL", "hunter2://hunter2")]).unwrap_err();
        assert_eq!(
            error,
            "Invalid database configuration: DATABASE_URL: the scheme is none of postgres://, postgresql:// and sqlite://"
        );
    }
}
