//! The outcome and the duration of each service's start.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::shutdown::ShutdownReport;
use crate::error::Error;
use crate::service::Descriptor;
use crate::text_table::Table;

/// The outcome of each service's start, in topological order. Prints as a table.
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
    /// The positions of all services' required services in the report.
    requirements: Vec<usize>,
    took: Duration,
}

/// The outcome of one service's start.
#[derive(Debug, Clone)]
pub struct ServiceStart {
    pub(crate) service: &'static Descriptor,
    /// The service's part of the report's `requirements`.
    pub(crate) requirements: Range<usize>,
    pub(crate) outcome: StartOutcome,
    pub(crate) waited: Duration,
    pub(crate) own: Duration,
}

/// The outcome of a service's start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StartOutcome {
    /// The start initialized the service.
    Started,
    /// The service was ready before the start.
    AlreadyReady,
    /// The service itself failed.
    Failed(Error),
    /// The service was not initialized, because one of its dependencies failed.
    Skipped {
        /// The dependency that failed, or another reason.
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
    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub fn name(&self) -> &'static str {
        self.service.name()
    }

    /// Returns the name of the struct with its crate and modules.
    pub fn path(&self) -> &'static str {
        self.service.path
    }

    /// Returns the outcome.
    pub fn outcome(&self) -> &StartOutcome {
        &self.outcome
    }

    /// Returns the duration of the service's `initialize` and `ping`, pauses between retries included.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// Returns the time between the begin of the start and the service's `initialize`: the wait for its dependencies
    /// and for a thread.
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

    /// Returns the services to start, their dependencies included.
    pub fn services(&self) -> &[ServiceStart] {
        &self.services
    }

    /// Returns the duration of the start.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns the services that failed themselves, with their errors. Skipped services are not included.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &Error)> {
        self.services
            .iter()
            .filter_map(|service| match &service.outcome {
                StartOutcome::Failed(error) => Some((service.name(), error)),
                _ => None,
            })
    }

    /// Returns whether all services are ready.
    pub fn is_success(&self) -> bool {
        self.services.iter().all(|service| {
            matches!(
                service.outcome,
                StartOutcome::Started | StartOutcome::AlreadyReady
            )
        })
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn started(&self) -> impl Iterator<Item = &'static Descriptor> {
        let started = self.services.iter().filter(|service| service.is_started());
        started.map(|service| service.service)
    }

    /// Returns the services that determined the duration of the start, in the order of their start.
    ///
    /// The last one is the service that became ready last. Before each service comes the dependency that it waited for
    /// longest. A faster start requires one of these services to be faster.
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

    /// Returns the report as bars over time, in at most 100 columns. `·` stands for waiting and `█` for the service's
    /// own time. An asterisk marks the critical chain.
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

/// The start as bars over time; see [`StartReport::waterfall`].
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
            // A bar has at least one column.
            let start = column(row.waited).min(COLUMNS - 1);
            let end = column(row.ended()).clamp(start + 1, COLUMNS);
            let bar = format!("{}{}", "·".repeat(start), "█".repeat(end - start));
            let (name, own) = (name_of(row), row.own);
            writeln!(formatter, "{mark} {name:width$} {bar:COLUMNS$} {own:.1?}")?;
        }
        Ok(())
    }
}

/// The error of a start. Its report contains all failures.
///
/// The services that the start had initialized are shut down and can be started again, except those that other services
/// have used since.
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

    /// Returns the outcome of each service.
    pub fn report(&self) -> &StartReport {
        &self.report.0
    }

    /// Returns the shutdown of the services that the start had initialized.
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

// `Display` shows the causes.
impl std::error::Error for StartError {}
