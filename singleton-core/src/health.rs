//! Checking services that are ready, with an answer in bounded time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::background::Course;
use crate::context::contain;
use crate::crew::{Crew, Ended};
use crate::degraded::Degraded;
use crate::descriptor::{Descriptor, Instance, Work};
use crate::driver::Driver;
use crate::engine::{self, RealmId};
use crate::health_report::{Health, HealthReport, ServiceHealth};
use crate::realm::Slot;
use crate::watch;

/// How [`ping_all`](crate::Registry::ping_all) goes about it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use singleton_core::{PingOptions, registry};
///
/// let options = PingOptions::new()
///     .tag("readiness")
///     .timeout(Duration::from_secs(1))
///     .reuse_for(Duration::from_secs(5));
/// let report = registry().ping_all(&options);
/// println!("{} {}", report.http_status(), report.to_json());
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PingOptions {
    timeout: Duration,
    reuse_for: Duration,
    degraded_after: Option<Duration>,
    threads: usize,
    tags: Vec<String>,
}

impl Default for PingOptions {
    fn default() -> Self {
        PingOptions {
            timeout: Duration::from_secs(5),
            reuse_for: Duration::ZERO,
            degraded_after: None,
            threads: 16,
            tags: Vec::new(),
        }
    }
}

impl PingOptions {
    /// The defaults, which each of the methods states.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each check may take; 5 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How old a result may be that is taken for a new one; 0, so every report checks anew.
    pub fn reuse_for(mut self, age: Duration) -> Self {
        self.reuse_for = age;
        self
    }

    /// From which time on a check that succeeds makes its service degraded; never.
    pub fn degraded_after(mut self, latency: Duration) -> Self {
        self.degraded_after = Some(latency);
        self
    }

    /// How many checks run at once, those that hang not counted; 16.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Only services with one of the tags given, such as `liveness` or `readiness`; without any, all services.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    fn includes(&self, service: &Descriptor) -> bool {
        let has = |tag: &String| service.policy.tags.contains(&tag.as_str());
        self.tags.is_empty() || self.tags.iter().any(has)
    }
}

/// The checks of one service: never two at once, whoever asks.
#[derive(Default)]
pub(crate) struct Check {
    state: Mutex<CheckState>,
    changed: Condvar,
}

#[derive(Default)]
struct CheckState {
    /// Whether a report has taken the check upon it.
    claimed: bool,
    /// Since when it runs.
    since: Option<Instant>,
    last: Option<Checked>,
}

#[derive(Clone)]
struct Checked {
    ended: Instant,
    latency: Duration,
    health: Health,
    error: Option<String>,
}

impl Check {
    fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a check that another report has begun; none if it is overdue.
    fn await_other(&self, limit: Duration) -> Option<Checked> {
        let asked = Instant::now();
        let mut state = self.lock();
        while state.claimed {
            let elapsed = state.since.unwrap_or(asked).elapsed();
            let rest = limit.checked_sub(elapsed).filter(|rest| !rest.is_zero())?;
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.last.clone()
    }
}

/// The right to run the check, until the value is dropped.
struct Claim(Arc<Check>);

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.claimed, state.since) = (false, None);
        self.0.changed.notify_all();
    }
}

/// A service and what is known of it without checking.
struct Known {
    service: &'static Descriptor,
    status: Status,
    course: Option<Course>,
}

