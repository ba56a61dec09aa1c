//! Log records of each transition, and with the features `tracing` and `metrics` spans and metrics.
//!
//! A record is one line: text from services goes through [`Escaped`].

use std::time::Duration;

use crate::error::Error;
use crate::escaped::Escaped;
use crate::service::Descriptor;

/// The span of an initialization, inside the span of the dependent.
#[derive(Default)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    span: std::sync::OnceLock<tracing::Span>,
}

impl Span {
    /// Opens the span inside the caller's. The engine must be unlocked, because the subscriber is foreign code.
    #[cfg(feature = "tracing")]
    pub(crate) fn open(&self, service: &Descriptor) {
        let _ = self
            .span
            .set(tracing::info_span!("initialize", service = service.name()));
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn enter(&self) -> Option<tracing::span::Entered<'_>> {
        self.span.get().map(tracing::Span::enter)
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn open(&self, _: &Descriptor) {}

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn enter(&self) -> &Self {
        self
    }
}

/// A stopwatch that reads the clock only with the feature `metrics`.
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    started_at: std::time::Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch {
            #[cfg(feature = "metrics")]
            started_at: std::time::Instant::now(),
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn elapsed(&self) -> Duration {
        self.started_at.elapsed()
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) fn undeclared(dependent: &Descriptor, dependency: &Descriptor) {
    log::warn!(
        "{} uses {} while initializing but does not declare it; add #[requires({})] to {}",
        dependent.name(),
        dependency.name(),
        dependency.name(),
        dependent.name(),
    );
}

pub(crate) fn initializing(service: &Descriptor) {
    log::debug!("initializing {}", service.name());
}

pub(crate) fn retrying(service: &Descriptor, failure: &Error, pause: Duration) {
    log::warn!("{:#}; trying again in {pause:?}", Escaped(failure));
    count("singleton_initialization_retries_total", service, "retried");
}

pub(crate) fn ready(service: &Descriptor, own_time: Duration) {
    log::debug!("{} is ready after {own_time:?}", service.name());
    count("singleton_initializations_total", service, "ready");
    duration("singleton_initialization_seconds", service, own_time);
}

pub(crate) fn failed(service: &Descriptor, own_time: Duration, error: &Error) {
    if error.is_of(service.name()) {
        log::warn!("{:#}", Escaped(error));
    } else {
        // The failed dependency has logged its own warning.
        log::debug!("{:#}", Escaped(error));
    }
    count("singleton_initializations_total", service, "failed");
    duration("singleton_initialization_seconds", service, own_time);
}

pub(crate) fn pinged(service: &Descriptor, latency: Duration, healthy: bool) {
    let outcome = if healthy { "healthy" } else { "unhealthy" };
    count("singleton_pings_total", service, outcome);
    duration("singleton_ping_seconds", service, latency);
}

pub(crate) fn stopping(service: &Descriptor) {
    log::debug!("shutting down {}", service.name());
}

pub(crate) fn stopped(service: &Descriptor, took: Duration, failure: Option<&str>) {
    match failure {
        None => log::debug!("{} has been shut down in {took:?}", service.name()),
        Some(failure) => log::warn!(
            "{} failed to shut down: {}",
            service.name(),
            Escaped(failure)
        ),
    }
    let outcome = if failure.is_none() { "done" } else { "failed" };
    count("singleton_shutdowns_total", service, outcome);
    duration("singleton_shutdown_seconds", service, took);
}

pub(crate) fn shutdown_timed_out(service: &Descriptor, timeout: Duration) {
    log::warn!(
        "{} is still shutting down after {timeout:?}; going on without it",
        service.name()
    );
    count("singleton_shutdowns_total", service, "overran");
}

pub(crate) fn restarting(service: &Descriptor, why: &str, pause: Duration) {
    log::warn!(
        "run of {} ended before it was asked to: {}; starting it again in {pause:?}",
        service.name(),
        Escaped(why)
    );
    count("singleton_background_restarts_total", service, "restarted");
}

#[cfg(feature = "metrics")]
fn count(name: &'static str, service: &Descriptor, outcome: &'static str) {
    metrics::counter!(name, "service" => service.name(), "outcome" => outcome).increment(1);
}

#[cfg(feature = "metrics")]
fn duration(name: &'static str, service: &Descriptor, duration: Duration) {
    metrics::histogram!(name, "service" => service.name()).record(duration);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str, _: &Descriptor, _: &'static str) {}

#[cfg(not(feature = "metrics"))]
fn duration(_: &'static str, _: &Descriptor, _: Duration) {}
