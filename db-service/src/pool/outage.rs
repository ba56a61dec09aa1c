//! The log of failed attempts to connect: the first one, then summaries, and the end.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use singleton_core::__private::Escaped;

/// The time between two summaries. A summary is written with a failed attempt, so no timer runs.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

/// The time without a failure after which an outage has ended for good. A failure before continues it, so a server
/// that refuses only some connections does not cause two lines for each of them.
const RELAPSE: Duration = Duration::from_secs(1);

/// The failed attempts to connect since the last success, and what was logged of them.
#[derive(Debug, Default)]
pub(crate) struct Outages(Mutex<Option<Outage>>);

#[derive(Debug)]
struct Outage {
    since: Instant,
    failures: u64,
    /// The number of failures at the last line about failures.
    logged_failures: u64,
    logged_at: Instant,
    /// The time of the success that has ended the outage.
    ended_at: Option<Instant>,
    /// Whether the end was logged since the last line about failures.
    is_end_logged: bool,
}

impl Outages {
    /// Notes a failed attempt. `reason` names the server.
    pub(crate) fn failed(&self, reason: &dyn fmt::Display) {
        if let Some(line) = self.failed_at(Instant::now(), reason) {
            log::warn!("{line}");
        }
    }

    /// Notes a connection that was opened to `target`.
    pub(crate) fn succeeded(&self, target: &dyn fmt::Display) {
        if let Some(line) = self.succeeded_at(Instant::now(), target) {
            log::info!("{line}");
        }
    }

    fn failed_at(&self, now: Instant, reason: &dyn fmt::Display) -> Option<String> {
        let reason = Escaped(reason);
        let mut state = self.0.lock();
        let present = state.take_if(|outage| outage.ended_at.is_none_or(|at| now < at + RELAPSE));
        let Some(outage) = present else {
            *state = Some(Outage {
                since: now,
                failures: 1,
                logged_failures: 1,
                logged_at: now,
                ended_at: None,
                is_end_logged: false,
            });
            return Some(format!(
                "{reason}; further failures are summarized every {SUMMARY_INTERVAL:?}"
            ));
        };
        let outage = state.insert(outage);
        outage.ended_at = None;
        outage.failures += 1;
        let since_line = now.saturating_duration_since(outage.logged_at);
        if since_line < SUMMARY_INTERVAL {
            return None;
        }
        let more = outage.failures - outage.logged_failures;
        outage.logged_failures = outage.failures;
        outage.logged_at = now;
        outage.is_end_logged = false;
        Some(format!(
            "{more} attempts to connect failed within {since_line:.1?}, and {} within {:.1?}; the last one: {reason}",
            outage.failures,
            now.saturating_duration_since(outage.since)
        ))
    }

    fn succeeded_at(&self, now: Instant, target: &dyn fmt::Display) -> Option<String> {
        let mut state = self.0.lock();
        let outage = state.as_mut()?;
        if outage.ended_at.is_some() {
            return None;
        }
        outage.ended_at = Some(now);
        if std::mem::replace(&mut outage.is_end_logged, true) {
            return None;
        }
        let attempts = match outage.failures {
            1 => "attempt",
            _ => "attempts",
        };
        Some(format!(
            "connected to {target} again after {:.1?} and {} failed {attempts}",
            now.saturating_duration_since(outage.since),
            outage.failures
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of events at these milliseconds: `true` is a success.
    fn lines(events: impl IntoIterator<Item = (u64, bool)>) -> Vec<(u64, String)> {
        let (outages, start) = (Outages::default(), Instant::now());
        let line = |(at, succeeds)| {
            let now = start + Duration::from_millis(at);
            let line = match succeeds {
                true => outages.succeeded_at(now, &"db"),
                false => outages.failed_at(now, &"could not connect to db: refused"),
            };
            line.map(|line| (at, line))
        };
        events.into_iter().filter_map(line).collect()
    }

    fn shown(lines: &[(u64, String)]) -> Vec<(u64, &str)> {
        lines.iter().map(|(at, line)| (*at, &**line)).collect()
    }

    #[test]
    fn first_failure_summaries_and_end_are_logged() {
        let failures = (0..50).map(|number| (number * 500, false));
        let lines = lines(failures.chain([(25_000, true), (25_100, true)]));
        assert_eq!(
            shown(&lines),
            [
                (
                    0,
                    "could not connect to db: refused; further failures are summarized every 10s"
                ),
                (
                    10_000,
                    "20 attempts to connect failed within 10.0s, and 21 within 10.0s; \
                     the last one: could not connect to db: refused"
                ),
                (
                    20_000,
                    "20 attempts to connect failed within 10.0s, and 41 within 20.0s; \
                     the last one: could not connect to db: refused"
                ),
                (
                    25_000,
                    "connected to db again after 25.0s and 50 failed attempts"
                ),
            ]
        );
    }

    #[test]
    fn each_outage_is_logged_and_a_relapse_is_not() {
        let events = [(0, false), (500, true), (2_000, false), (2_500, true)];
        let starts_and_ends: Vec<_> = lines(events).iter().map(|(at, _)| *at).collect();
        assert_eq!(starts_and_ends, [0, 500, 2_000, 2_500]);
        // A server that refuses every second connection.
        let flapping = (0..300).map(|number| (number * 100, number % 2 == 1));
        let times: Vec<_> = lines(flapping).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 100, 10_000, 10_100, 20_000, 20_100]);
        assert!(lines([(0, true), (1, true)]).is_empty());
    }
}
