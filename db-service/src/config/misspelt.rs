//! Environment variables that are probably misspelt settings.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Mutex;

use singleton_core::__private::Escaped;

/// The variables that were logged. Each is logged once per process.
static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Logs each of the variables whose name resembles that of an unknown setting. `is_set` returns whether a variable has
/// a value.
pub(super) fn warn(names: Vec<OsString>, known: &[&'static str], is_set: impl Fn(&str) -> bool) {
    for name in names {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if let Some(meant) = meant(&name, known)
            && is_set(&name)
            && LOGGED
                .lock()
                .is_ok_and(|mut logged| logged.insert(name.clone()))
        {
            log::warn!(
                "the environment variable {} is not a setting of the database and has no effect; did you mean {meant}?",
                Escaped(&name)
            );
        }
    }
}

/// Returns the setting that a name resembles, if it is not a setting itself.
///
/// Other programs have variables with the same prefixes, such as `DB_HOST`, so a name must be very similar: at most one
/// different character in five, besides underscores.
fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    const LONGEST: usize = 64;
    let plain = |name: &str| name.replace('_', "").into_bytes();
    let rest = |name: &str| {
        let behind = name
            .strip_prefix("DB_")
            .or_else(|| name.strip_prefix("DATABASE_"))?;
        Some(behind.len())
    };
    if name.len() > LONGEST || known.contains(&name) {
        return None;
    }
    let most = (rest(name)? / 5).max(1);
    let distances = known
        .iter()
        .map(|known| (distance(&plain(name), &plain(known)), *known));
    let (distance, meant) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= most).then_some(meant)
}

/// Returns the number of bytes to insert, delete, replace or swap with their neighbor to turn one text into the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut rows = [
        vec![0; other.len() + 1],
        (0..=other.len()).collect(),
        vec![0; other.len() + 1],
    ];
    for (i, byte) in one.iter().enumerate() {
        let [earlier, last, row] = &mut rows;
        row[0] = i + 1;
        for (j, candidate) in other.iter().enumerate() {
            let replaced = last[j] + usize::from(byte != candidate);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            let is_swapped = i > 0 && j > 0 && *byte == other[j - 1] && one[i - 1] == *candidate;
            if is_swapped {
                least = least.min(earlier[j - 1] + 1);
            }
            row[j + 1] = least;
        }
        rows.rotate_left(1);
    }
    rows[1][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] = [
        "DATABASE_URL",
        "DB_POOL_SIZE",
        "DB_MIN_IDLE",
        "DB_CONNECT_TIMEOUT",
        "DB_POOL_TIMEOUT",
        "DB_LOCK_TIMEOUT",
        "DB_TLS_MODE",
        "DB_ECHO_SQL",
    ];

    #[test]
    fn similar_name_is_found() {
        for (name, expected) in [
            ("DB_POLL_SIZE", "DB_POOL_SIZE"),
            ("DB_POOLSIZE", "DB_POOL_SIZE"),
            ("DB_POOL_SZIE", "DB_POOL_SIZE"),
            ("DB__POOL_SIZE", "DB_POOL_SIZE"),
            ("DB_POOL_SIZES", "DB_POOL_SIZE"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("DATABASE_ULR", "DATABASE_URL"),
            ("DB_CONNECTION_TIMEOUT", "DB_CONNECT_TIMEOUT"),
            ("DB_LOCKTIMEOUT", "DB_LOCK_TIMEOUT"),
            ("DB_ECHO_SQL_", "DB_ECHO_SQL"),
        ] {
            assert_eq!(meant(name, &KNOWN), Some(expected), "{name}");
        }
    }

    #[test]
    fn settings_and_variables_of_other_programs_are_no_mistakes() {
        for name in KNOWN.into_iter().chain([
            "DB_HOST",
            "DB_PORT",
            "DB_USER",
            "DB_USERNAME",
            "DB_PASSWORD",
            "DB_NAME",
            "DB_DATABASE",
            "DB_SSL_MODE",
            "DB_TIMEOUT",
            "DB_POOL",
            "DB_POOL_MAX",
            "DB_MAX_IDLE",
            "DB_URL",
            "DATABASE_HOST",
            "DATABASE_NAME",
            "DATABASE_URL_TEST",
            "DB_",
            "POOL_SIZE",
            "MY_DB_POLL_SIZE",
            "",
        ]) {
            assert_eq!(meant(name, &KNOWN), None, "{name}");
        }
        assert_eq!(meant(&"DB_POLL_SIZE".repeat(1000), &KNOWN), None);
    }

    #[test]
    fn distance_counts_changes() {
        for (one, other, count) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abd", 1),
            ("abc", "acb", 1),
            ("abc", "bca", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(
                distance(one.as_bytes(), other.as_bytes()),
                count,
                "{one} {other}"
            );
        }
    }
}
