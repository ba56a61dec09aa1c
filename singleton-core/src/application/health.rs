//! Health checks of ready services, in bounded time.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::engine::{self, CheckClaim, CheckResult, Context, HealthCheck, RunHistory, Slot};
use crate::escaped::Escaped;
use crate::invoke::{
    Driver, JobResult, WorkerPool, check_cancelled, check_failed, check_timed_out, run_check,
};
use crate::service::{Descriptor, Health, Instance};
use crate::text_table::{Table, milliseconds};

/// Options of [`ping_all`](crate::Registry::ping_all).
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
    /// Returns the default options. Each method states its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the timeout of each check. Default: 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum age of an earlier result that is reused in place of a new check. Default: 0 s, so each report
    /// checks again.
    pub fn reuse_for(mut self, age: Duration) -> Self {
        self.reuse_for = age;
        self
    }

    /// Sets the latency from which a successful check makes its service degraded. Default: never.
    pub fn degraded_after(mut self, latency: Duration) -> Self {
        self.degraded_after = Some(latency);
        self
    }

    /// Sets the maximum number of parallel checks, not counting those that exceeded their timeout. Default: 16.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Restricts the report to services with one of the given tags, such as `liveness` or `readiness`. Without a tag,
    /// it covers all services.
    ///
    /// A tag that no service of the program has is probably mistyped, so it makes the report unhealthy.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    fn includes(&self, service: &ServiceSnapshot) -> bool {
        let has = |tag: &String| service.tags.contains(&tag.as_str());
        self.tags.is_empty() || self.tags.iter().any(has)
    }
}

/// A service's status before the check.
struct ServiceSnapshot {
    service: &'static Descriptor,
    tags: Cow<'static, [&'static str]>,
    starts_with_application: bool,
    status: Status,
    history: Option<RunHistory>,
}

