//! Calls of the `#[setup]` function, `ping` and `shutdown`, and the errors that callers get when a step of an
//! initialization fails.

use std::cell::Cell;
use std::error::Error as StdError;
use std::future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::driver::Driver;
use super::worker_pool::{JobResult, WorkerPool};
use crate::engine::{
    Attempt, CheckClaim, CheckResult, ContainerId, Context, InContext, OwnServiceGuard,
};
use crate::error::{Error, Reason};
use crate::escaped::Escaped;
use crate::panics::{catch_panic, panic_message};
use crate::service::{Degraded, Descriptor, Health, Instance, Work};
use crate::telemetry;

/// A `#[setup]` function, as the attribute submits it to `inventory`.
#[derive(Debug)]
pub struct Setup {
    path: &'static str,
    run: fn() -> anyhow::Result<()>,
}

impl Setup {
    /// Registers `run`, which is declared at `path`.
    pub const fn new(path: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Setup { path, run }
    }
}

inventory::collect!(Setup);

static SETUP_RESULT: OnceLock<Result<(), Error>> = OnceLock::new();

thread_local! {
    static IN_SETUP: Cell<bool> = const { Cell::new(false) };
}

/// Runs the `#[setup]` function once. Other callers wait for its end. If it fails, no service starts.
///
/// The error names `service`, which needs the set-up.
pub(crate) fn ensure_setup(service: Option<&'static Descriptor>) -> Result<(), Error> {
    if let Some(result) = SETUP_RESULT.get() {
        return result.clone();
    }
    // Destructors of other thread-locals may start services after this one is destroyed. They are not in the set-up.
    if IN_SETUP.try_with(Cell::get).unwrap_or(false) {
        return Err(match service {
            Some(service) => Error::new(service.name(), Reason::UsedInSetup),
            None => Error::of_setup(Reason::UsedInSetup),
        });
    }
    SETUP_RESULT.get_or_init(run_setup).clone()
}

fn run_setup() -> Result<(), Error> {
    let mut setups: Vec<_> = inventory::iter::<Setup>.into_iter().collect();
    setups.sort_by_key(|setup| setup.path);
    let setup = match setups[..] {
        [] => return Ok(()),
        [setup] => setup,
        [first, second, ..] => {
            let several = Reason::SeveralSetups(first.path, second.path);
            return Err(Error::of_setup(several));
        }
    };
    // The function sets up the process, even if the first caller is in a scope.
    let _context = Context::PROCESS.enter();
    let _ = IN_SETUP.try_with(|in_setup| in_setup.set(true));
    let result = catch_panic(setup.run)
        .unwrap_or_else(|message| Err(anyhow::anyhow!("panicked: {message}")));
    let _ = IN_SETUP.try_with(|in_setup| in_setup.set(false));
    result.map_err(|cause| Error::of_setup(Reason::SetupFailed(setup.path, Arc::new(cause))))
}

/// Checks a service on the calling thread. If this report ends before an asynchronous check, the next report continues
/// the check.
pub(crate) fn run_check(
    claim: CheckClaim,
    context: &Context,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    driver: &Driver,
) -> CheckResult {
    let started_at = Instant::now();
    claim.0.lock().started_at = Some(started_at);
    let answer = match catch_panic(|| instance.ping()) {
        Ok(Work::Later(future)) => {
            let check = Arc::clone(&claim.0);
            let check_and_store = async move {
                let answer = AssertUnwindSafe(future).catch_unwind().await;
                store_check_result(&claim, service, started_at, answer.map_err(panic_message))
            };
            let future: BoxFuture<'static, CheckResult> =
                Box::pin(InContext::new(context.clone(), check_and_store));
            let future = future.shared();
            check.lock().future = Some(future.clone());
            return driver.block_on(future).unwrap_or_else(check_cancelled);
        }
        Ok(Work::Done(answer)) => Ok(answer),
        Err(message) => Err(message),
    };
    store_check_result(&claim, service, started_at, answer)
}

/// Returns the result of a check whose task was cancelled.
pub(crate) fn check_cancelled() -> CheckResult {
    let why = "the task that drove it was cancelled";
    check_failed(Duration::ZERO, why.to_owned())
}

/// Stores the result of a check, for reports that accept a recent one.
fn store_check_result(
    claim: &CheckClaim,
    service: &'static Descriptor,
    started_at: Instant,
    answer: Result<anyhow::Result<()>, String>,
) -> CheckResult {
    let latency = started_at.elapsed();
    let result = match answer {
        Ok(Ok(())) => CheckResult {
            ended_at: Instant::now(),
            latency,
            health: Health::Healthy,
            error: None,
        },
        Ok(Err(error)) => match error.downcast_ref::<Degraded>() {
            Some(degraded) => CheckResult {
                ended_at: Instant::now(),
                latency,
                health: Health::Degraded,
                error: Some(degraded.to_string()),
            },
            None => check_failed(latency, format!("{error:#}")),
        },
        Err(message) => check_failed(latency, format!("panicked: {message}")),
    };
    let _ = catch_panic(|| telemetry::pinged(service, latency, result.health == Health::Healthy));
    claim.0.lock().last = Some(result.clone());
    result
}

pub(crate) fn check_failed(latency: Duration, error: String) -> CheckResult {
    CheckResult {
        ended_at: Instant::now(),
        latency,
        health: Health::Unhealthy,
        error: Some(error),
    }
}

pub(crate) fn check_timed_out(latency: Duration, timeout: Duration) -> CheckResult {
    check_failed(latency, format!("no answer within {timeout:?}"))
}

