//! The failures of an attempt that may be repeated. They count only if it is not.

use super::session::Session;
use crate::statistics::{Call, StatementEntry};

/// The failures of an attempt of a transaction, from its conflict on.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    queries: u64,
    calls: Vec<(StatementEntry, Call)>,
}

impl Session {
    /// Begins an attempt that may be repeated. Without it, failures count at once.
    pub(super) fn begin_attempt(&mut self) {
        self.end_attempt(false);
        self.attempt = Some(Attempt::default());
    }

    /// Ends the present attempt, if there is one. The failures of one that is repeated do not count.
    pub(super) fn end_attempt(&mut self, is_repeated: bool) {
        let Some(Attempt { queries, calls }) = self.attempt.take() else {
            return;
        };
        if is_repeated {
            self.observed.statistics.retries.increment();
        }
        for _ in 0..if is_repeated { 0 } else { queries } {
            self.observed.count(false);
        }
        for (entry, call) in calls {
            let failed = call.failed && !is_repeated;
            entry.record(Call { failed, ..call });
        }
    }

    /// Counts a query of the user.
    pub(super) fn count_query(&mut self, succeeded: bool) {
        match self.attempt_in_conflict() {
            Some(attempt) if !succeeded => attempt.queries += 1,
            _ => self.observed.count(succeeded),
        }
    }

    /// Records a call of a user's statement, and logs it if it was slow.
    pub(super) fn record(&mut self, entry: &StatementEntry, text: &str, call: Call) {
        match self.attempt_in_conflict() {
            Some(attempt) if call.failed => attempt.calls.push((entry.clone(), call)),
            _ => entry.record(call),
        }
        self.observed.log_if_slow(text, call.took);
    }

    /// Notes a failure that counts as a query, unless its statement is repeated.
    pub(super) fn note_uncounted(&mut self) {
        self.has_uncounted_failure = true;
    }

    /// Counts the last statement's failure, if it was noted and not counted. One that is repeated does not count.
    pub(super) fn count_noted(&mut self, is_repeated: bool) {
        let is_noted = std::mem::take(&mut self.has_uncounted_failure);
        if is_repeated {
            self.observed.statistics.retries.increment();
        } else if is_noted {
            self.count_query(false);
        }
    }

    fn attempt_in_conflict(&mut self) -> Option<&mut Attempt> {
        let has_conflicted = self.transaction.has_conflicted;
        self.attempt.as_mut().filter(|_| has_conflicted)
    }
}
