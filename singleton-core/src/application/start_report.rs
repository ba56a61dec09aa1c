//! What became of each service at a start, and where the time went.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::shutdown::ShutdownReport;
use crate::error::Error;
use crate::service::Descriptor;
use crate::text_table::Table;

/// What became of each service at a start, each after what it requires; prints as a table.
///
/// # Examples
///
/// ```
/// use singleton_core::{Service, registry, requires, service};
///
/// #[service]
/// struct Engine;
///
/// #[service]
/// #[requires(Engine)]
/// struct Car;
/// # impl Service for Engine { fn initialize() -> anyhow::Result<Self> { Ok(Engine) } }
/// # impl Service for Car { fn initialize() -> anyhow::Result<Self> { Ok(Car) } }
///
/// let report = registry().start::<Car>()?;
/// let chain: Vec<_> = report.critical_chain().iter().map(|service| service.name()).collect();
/// assert_eq!(chain, ["Engine", "Car"]);
/// println!("{report}\n{}", report.waterfall());
/// # Ok::<(), singleton_core::StartError>(())
/// ```
#[derive(Debug, Clone)]
pub struct StartReport {
    services: Vec<ServiceStart>,
    /// Where in the report the requirements of the services are.
    requirements: Vec<usize>,
    took: Duration,
}

/// What became of one service at a start.
#[derive(Debug, Clone)]
pub struct ServiceStart {
    pub(crate) service: &'static Descriptor,
    /// Where in the report's list its requirements are.
    pub(crate) requirements: Range<usize>,
    pub(crate) outcome: StartOutcome,
    pub(crate) waited: Duration,
    pub(crate) own: Duration,
}

/// How the start of a service ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StartOutcome {
    /// It was initialised and is ready.
    Started,
    /// It was ready before.
    AlreadyReady,
    /// It failed of itself.
    Failed(Error),
    /// A service that it requires, directly or through others, failed.
    Skipped {
        /// That service.
        because_of: &'static str,
    },
}

impl fmt::Display for StartOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartOutcome::Started => formatter.write_str("started"),
            StartOutcome::AlreadyReady => formatter.write_str("was ready"),
            StartOutcome::Failed(error) => write!(formatter, "{error:#}"),
            StartOutcome::Skipped { because_of } => {
                write!(formatter, "skipped because of {because_of}")
            }
        }
    }
}

impl ServiceStart {
    /// The name of the struct.
    pub fn name(&self) -> &'static str {
        self.service.name
    }

    /// How it ended.
    pub fn outcome(&self) -> &StartOutcome {
        &self.outcome
    }

    /// How long its own `initialize` and `ping` took, pauses between attempts included.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// How long after the start had begun its own turn came: the wait for what it requires, and for a thread.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    fn ended(&self) -> Duration {
        self.waited + self.own
    }

    fn is_started(&self) -> bool {
        matches!(self.outcome, StartOutcome::Started)
    }
}

impl StartReport {
    pub(crate) fn new(
        services: Vec<ServiceStart>,
        requirements: Vec<usize>,
        took: Duration,
    ) -> Self {
        StartReport {
            services,
            requirements,
            took,
        }
    }

    /// The services that were to start, what they require included.
    pub fn services(&self) -> &[ServiceStart] {
        &self.services
    }

    /// How long it took together.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The services that failed of themselves, with their errors.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &Error)> {
        self.services
            .iter()
            .filter_map(|service| match &service.outcome {
                StartOutcome::Failed(error) => Some((service.name(), error)),
                _ => None,
            })
    }

    /// Tells whether every service is ready.
    pub fn is_success(&self) -> bool {
        self.services.iter().all(|service| {
            matches!(
                service.outcome,
                StartOutcome::Started | StartOutcome::AlreadyReady
            )
        })
    }

    pub(crate) fn started(&self) -> impl Iterator<Item = &'static Descriptor> {
        let started = self.services.iter().filter(|service| service.is_started());
        started.map(|service| service.service)
    }

    /// The services that the start could not have been faster without being faster: the last to become
    /// ready, before it the last that this one waited for, and so on; the first of them first.
    pub fn critical_chain(&self) -> Vec<&ServiceStart> {
        let started = |service: &&ServiceStart| service.is_started();
        let last = self.services.iter().filter(started);
        let mut next = last.max_by_key(|service| service.ended());
        let mut chain = Vec::new();
        while let Some(service) = next {
            chain.push(service);
            let requirements = self.requirements[service.requirements.clone()].iter();
            next = requirements
                .map(|position| &self.services[*position])
                .filter(started)
                .max_by_key(|requirement| requirement.ended());
        }
        chain.reverse();
        chain
    }

    /// The report as bars over time, of at most 100 columns: `·` is waiting, `█` the service's own time;
    /// an asterisk marks the critical chain.
    pub fn waterfall(&self) -> Waterfall<'_> {
        Waterfall { report: self }
    }
}