/// Shuts one instance down. Returns the message of its error or panic.
pub(crate) fn shut_down_instance(
    container: ContainerId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    driver: &Driver,
) -> Result<(), String> {
    let started_at = Instant::now();
    let stopped = match begin_shutdown(container, service, instance) {
        Ok(Work::Done(result)) => Ok(result),
        work => driver
            .block_on(finish_shutdown(container, service, instance, work))
            .unwrap_or_else(|| Ok(Err(anyhow::anyhow!("the task that drove it was cancelled")))),
    };
    shutdown_result(service, started_at, stopped)
}

/// Shuts one instance down, like [`shut_down_instance`], without blocking the thread.
pub(crate) async fn shut_down_instance_async(
    container: ContainerId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
) -> Result<(), String> {
    let started_at = Instant::now();
    let work = begin_shutdown(container, service, instance);
    let stopped = finish_shutdown(container, service, instance, work).await;
    shutdown_result(service, started_at, stopped)
}

/// Shuts an instance down that came too late for its callers, within its timeout, and not on the calling thread.
///
/// A failure is logged; no caller waits for it.
pub(crate) fn shut_down_late(
    attempt: &Arc<Attempt>,
    instance: &'static dyn Instance,
    driver: &Driver,
) {
    let (service, context) = (attempt.service, attempt.context.clone());
    if service.has_default_shutdown() {
        return;
    }
    let mut pool = WorkerPool::new("shutdown", 1);
    let driver = driver.clone();
    pool.submit((), attempt.shutdown_timeout, move || {
        let _context = context.enter();
        shut_down_instance(context.container, service, instance, &driver)
    });
    match pool.next() {
        Some(((), _, JobResult::TimedOut)) => {
            let _ =
                catch_panic(|| telemetry::shutdown_timed_out(service, attempt.shutdown_timeout));
        }
        Some(((), _, JobResult::Failed(message))) => {
            let _ = catch_panic(|| telemetry::stopped(service, Duration::ZERO, Some(&message)));
        }
        Some(((), _, JobResult::Done(_))) | None => {}
    }
}

fn begin_shutdown(
    container: ContainerId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
) -> Result<Work<'static>, String> {
    let _ = catch_panic(|| telemetry::stopping(service));
    let _own = OwnServiceGuard::shutdown(container, service, instance);
    let (work, is_default) = catch_panic(|| instance.shutdown())?;
    if is_default {
        service.remember_default_shutdown();
    }
    Ok(work)
}

async fn finish_shutdown(
    container: ContainerId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    work: Result<Work<'static>, String>,
) -> Result<anyhow::Result<()>, String> {
    match work? {
        Work::Done(result) => Ok(result),
        Work::Later(future) => {
            let mut future = AssertUnwindSafe(future).catch_unwind();
            let polled = future::poll_fn(|context| {
                let _own = OwnServiceGuard::shutdown(container, service, instance);
                future.poll_unpin(context)
            });
            polled.await.map_err(panic_message)
        }
    }
}

fn shutdown_result(
    service: &Descriptor,
    started_at: Instant,
    stopped: Result<anyhow::Result<()>, String>,
) -> Result<(), String> {
    let result = match stopped {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(message) => Err(format!("panicked: {message}")),
    };
    let failure = result.as_ref().err().map(String::as_str);
    let _ = catch_panic(|| telemetry::stopped(service, started_at.elapsed(), failure));
    result
}

/// A step of an initialization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Initialize,
    Ping,
}

/// Converts the result of a step into its value, or into the error for callers. The outer error of `done` is a panic
/// message.
pub(crate) fn step_result<T>(
    attempt: &Attempt,
    step: Step,
    done: Result<anyhow::Result<T>, String>,
) -> Result<T, Error> {
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(step_failed(attempt, step, cause)),
        Err(message) => Err(match attempt.cycle.get() {
            // The step unwrapped the error of a cycle.
            Some(cycle) if message.contains(&format!("{cycle:?}")) => Error::clone(cycle),
            _ => step_panicked(attempt.service, message),
        }),
    }
}

/// Replaces a [`Degraded`] error by `Ok`, with a warning in the log.
pub(crate) fn allow_degraded(
    service: &Descriptor,
    result: Result<anyhow::Result<()>, String>,
) -> Result<anyhow::Result<()>, String> {
    result.map(|result| {
        result.or_else(|error| match error.downcast_ref::<Degraded>() {
            Some(degraded) => {
                log::warn!("{} is degraded: {}", service.name(), Escaped(degraded));
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

pub(crate) fn step_panicked(service: &Descriptor, message: String) -> Error {
    Error::new(service.name(), Reason::Panicked(message.into()))
}

/// Returns the error for callers of a service whose `initialize` or `ping` returned `cause`.
pub(crate) fn step_failed(attempt: &Attempt, step: Step, cause: anyhow::Error) -> Error {
    // A cycle explains more than the service that found it, so it replaces the error that wraps it.
    if let Some(cycle) = attempt.cycle.get()
        && format!("{cause:#}").contains(&cycle.to_string())
    {
        return Error::clone(cycle);
    }
    let service = attempt.service.name();
    // A service that returns another service's error unchanged failed because of that service.
    let outermost: &(dyn StdError + 'static) = cause.as_ref();
    if let Some(error) = outermost.downcast_ref::<Error>() {
        return error.clone().for_dependent(service);
    }
    let cause = Arc::new(cause);
    let reason = match step {
        Step::Initialize => Reason::InitializationFailed(cause),
        Step::Ping => Reason::PingFailed(cause),
    };
    Error::new(service, reason)
}
