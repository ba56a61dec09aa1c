//! The pool's metrics, for the recorder of the crate `metrics`. Without the feature `metrics`, the functions do
//! nothing.

use std::time::Instant;

/// A connection's entry in the gauge `db_pool_connections`, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGauge {
    #[cfg(feature = "metrics")]
    place: GaugeState,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GaugeState {
    Idle,
    InUse,
}

impl ConnectionGauge {
    pub(crate) fn of_idle() -> Self {
        move_to(None, Some(GaugeState::Idle));
        ConnectionGauge {
            #[cfg(feature = "metrics")]
            place: GaugeState::Idle,
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn change(&mut self, place: GaugeState) {
        move_to(Some(std::mem::replace(&mut self.place, place)), Some(place));
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn change(&mut self, _: GaugeState) {}
}

#[cfg(feature = "metrics")]
impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        move_to(Some(self.place), None);
    }
}

/// A waiting caller's entry in the gauge `db_pool_waiting`, until it is dropped.
pub(crate) struct WaitingGauge {
    started_at: Instant,
}

impl WaitingGauge {
    pub(crate) fn begin(started_at: Instant) -> Self {
        #[cfg(feature = "metrics")]
        metrics::gauge!("db_pool_waiting").increment(1);
        WaitingGauge { started_at }
    }
}

impl Drop for WaitingGauge {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("db_pool_waiting").decrement(1);
        duration("db_pool_wait_seconds", self.started_at);
    }
}

pub(crate) fn opened(started_at: Instant) {
    count("db_pool_opened_total");
    duration("db_pool_connect_seconds", started_at);
}

pub(crate) fn not_opened() {
    count("db_pool_connect_failures_total");
}

pub(crate) fn timed_out() {
    count("db_pool_timeouts_total");
}

pub(crate) fn used(since: Instant) {
    duration("db_pool_use_seconds", since);
}

/// The reason why a connection was closed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reason {
    /// The connection was lost.
    Lost,
    /// The connection was too old, or another one was lost.
    Outdated,
    /// A caller changed session state.
    Changed,
    /// Enough other connections were idle.
    Surplus,
}

pub(crate) fn closed(reason: Reason) {
    let reason = match reason {
        Reason::Lost => "lost",
        Reason::Outdated => "outdated",
        Reason::Changed => "changed",
        Reason::Surplus => "surplus",
    };
    #[cfg(feature = "metrics")]
    metrics::counter!("db_pool_closed_total", "reason" => reason).increment(1);
    let _ = reason;
}

#[cfg(feature = "metrics")]
fn move_to(from: Option<GaugeState>, to: Option<GaugeState>) {
    let gauge = |place| {
        let state = match place {
            GaugeState::Idle => "idle",
            GaugeState::InUse => "in_use",
        };
        metrics::gauge!("db_pool_connections", "state" => state)
    };
    if let Some(place) = from {
        gauge(place).decrement(1);
    }
    if let Some(place) = to {
        gauge(place).increment(1);
    }
}

#[cfg(feature = "metrics")]
fn count(name: &'static str) {
    metrics::counter!(name).increment(1);
}

#[cfg(feature = "metrics")]
fn duration(name: &'static str, started_at: Instant) {
    metrics::histogram!(name).record(started_at.elapsed());
}

#[cfg(not(feature = "metrics"))]
fn move_to(_: Option<GaugeState>, _: Option<GaugeState>) {}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str) {}

#[cfg(not(feature = "metrics"))]
fn duration(_: &'static str, _: Instant) {}
