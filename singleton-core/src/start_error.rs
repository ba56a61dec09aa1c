//! A start that did not succeed.

use std::fmt;

use crate::error::Error;
use crate::shutdown_report::ShutdownReport;
use crate::start_report::{StartOutcome, StartReport};

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
