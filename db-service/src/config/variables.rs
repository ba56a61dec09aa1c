//! Parsing of single environment variables, and their errors.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::ConfigFault;
use super::url::DatabaseUrl;

/// A variable's value is not valid UTF-8.
pub(crate) struct NotUnicode;

/// A reader of variables that collects the invalid ones.
pub(crate) struct Variables<L> {
    pub(crate) lookup: L,
    pub(crate) faults: Vec<ConfigFault>,
}

impl<L: Fn(&'static str) -> Option<Result<String, NotUnicode>>> Variables<L> {
    /// Returns the value without white space around it, or `None` if it is missing or empty. `VARIABLE=` in a shell or
    /// `.env` counts as missing. The content of a file, such as a secret of Docker, often ends with a newline.
    pub(crate) fn text(&mut self, variable: &'static str) -> Option<String> {
        match (self.lookup)(variable)? {
            Ok(value) => Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            Err(NotUnicode) => {
                self.faults.push(ConfigFault::NotUnicode { variable });
                None
            }
        }
    }

    pub(crate) fn url(&mut self) -> Option<DatabaseUrl> {
        let faults = self.faults.len();
        let Some(text) = self.text("DATABASE_URL") else {
            if self.faults.len() == faults {
                self.faults.push(ConfigFault::MissingUrl);
            }
            return None;
        };
        DatabaseUrl::parse(&text)
            .map_err(|error| self.faults.push(ConfigFault::InvalidUrl(error)))
            .ok()
    }

    fn number(&mut self, variable: &'static str, default: i64) -> Option<i64> {
        let Some(value) = self.text(variable) else {
            return Some(default);
        };
        let number = value.parse().ok();
        if number.is_none() {
            // The value may be a URL or a password in the wrong variable.
            let value = if resembles_a_number(&value) {
                value
            } else {
                "***".to_owned()
            };
            self.faults
                .push(ConfigFault::NotANumber { variable, value });
        }
        number
    }

    pub(crate) fn count(&mut self, variable: &'static str, default: u32, minimum: u32) -> u32 {
        let range = if minimum == 0 {
            "between 0 and 100"
        } else {
            "between 1 and 100"
        };
        self.within(variable, default, minimum..=100, range)
    }

    /// Returns the value for one of several words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        variable: &'static str,
        words: &[(&str, T)],
        range: &'static str,
    ) -> Option<T> {
        let value = self.text(variable)?;
        let named = |(word, _): &&(&str, T)| value.eq_ignore_ascii_case(word);
        let chosen = words.iter().find(named).map(|(_, choice)| *choice);
        if chosen.is_none() {
            self.faults
                .push(ConfigFault::OutOfRange { variable, range });
        }
        chosen
    }

    /// Returns whether the value is `true`.
    pub(crate) fn switch(&mut self, variable: &'static str) -> bool {
        self.text(variable)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn flag(&mut self, variable: &'static str) -> Option<bool> {
        self.choice(
            variable,
            &[("true", true), ("false", false)],
            "true or false",
        )
    }

    pub(crate) fn within(
        &mut self,
        variable: &'static str,
        default: u32,
        allowed: RangeInclusive<u32>,
        range: &'static str,
    ) -> u32 {
        let Some(number) = self.number(variable, default.into()) else {
            return default;
        };
        match u32::try_from(number) {
            Ok(count) if allowed.contains(&count) => count,
            _ => {
                self.faults
                    .push(ConfigFault::OutOfRange { variable, range });
                default
            }
        }
    }

    /// Returns a time in seconds, at most a hundred years, or `None` for never.
    pub(crate) fn seconds(
        &mut self,
        variable: &'static str,
        default: i64,
        allows_never: bool,
    ) -> Option<Duration> {
        let range = if allows_never {
            "more than 0, or -1 for never"
        } else {
            "more than 0"
        };
        let longest = Duration::MAX;
        let range = TimeRange {
            variable,
            longest,
            range,
        };
        self.time(&range, default, allows_never, Duration::from_secs)
    }

    /// Returns a time in seconds, up to the maximum of `range`, or `None` for never.
    pub(crate) fn bounded_seconds(&mut self, range: &TimeRange, default: i64) -> Option<Duration> {
        self.time(range, default, true, Duration::from_secs)
    }

    /// Returns a time in seconds, up to the maximum of `range`, which cannot be never.
    pub(crate) fn finite_seconds(&mut self, range: &TimeRange, default: i64) -> Duration {
        let time = self.time(range, default, false, Duration::from_secs);
        time.unwrap_or_default()
    }

    /// Returns a time in milliseconds, or `None` for never. The maximum is as many milliseconds as a hundred years have
    /// seconds.
    pub(crate) fn milliseconds(
        &mut self,
        variable: &'static str,
        default: i64,
    ) -> Option<Duration> {
        let range = TimeRange {
            variable,
            longest: Duration::MAX,
            range: "more than 0, or -1 for never",
        };
        self.time(&range, default, true, Duration::from_millis)
    }

    fn time(
        &mut self,
        range: &TimeRange,
        default: i64,
        allows_never: bool,
        in_unit: fn(u64) -> Duration,
    ) -> Option<Duration> {
        const LONGEST: i64 = 100 * 365 * 24 * 3600;
        let &TimeRange {
            variable,
            longest,
            range,
        } = range;
        let number = self.number(variable, default)?;
        match u64::try_from(number.min(LONGEST)) {
            Ok(time @ 1..) if in_unit(time) <= longest => return Some(in_unit(time)),
            Err(_) if allows_never && number == -1 => {}
            _ => self
                .faults
                .push(ConfigFault::OutOfRange { variable, range }),
        }
        None
    }
}

/// The range of a time.
pub(crate) struct TimeRange {
    pub(crate) variable: &'static str,
    pub(crate) longest: Duration,
    /// The range, as errors show it.
    pub(crate) range: &'static str,
}

impl TimeRange {
    /// Returns whether a time is in the range, with its variable and the range in words.
    pub(crate) fn check(&self, time: Option<Duration>) -> (bool, &'static str, &'static str) {
        let is_in_range = time.is_none_or(|time| !time.is_zero() && time <= self.longest);
        (is_in_range, self.variable, self.range)
    }
}

/// Returns whether a value looks like a mistyped number, such as `5.5` and `30s`, or a short word.
fn resembles_a_number(value: &str) -> bool {
    let is_plain = |next: char| next.is_ascii_alphanumeric() || ".,+-_ ".contains(next);
    let begins_as_number =
        value.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let is_word = value.len() <= 8 && value.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word || begins_as_number && value.len() <= 24 && value.chars().all(is_plain)
}