enum Status {
    Ready(&'static dyn Instance, Arc<HealthCheck>),
    NotStarted,
    /// The initialization has exceeded this `init_timeout`.
    Overdue(Duration),
    Failed(String),
    ShutDown,
}

pub(crate) fn ping_all(
    context: &Context,
    services: Vec<&'static Descriptor>,
    options: &PingOptions,
    driver: &Driver,
) -> HealthReport {
    let mut snapshots = take_snapshots(context, services);
    let is_known = |tag: &String| {
        let mut tags = snapshots.iter().flat_map(|service| service.tags.iter());
        tags.any(|known| known == tag)
    };
    let unknown_tags = options.tags.iter().filter(|tag| !is_known(tag));
    let unknown_tags: Vec<String> = unknown_tags.cloned().collect();
    snapshots.retain(|service| options.includes(service));
    let requested_at = Instant::now();
    let mut pool = WorkerPool::new("ping", options.threads);
    let mut results: Vec<Option<CheckResult>> = Vec::with_capacity(snapshots.len());
    let mut checked_elsewhere = Vec::new();
    for (position, snapshot) in snapshots.iter().enumerate() {
        results.push(None);
        let Status::Ready(instance, check) = &snapshot.status else {
            continue;
        };
        let mut state = check.lock();
        let is_recent = |last: &&CheckResult| last.ended_at.elapsed() < options.reuse_for;
        if let Some(future) = state.future.clone() {
            let driver = driver.clone();
            pool.submit(position, options.timeout, move || {
                driver.block_on(future).unwrap_or_else(check_cancelled)
            });
        } else if state.claimed {
            checked_elsewhere.push((position, check));
        } else if let Some(last) = state.last.as_ref().filter(is_recent) {
            results[position] = Some(last.clone());
        } else {
            state.claimed = true;
            let (claim, driver) = (CheckClaim(Arc::clone(check)), driver.clone());
            let (context, service, instance) = (context.clone(), snapshot.service, *instance);
            pool.submit(position, options.timeout, move || {
                let _context = context.enter();
                run_check(claim, &context, service, instance, &driver)
            });
        }
    }
    while let Some((position, latency, result)) = pool.next() {
        results[position] = Some(match result {
            JobResult::Done(checked) => checked,
            JobResult::Failed(message) => check_failed(latency, message),
            JobResult::TimedOut => check_timed_out(latency, options.timeout),
        });
    }
    for (position, check) in checked_elsewhere {
        // The timeout counts from the begin of the report, so several such waits do not add up.
        let checked = check.wait_for_result(requested_at, options.timeout);
        let started_at = check.lock().started_at;
        let latency = started_at.map_or(options.timeout, |started_at| started_at.elapsed());
        results[position] =
            Some(checked.unwrap_or_else(|| check_timed_out(latency, options.timeout)));
    }
    let reported = snapshots.iter().zip(results);
    let reported = reported.map(|(snapshot, checked)| report_service(snapshot, checked, options));
    HealthReport::new(reported.collect(), unknown_tags)
}

fn take_snapshots(context: &Context, services: Vec<&'static Descriptor>) -> Vec<ServiceSnapshot> {
    let mut engine = engine::lock();
    let mut snapshots = Vec::new();
    for service in services {
        let (mut status, mut history) = (Status::ShutDown, None);
        let (mut tags, mut starts_with_application) = (service.policy.tags.clone(), false);
        if let Some(container) = engine.container_mut(context.container) {
            tags = container.policy(service).tags.clone();
            starts_with_application = container.starts_with_application(service);
            let closing = container.closing.is_requested();
            let entry = container.get_mut(service);
            history = entry
                .background
                .as_ref()
                .map(|background| background.history());
            status = match entry.slot {
                Slot::Ready(instance) => {
                    let check = entry.check.get_or_insert_default();
                    Status::Ready(instance, Arc::clone(check))
                }
                Slot::Stopping { .. } | Slot::ShutDown => Status::ShutDown,
                Slot::Idle if closing => Status::ShutDown,
                Slot::Initializing(ref attempt) if attempt.is_overdue() => {
                    Status::Overdue(attempt.init_timeout.unwrap_or_default())
                }
                Slot::Idle | Slot::Initializing(_) => match &entry.failure {
                    Some(failure) => Status::Failed(format!("{failure:#}")),
                    None => Status::NotStarted,
                },
            };
        }
        snapshots.push(ServiceSnapshot {
            service,
            tags,
            starts_with_application,
            status,
            history,
        });
    }
    snapshots
}

fn report_service(
    snapshot: &ServiceSnapshot,
    checked: Option<CheckResult>,
    options: &PingOptions,
) -> ServiceHealth {
    let mut health = ServiceHealth::new(snapshot);
    match (&snapshot.status, checked) {
        (Status::Ready(..), Some(checked)) => {
            health.health = checked.health;
            health.latency = Some(checked.latency);
            health.age = Some(checked.ended_at.elapsed());
            health.error = checked.error;
            let is_slow = |limit: &Duration| checked.latency >= *limit;
            if health.health == Health::Healthy
                && let Some(limit) = options.degraded_after.filter(is_slow)
            {
                health.health = Health::Degraded;
                health.error = Some(format!("answered only after more than {limit:?}"));
            }
        }
        (Status::Overdue(timeout), _) => {
            health.health = Health::Unhealthy;
            health.error = Some(format!("not ready after {timeout:?}"));
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
    if let Some(history) = &snapshot.history {
        health.restarts = Some(history.restarts);
        if let Some((problem, why)) = history.problem()
            && health.health < problem
        {
            health.health = problem;
            health.error = Some(why);
        }
    }
    health
}

/// The health of one service.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    service: &'static Descriptor,
    tags: Cow<'static, [&'static str]>,
    starts_with_application: bool,
    health: Health,
    latency: Option<Duration>,
    age: Option<Duration>,
    error: Option<String>,
    restarts: Option<u64>,
}

impl ServiceHealth {
    fn new(snapshot: &ServiceSnapshot) -> Self {
        ServiceHealth {
            service: snapshot.service,
            tags: snapshot.tags.clone(),
            starts_with_application: snapshot.starts_with_application,
            health: Health::NotStarted,
            latency: None,
            age: None,
            error: None,
            restarts: None,
        }
    }

    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub fn name(&self) -> &'static str {
        self.service.name()
    }

