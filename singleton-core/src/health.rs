//! Checking services that are ready, with an answer in bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::background::Course;
use crate::check::{Check, Checked, Claim, cancelled, overdue, run, unhealthy};
use crate::crew::{Crew, Ended};
use crate::descriptor::{Descriptor, Instance};
use crate::driver::Driver;
use crate::engine::{self, RealmId};
use crate::health_report::{Health, HealthReport, ServiceHealth};
use crate::realm::Slot;

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
    ///
    /// A tag that no service of the program has makes the report unhealthy: it is as good as a mistyped one.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    fn includes(&self, service: &Descriptor) -> bool {
        let has = |tag: &String| service.policy.tags.contains(&tag.as_str());
        self.tags.is_empty() || self.tags.iter().any(has)
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
    /// Its initialisation should have ended within the time given.
    Overdue(Duration),
    Failed(String),
    ShutDown,
}

pub(crate) fn ping_all(
    realm: RealmId,
    services: Vec<&'static Descriptor>,
    options: &PingOptions,
    driver: &Driver,
) -> HealthReport {
    let is_known = |tag: &String| {
        let mut tags = services.iter().flat_map(|service| service.policy.tags);
        tags.any(|known| known == tag)
    };
    let unknown_tags = options.tags.iter().filter(|tag| !is_known(tag));
    let unknown_tags = unknown_tags.cloned().collect();
    let included = services
        .into_iter()
        .filter(|service| options.includes(service));
    let known = look(realm, included);
    let asked = Instant::now();
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
        if let Some(future) = state.future.clone() {
            let driver = driver.clone();
            crew.submit(position, options.timeout, move || {
                driver.block_on(future).unwrap_or_else(cancelled)
            });
        } else if state.claimed {
            others.push((position, check));
        } else if let Some(last) = state.last.as_ref().filter(fresh) {
            results[position] = Some(last.clone());
        } else {
            state.claimed = true;
            let (claim, driver) = (Claim(Arc::clone(check)), driver.clone());
            let (service, instance) = (known.service, *instance);
            crew.submit(position, options.timeout, move || {
                let _entered = engine::enter(realm);
                run(claim, realm, service, instance, &driver)
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
        // The time limit is the report's: those who wait for each of several do so at once.
        let checked = check.await_other(asked, options.timeout);
        let since = check.lock().since;
        let latency = since.map_or(options.timeout, |since| since.elapsed());
        results[position] = Some(checked.unwrap_or_else(|| overdue(latency, options.timeout)));
    }
    let reported = known.iter().zip(results);
    let reported = reported.map(|(known, checked)| report(known, checked, options));
    HealthReport::new(reported.collect(), unknown_tags)
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
                Slot::Initializing(ref attempt) if attempt.is_overdue() => {
                    Status::Overdue(attempt.service.policy.init_timeout.unwrap_or_default())
                }
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
        (Status::Overdue(limit), _) => {
            health.health = Health::Unhealthy;
            health.error = Some(format!("not ready after {limit:?}"));
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
        if let Some((trouble, why)) = course.trouble()
            && health.health < trouble
        {
            health.health = trouble;
            health.error = Some(why);
        }
    }
    health
}
