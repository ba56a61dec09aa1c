//! How the services fare, for people and for probes.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::descriptor::Descriptor;
use crate::escaped::Escaped;
use crate::table::Table;

/// How a service fares; the better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Its `ping` found nothing wrong.
    Healthy,
    /// Nobody has used it yet; it is not started in order to be checked.
    NotStarted,
    /// It works, but not as it should: its `ping` returned [`Degraded`](crate::Degraded) or was slow, or
    /// its thread had to be started again within the last minute.
    Degraded,
    /// Its `ping` failed or did not answer, it could not be initialised, or not in time, its thread is not
    /// running, or it was shut down.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Health::Healthy => "healthy",
            Health::NotStarted => "not started",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
        })
    }
}

/// How one service fares.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    service: &'static Descriptor,
    pub(crate) health: Health,
    pub(crate) latency: Option<Duration>,
    pub(crate) age: Option<Duration>,
    pub(crate) error: Option<String>,
    pub(crate) restarts: Option<u64>,
}

impl ServiceHealth {
    pub(crate) fn new(service: &'static Descriptor) -> Self {
        ServiceHealth {
            service,
            health: Health::NotStarted,
            latency: None,
            age: None,
            error: None,
            restarts: None,
        }
    }

    /// The name of the struct.
    pub fn name(&self) -> &'static str {
        self.service.name
    }

    /// How it fares.
    pub fn health(&self) -> Health {
        self.health
    }

    /// How long the check took, or has taken so far if it has not answered.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// How long ago the check ended.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// What is wrong.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How often its thread had to be started again; none if it is no background service that is ready.
    pub fn restarts(&self) -> Option<u64> {
        self.restarts
    }

    /// The tags of its `#[service(tags(…))]`.
    pub fn tags(&self) -> &'static [&'static str] {
        self.service.policy.tags
    }

    /// What it counts for in the report: a service that is to start with the program and has not is not well.
    fn counts_as(&self) -> Health {
        match self.health {
            Health::NotStarted if self.service.starts_with_application() => Health::Unhealthy,
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

/// With three decimals, which is as much as anybody wants to read.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// How the services fare, each after what it requires; prints as a table and serialises with serde.
#[derive(Debug, Clone, Serialize)]
pub struct HealthReport {
    health: Health,
    services: Vec<ServiceHealth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_tags: Vec<String>,
}

impl HealthReport {
    pub(crate) fn new(services: Vec<ServiceHealth>, unknown_tags: Vec<String>) -> Self {
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

    /// The tags that were asked for and that no service has.
    pub fn unknown_tags(&self) -> &[String] {
        &self.unknown_tags
    }

    /// The worst among the services. One that nobody has used yet counts as healthy, unless it is `eager` or
    /// a background service: then it counts as unhealthy. So does a tag that no service has.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The services that were asked for.
    pub fn services(&self) -> &[ServiceHealth] {
        &self.services
    }

    /// What a probe is answered: 503 if a service is unhealthy, else 200.
    pub fn http_status(&self) -> u16 {
        if self.health == Health::Unhealthy {
            503
        } else {
            200
        }
    }

    /// The report as JSON: `health`, and of each of the `services` its `name`, `path`, `health`,
    /// `latency_ms`, `age_ms`, `error`, `restarts` and `tags`; the `unknown_tags` if there are any.
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