    /// Returns the name of the struct with its crate and modules.
    pub fn path(&self) -> &'static str {
        self.service.path
    }

    /// Returns the health.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Returns the duration of the check, or the time so far if it has timed out. `None` if there was no check.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Returns the time since the end of the check.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns the reason why the service is degraded or unhealthy.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the number of restarts of the background thread. `None` unless the service is a ready background
    /// service.
    pub fn restarts(&self) -> Option<u64> {
        self.restarts
    }

    /// Returns the tags of `#[service(tags(…))]` or of [`configure`](crate::Registry::configure).
    pub fn tags(&self) -> &[&'static str] {
        &self.tags
    }

    /// Returns the health that counts for the whole report. A service that starts with the application and has not
    /// started is unhealthy.
    fn counts_as(&self) -> Health {
        match self.health {
            Health::NotStarted if self.starts_with_application => Health::Unhealthy,
            Health::NotStarted => Health::Healthy,
            health => health,
        }
    }
}

impl Serialize for ServiceHealth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let in_milliseconds = |time: Option<Duration>| time.map(milliseconds);
        let mut fields = serializer.serialize_struct("ServiceHealth", 8)?;
        fields.serialize_field("name", self.name())?;
        fields.serialize_field("path", self.service.path)?;
        fields.serialize_field("health", &self.health)?;
        fields.serialize_field("latency_ms", &in_milliseconds(self.latency))?;
        fields.serialize_field("age_ms", &in_milliseconds(self.age))?;
        fields.serialize_field("error", &self.error)?;
        fields.serialize_field("restarts", &self.restarts)?;
        fields.serialize_field("tags", self.tags())?;
        fields.end()
    }
}

/// The health of all services, in topological order. Prints as a table and implements serde's `Serialize`.
#[derive(Debug, Clone, Serialize)]
pub struct HealthReport {
    health: Health,
    services: Vec<ServiceHealth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_tags: Vec<String>,
}

impl HealthReport {
    fn new(services: Vec<ServiceHealth>, unknown_tags: Vec<String>) -> Self {
        let worst = services.iter().map(ServiceHealth::counts_as).max();
        let health = match worst {
            _ if !unknown_tags.is_empty() => Health::Unhealthy,
            Some(worst) => worst,
            None => Health::Healthy,
        };
        HealthReport {
            health,
            services,
            unknown_tags,
        }
    }

    /// Returns the requested tags that no service has.
    pub fn unknown_tags(&self) -> &[String] {
        &self.unknown_tags
    }

    /// Returns the worst health of all services.
    ///
    /// A service that was not used yet counts as healthy, or as unhealthy if it is `eager` or a background service. A
    /// tag that no service has makes the report unhealthy.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Returns the health of each service in the report.
    pub fn services(&self) -> &[ServiceHealth] {
        &self.services
    }

    /// Returns the HTTP status for a health probe: 503 if a service is unhealthy, otherwise 200.
    pub fn http_status(&self) -> u16 {
        if self.health == Health::Unhealthy {
            503
        } else {
            200
        }
    }

    /// Returns the report as JSON, with `health`, `services`, and `unknown_tags` if there are any. Each service has
    /// `name`, `path`, `health`, `latency_ms`, `age_ms`, `error`, `restarts` and `tags`.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["service", "health", "latency", "age", "restarts", "error"]);
        let time =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{time:.1?}"));
        for service in &self.services {
            table.row([
                service.name().to_owned(),
                service.health.to_string(),
                time(service.latency),
                time(service.age),
                service
                    .restarts
                    .map_or("-".to_owned(), |count| count.to_string()),
                service.error.clone().unwrap_or_default(),
            ]);
        }
        write!(formatter, "{table}")?;
        if !self.unknown_tags.is_empty() {
            let tags = Escaped(self.unknown_tags.join(", "));
            writeln!(formatter, "no service is tagged {tags}")?;
        }
        writeln!(formatter, "together: {}", self.health)
    }
}