impl fmt::Display for StartReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["service", "rank", "waited", "own time", "outcome"]);
        for service in &self.services {
            let (waited, own) = match service.outcome {
                StartOutcome::Started | StartOutcome::Failed(_) => (
                    format!("{:.1?}", service.waited),
                    format!("{:.1?}", service.own),
                ),
                _ => ("-".to_owned(), "-".to_owned()),
            };
            table.row([
                service.name().to_owned(),
                service.service.rank.to_string(),
                waited,
                own,
                service.outcome.to_string(),
            ]);
        }
        write!(formatter, "{table}")?;
        let names: Vec<_> = self
            .critical_chain()
            .iter()
            .map(|service| service.name())
            .collect();
        if !names.is_empty() {
            writeln!(formatter, "critical chain: {}", names.join(" -> "))?;
        }
        writeln!(
            formatter,
            "{} services in {:.1?}",
            self.services.len(),
            self.took
        )
    }
}

/// A start over time; see [`StartReport::waterfall`].
#[derive(Debug, Clone, Copy)]
pub struct Waterfall<'a> {
    report: &'a StartReport,
}

impl fmt::Display for Waterfall<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COLUMNS: usize = 60;
        const LONGEST_NAME: usize = 26;
        let mut rows: Vec<_> = self
            .report
            .services
            .iter()
            .filter(|row| row.is_started())
            .collect();
        rows.sort_by_key(|service| (service.waited, service.ended()));
        let critical = self.report.critical_chain();
        let total = rows.iter().map(|row| row.ended()).max().unwrap_or_default();
        let column = |time: Duration| {
            let share = time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
            (share * COLUMNS as f64).round() as usize
        };
        let name_of =
            |row: &ServiceStart| row.name().chars().take(LONGEST_NAME).collect::<String>();
        let width = rows
            .iter()
            .map(|row| name_of(row).chars().count())
            .max()
            .unwrap_or(0);
        for row in rows {
            let mark = if critical
                .iter()
                .any(|service| service.service == row.service)
            {
                '*'
            } else {
                ' '
            };
            // However short, it can be seen.
            let start = column(row.waited).min(COLUMNS - 1);
            let end = column(row.ended()).clamp(start + 1, COLUMNS);
            let bar = format!("{}{}", "·".repeat(start), "█".repeat(end - start));
            let (name, own) = (name_of(row), row.own);
            writeln!(formatter, "{mark} {name:width$} {bar:COLUMNS$} {own:.1?}")?;
        }
        Ok(())
    }
}

/// A start that did not succeed; all failures are in the report.
///
/// What the call had started is shut down again, except for what other services have come to use
/// meanwhile, and can be started anew.
#[derive(Debug, Clone)]
pub struct StartError {
    report: Box<(StartReport, ShutdownReport)>,
    setup: Option<Error>,
}

impl StartError {
    pub(crate) fn new(
        report: StartReport,
        setup: Option<Error>,
        taken_back: ShutdownReport,
    ) -> Self {
        StartError {
            report: Box::new((report, taken_back)),
            setup,
        }
    }

    /// What became of each service.
    pub fn report(&self) -> &StartReport {
        &self.report.0
    }

    /// How the services that had started were shut down again.
    pub fn taken_back(&self) -> &ShutdownReport {
        &self.report.1
    }

    fn errors(&self) -> impl Iterator<Item = &Error> {
        let failures = self.report().failures().map(|(_, error)| error);
        self.setup.iter().chain(failures)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.report().services();
        let ready = services.iter().filter(|service| {
            matches!(
                service.outcome(),
                StartOutcome::Started | StartOutcome::AlreadyReady
            )
        });
        let failed = services.len() - ready.count();
        write!(
            formatter,
            "{failed} of {} services did not start: ",
            services.len()
        )?;
        for (position, error) in self.errors().enumerate() {
            if position > 0 {
                formatter.write_str("; ")?;
            }
            error.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.errors().next().and_then(|error| error.source())
    }
}
