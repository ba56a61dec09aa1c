//! What has gone wrong in a step of a user's, as the error that callers get.

use std::error::Error as StdError;
use std::sync::Arc;

use crate::attempt::Attempt;
use crate::degraded::Degraded;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::escaped::Escaped;

/// The step of an initialisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Initialize,
    Ping,
}

/// Turns what came of a step into its value, or the error for callers. The outer error is the message of a panic.
pub(crate) fn judge<T>(
    attempt: &Attempt,
    step: Step,
    done: Result<anyhow::Result<T>, String>,
) -> Result<T, Error> {
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(failed(attempt, step, cause)),
        Err(message) => Err(match attempt.cycle.get() {
            // `unwrap` on the error of a circle.
            Some(cycle) if message.contains(&format!("{cycle:?}")) => Error::clone(cycle),
            _ => panicked(attempt.service, message),
        }),
    }
}

/// Lets a service pass whose ping says that it works, if not as it should.
pub(crate) fn usable(
    service: &Descriptor,
    checked: Result<anyhow::Result<()>, String>,
) -> Result<anyhow::Result<()>, String> {
    checked.map(|result| {
        result.or_else(|error| match error.downcast_ref::<Degraded>() {
            Some(degraded) => {
                log::warn!("{} is degraded: {}", service.name, Escaped(degraded));
                Ok(())
            }
            None => Err(error),
        })
    })
}

pub(crate) fn not_provided() -> anyhow::Error {
    anyhow::anyhow!(
        "no implementation was chosen; call its `provide` or `bind` before the first use"
    )
}

pub(crate) fn panicked(service: &Descriptor, message: String) -> Error {
    Error::Panicked {
        service: service.name,
        because_of: None,
        message: message.into(),
    }
}

/// Makes the error of a service whose `initialize` or `ping` returned one.
pub(crate) fn failed(attempt: &Attempt, step: Step, cause: anyhow::Error) -> Error {
    // However it was wrapped, a circle is more telling than the service that noticed it.
    if let Some(cycle) = attempt.cycle.get()
        && format!("{cause:#}").contains(&cycle.to_string())
    {
        return Error::clone(cycle);
    }
    let service = attempt.service.name;
    // A service that hands on the error of one that it used, as it is, has failed because of that one.
    let outermost: &(dyn StdError + 'static) = cause.as_ref();
    if let Some(error) = outermost.downcast_ref::<Error>() {
        return error.clone().for_dependent(service);
    }
    let (because_of, cause) = (None, Arc::new(cause));
    match step {
        Step::Initialize => Error::InitializationFailed {
            service,
            because_of,
            cause,
        },
        Step::Ping => Error::PingFailed {
            service,
            because_of,
            cause,
        },
    }
}