enum Status {
    Ready(&'static dyn Instance, Arc<Check>),
    NotStarted,
    Failed(String),
    ShutDown,
}

pub(crate) fn ping_all(
    realm: RealmId,
    services: Vec<&'static Descriptor>,
    options: &PingOptions,
    driver: &Driver,
) -> HealthReport {
    let included = services
        .into_iter()
        .filter(|service| options.includes(service));
    let known = look(realm, included);
    let mut crew = Crew::new("ping", options.threads);
    let mut results: Vec<Option<Checked>> = Vec::with_capacity(known.len());
    let mut others = Vec::new();
    for (position, known) in known.iter().enumerate() {
        results.push(None);
        let Status::Ready(instance, check) = &known.status else {
            continue;
        };
        let mut state = check.lock();
        let fresh = |last: &&Checked| last.ended.elapsed() < options.reuse_for;
        if state.claimed {
            others.push((position, check));
        } else if let Some(last) = state.last.as_ref().filter(fresh) {
            results[position] = Some(last.clone());
        } else {
            state.claimed = true;
            let (claim, driver) = (Claim(Arc::clone(check)), driver.clone());
            let (service, instance) = (known.service, *instance);
            crew.submit(position, options.timeout, move || {
                let _entered = engine::enter(realm);
                run(claim, service, instance, &driver)
            });
        }
    }
    while let Some((position, latency, ended)) = crew.next() {
        results[position] = Some(match ended {
            Ended::Done(checked) => checked,
            Ended::Failed(message) => unhealthy(latency, message),
            Ended::Overran => overdue(latency, options.timeout),
        });
    }
    for (position, check) in others {
        let checked = check.await_other(options.timeout);
        let since = check.lock().since;
        let latency = since.map_or(options.timeout, |since| since.elapsed());
        results[position] = Some(checked.unwrap_or_else(|| overdue(latency, options.timeout)));
    }
    let reported = known.iter().zip(results);
    HealthReport::new(
        reported
            .map(|(known, checked)| report(known, checked, options))
            .collect(),
    )
}

fn look(realm: RealmId, services: impl Iterator<Item = &'static Descriptor>) -> Vec<Known> {
    let mut engine = engine::lock();
    let mut known = Vec::new();
    for service in services {
        let (mut status, mut course) = (Status::ShutDown, None);
        if let Some(realm) = engine.realm_mut(realm) {
            let closing = realm.closing.is_requested();
            let entry = realm.get_mut(service);
            course = entry
                .background
                .as_ref()
                .map(|background| background.course());
            status = match entry.slot {
                Slot::Ready(instance) => {
                    let check = entry.check.get_or_insert_default();
                    Status::Ready(instance, Arc::clone(check))
                }
                Slot::Stopping { .. } | Slot::ShutDown => Status::ShutDown,
                Slot::Idle if closing => Status::ShutDown,
                Slot::Idle | Slot::Initializing(_) => match &entry.failure {
                    Some(failure) => Status::Failed(format!("{failure:#}")),
                    None => Status::NotStarted,
                },
            };
        }
        known.push(Known {
            service,
            status,
            course,
        });
    }
    known
}

fn run(
    claim: Claim,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    driver: &Driver,
) -> Checked {
    let began = Instant::now();
    claim.0.lock().since = Some(began);
    let answer = contain(|| match instance.ping() {
        Work::Done(result) => result,
        Work::Later(future) => driver
            .block_on(future)
            .unwrap_or_else(|| Err(anyhow::anyhow!("the task that drove it was cancelled"))),
    });
    let latency = began.elapsed();
    let checked = match answer {
        Ok(Ok(())) => Checked {
            ended: Instant::now(),
            latency,
            health: Health::Healthy,
            error: None,
        },
        Ok(Err(error)) => match error.downcast_ref::<Degraded>() {
            Some(degraded) => Checked {
                ended: Instant::now(),
                latency,
                health: Health::Degraded,
                error: Some(degraded.to_string()),
            },
            None => unhealthy(latency, format!("{error:#}")),
        },
        Err(message) => unhealthy(latency, format!("panicked: {message}")),
    };
    let _ = contain(|| watch::pinged(service, latency, checked.health == Health::Healthy));
    claim.0.lock().last = Some(checked.clone());
    checked
}

fn unhealthy(latency: Duration, error: String) -> Checked {
    Checked {
        ended: Instant::now(),
        latency,
        health: Health::Unhealthy,
        error: Some(error),
    }
}

fn overdue(latency: Duration, limit: Duration) -> Checked {
    unhealthy(latency, format!("no answer within {limit:?}"))
}

fn report(known: &Known, checked: Option<Checked>, options: &PingOptions) -> ServiceHealth {
    let mut health = ServiceHealth::new(known.service);
    match (&known.status, checked) {
        (Status::Ready(..), Some(checked)) => {
            health.health = checked.health;
            health.latency = Some(checked.latency);
            health.age = Some(checked.ended.elapsed());
            health.error = checked.error;
            let slow = |limit: &Duration| checked.latency >= *limit;
            if health.health == Health::Healthy
                && let Some(limit) = options.degraded_after.filter(slow)
            {
                health.health = Health::Degraded;
                health.error = Some(format!("answered only after more than {limit:?}"));
            }
        }
        (Status::Failed(error), _) => {
            health.health = Health::Unhealthy;
            health.error = Some(error.clone());
        }
        (Status::ShutDown, _) => {
            health.health = Health::Unhealthy;
            health.error = Some("has been shut down".to_owned());
        }
        (Status::Ready(..) | Status::NotStarted, _) => {}
    }
    if let Some(course) = &known.course {
        health.restarts = Some(course.restarts);
        if let Some(trouble) = course.trouble()
            && health.health == Health::Healthy
        {
            health.health = Health::Degraded;
            health.error = Some(trouble);
        }
    }
    health
}
