//! Random graphs of services that fail, panic and use each other without a declaration, called by many threads.
//!
//! Each case runs in its own container and keeps a log. Afterwards the log is replayed: everything that the services
//! observed must follow from the graph.

mod cases;

use std::any::Any;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Barrier, LazyLock, Mutex, Once, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use proptest::prelude::*;

use crate::application::{
    ServiceShutdown, ShutdownOptions, ShutdownOutcome, ShutdownScope, StartOptions, shut_down,
    start,
};
use crate::context::ServiceContext;
use crate::engine::{self, ContainerId, Context};
use crate::error::{Error, ErrorKind};
use crate::init::resolve;
use crate::invoke::{Driver, Step};
use crate::service::{Descriptor, Initialize, Instance, ServicePolicy, Work};
use crate::testing::Scope;
use crate::threads::faults;
use crate::{Service, service};
use cases::{Action, Behavior, Case, Event, Graph, OnError, Plan, Replay, UndeclaredUse, cases};

/// The message of all planned failures and panics.
const EXPECTED_FAILURE: &str = "on purpose";
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);

/// A running case.
struct Run {
    case: Case,
    descriptors: Vec<&'static Descriptor>,
    log: Mutex<Vec<Event>>,
    /// For each service, how often it reached its planned failure.
    attempts: Vec<AtomicUsize>,
    shut_down: Mutex<Vec<ServiceShutdown>>,
}

impl Run {
    fn new(case: Case) -> Self {
        let descriptors = descriptors(&case);
        Run {
            attempts: case.services.iter().map(|_| AtomicUsize::new(0)).collect(),
            case,
            descriptors,
            log: Mutex::default(),
            shut_down: Mutex::default(),
        }
    }

    /// Adds an event to the log. Returns its position.
    fn record(&self, event: Event) -> usize {
        let mut log = self.log.lock().unwrap();
        log.push(event);
        log.len() - 1
    }

    fn call(&self, dependent: Option<usize>, number: usize) -> Result<(), Error> {
        let answer = resolve(self.descriptors[number]).map(|instance| {
            let node = instance.as_any().downcast_ref::<Node>();
            assert_eq!(node.map(|node| node.0), Some(number), "wrong instance");
        });
        self.record(Event::Answer(dependent, number, answer.clone().err()));
        answer
    }

    fn step(&self, number: usize, step: Step) -> anyhow::Result<()> {
        let done = panic::catch_unwind(AssertUnwindSafe(|| self.work(number, step)));
        // Recorded before the engine learns of the failure, so the service cannot have begun again.
        if !matches!(done, Ok(Ok(()))) {
            self.record(Event::Fails(number));
        }
        done.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    fn work(&self, number: usize, step: Step) -> anyhow::Result<()> {
        let plan = &self.case.services[number];
        for _ in 0..plan.yields {
            thread::yield_now();
        }
        for required in &plan.requirements {
            self.call(Some(number), *required)?;
        }
        for dependency in plan
            .undeclared
            .iter()
            .filter(|dependency| dependency.step == step)
        {
            match (
                self.call(Some(number), dependency.service),
                dependency.on_error,
            ) {
                (Ok(()), _) | (_, OnError::Swallow) => {}
                (Err(error), OnError::Propagate) => return Err(error.into()),
                (Err(error), OnError::Wrap) => bail!("{EXPECTED_FAILURE}: {error}"),
                (Err(error), OnError::Unwrap) => panic!("{EXPECTED_FAILURE}: {error:?}"),
            }
        }
        match &plan.failure {
            Some(failure) if failure.step == step => {
                let again = self.attempts[number].fetch_add(1, SeqCst) < failure.times;
                fail(if again {
                    failure.behavior
                } else {
                    Behavior::Succeed
                })
            }
            _ => Ok(()),
        }
    }

    /// Returns the plan by which threads are refused. Those of initializations are not, because a service without a
    /// thread fails.
    fn refuse_threads(&self) -> faults::Refuse {
        let nth = self.case.refused_threads;
        let started = AtomicUsize::new(0);
        Arc::new(move |name: &str| {
            nth > 0
                && !name.starts_with("init ")
                && (started.fetch_add(1, SeqCst) + 1).is_multiple_of(nth)
        })
    }

    fn perform(&self, action: &Action) {
        let count = self.case.services.len();
        match action {
            Action::Resolve(number) => {
                let _ = self.call(None, number % count);
            }
            Action::Start { services, threads } => {
                let some = services
                    .iter()
                    .map(|number| self.descriptors[number % count]);
                let mut services: Vec<_> = some.collect();
                if services.is_empty() {
                    services.clone_from(&self.descriptors);
                }
                self.start(services, *threads);
            }
            Action::ShutDown => {
                self.record(Event::Closing);
                let options = ShutdownOptions::new().timeout(LONG_TIMEOUT);
                let report = shut_down(
                    &Context::current(),
                    ShutdownScope::All,
                    &options,
                    &Driver::Here,
                );
                self.record(Event::Closed);
                let services = report.services();
                self.shut_down.lock().unwrap().extend_from_slice(services);
            }
            Action::OpenScope => {
                let process = {
                    let _context = Context::PROCESS.enter();
                    call_shared()
                };
                Scope::new().run(|| {
                    assert!(!ptr::eq(process, call_shared()), "a scope sees the process");
                });
            }
        }
    }

    /// Starts the services. If the start fails, returns the services that had become ready.
    fn start(&self, services: Vec<&'static Descriptor>, threads: usize) -> Option<Vec<usize>> {
        let position = self.record(Event::Starts { fails: false });
        let options = StartOptions::new().threads(threads);
        let error = start(&Context::current(), services, &options, &Driver::Here).err()?;
        self.log.lock().unwrap()[position] = Event::Starts { fails: true };
        for (service, error) in error.report().failures() {
            self.record(Event::Answer(None, number_of(service), Some(error.clone())));
        }
        let rolled_back = error.taken_back().services();
        self.shut_down
            .lock()
            .unwrap()
            .extend_from_slice(rolled_back);
        let started = error.report().started();
        Some(
            started
                .map(|service| number_of(service.declared_name))
                .collect(),
        )
    }

    /// Runs all threads, and then shuts down.
    fn run(&self) -> anyhow::Result<()> {
        let (scope, barrier) = (
            ServiceContext::current(),
            Barrier::new(self.case.threads.len()),
        );
        thread::scope(|threads| {
            for actions in &self.case.threads {
                threads.spawn(|| {
                    barrier.wait();
                    let work = || actions.iter().for_each(|action| self.perform(action));
                    faults::with(self.refuse_threads(), || scope.sync_scope(work));
                });
            }
        });
        let mut actions = self.case.threads.iter().flatten();
        if !actions.any(|action| matches!(action, Action::ShutDown)) {
            if let Some(started) = self.start(self.descriptors.clone(), 4) {
                self.record(Event::RolledBack(started));
            }
            self.check_all_become_ready()?;
        }
        self.perform(&Action::ShutDown);
        for (number, service) in self.descriptors.iter().enumerate() {
            let is_shut_down = match resolve(service) {
                Err(error) if error.kind() == ErrorKind::ShutDown => {
                    error.service().map(number_of) == Some(number)
                }
                _ => false,
            };
            ensure!(is_shut_down, "S{number} can be called after the shutdown");
        }
        Ok(())
    }

    /// Calls each service that can become ready, without concurrent calls, until it is ready.
    fn check_all_become_ready(&self) -> anyhow::Result<()> {
        let graph = Graph::new(&self.case);
        for number in 0..self.descriptors.len() {
            if let Some(calls) = graph.calls_until_ready(number) {
                let ready = (0..calls).any(|_| self.call(None, number).is_ok());
                ensure!(ready, "S{number} does not become ready");
            }
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        let log = self.log.lock().unwrap();
        let ready_counts = Replay::new(&self.case).read(&log)?;
        let reported = self.shut_down.lock().unwrap();
        for (number, (plan, ready_counts)) in
            self.case.services.iter().zip(ready_counts).enumerate()
        {
            let outcomes = reported
                .iter()
                .filter(|service| service.name() == NAMES[number]);
            let outcomes: Vec<_> = outcomes.map(ServiceShutdown::outcome).collect();
            ensure!(
                outcomes.len() == ready_counts,
                "S{number} was ready {ready_counts} times: {outcomes:?}"
            );
            let expected = match plan.shutdown {
                Behavior::Succeed => ShutdownOutcome::Done,
                Behavior::Error => ShutdownOutcome::Failed(EXPECTED_FAILURE.to_owned()),
                Behavior::Panic => ShutdownOutcome::Failed(format!("panicked: {EXPECTED_FAILURE}")),
            };
            let as_expected = outcomes.iter().all(|outcome| **outcome == expected);
            ensure!(as_expected, "S{number} was shut down: {outcomes:?}");
        }
        Ok(())
    }
}

fn run(case: Case) -> anyhow::Result<()> {
    let run = Arc::new(Run::new(case));
    let (container, result) = Scope::new().run(|| {
        let container = engine::current_container();
        RUNS.write().unwrap().insert(container, Arc::clone(&run));
        (container, run.run())
    });
    RUNS.write().unwrap().remove(&container);
    // After an error, the scope has shut the case down without a report, so there is nothing to check.
    result.and_then(|()| run.check())
}

/// Removes planned panics from the output.
fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let message = panic.payload_as_str().unwrap_or_default();
            if !message.starts_with(EXPECTED_FAILURE) {
                default_hook(panic);
            }
        }));
    });
}

/// Runs and checks a case, with a timeout of 60 s.
fn run_with_watchdog(case: &Case) -> Result<(), String> {
    silence_expected_panics();
    let (done, ended) = mpsc::channel();
    let own = case.clone();
    thread::spawn(move || {
        let has_ended = AtomicBool::new(false);
        let result = thread::scope(|threads| {
            let outside = threads.spawn(|| use_process_until(&has_ended));
            let result = run(own).map_err(|error| format!("{error:#}"));
            has_ended.store(true, SeqCst);
            let outside = outside
                .join()
                .map_err(|_| "a call outside failed".to_owned());
            result.and(outside)
        });
        let _ = done.send(result);
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it hangs: {case:#?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the case itself panicked".to_owned()),
    }
}

fn configuration() -> ProptestConfig {
    let mut configuration = ProptestConfig {
        // Each run of a hanging case takes a minute.
        max_shrink_time: 120_000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        configuration.cases = 700;
    }
    configuration
}

/// The running cases by container. Services are plain functions, which find their case by the container of the caller.
static RUNS: LazyLock<RwLock<HashMap<ContainerId, Arc<Run>>>> = LazyLock::new(RwLock::default);

fn current() -> Arc<Run> {
    Arc::clone(&RUNS.read().unwrap()[&engine::current_container()])
}

/// A service that the process and all cases use, each with an instance of its own.
#[service]
struct Shared(AtomicUsize);

impl Service for Shared {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shared(AtomicUsize::new(7)))
    }
}

fn call_shared() -> &'static Shared {
    let shared = Shared::instance().unwrap();
    assert_eq!(
        shared.0.load(Relaxed),
        7,
        "the instance is not fully visible"
    );
    shared
}

/// Calls a service outside all scopes until the case ends, while it opens and ends scopes.
fn use_process_until(ended: &AtomicBool) {
    let first = call_shared();
    while !ended.load(SeqCst) {
        assert!(ptr::eq(first, call_shared()), "a scope's instance got out");
        thread::yield_now();
    }
}

type InitResult = anyhow::Result<Box<dyn Instance>>;

fn initialize<const NUMBER: usize>() -> InitResult {
    let run = current();
    run.record(Event::Begins(NUMBER));
    run.step(NUMBER, Step::Initialize)?;
    Ok(Box::new(Node(NUMBER)))
}

fn descriptor<const NUMBER: usize>() -> &'static Descriptor {
    current().descriptors[NUMBER]
}

macro_rules! ten {
    ($function:ident, $($ten:literal)*) => {
        [$([
            $function::<{ $ten * 10 }>, $function::<{ $ten * 10 + 1 }>, $function::<{ $ten * 10 + 2 }>,
            $function::<{ $ten * 10 + 3 }>, $function::<{ $ten * 10 + 4 }>, $function::<{ $ten * 10 + 5 }>,
            $function::<{ $ten * 10 + 6 }>, $function::<{ $ten * 10 + 7 }>, $function::<{ $ten * 10 + 8 }>,
            $function::<{ $ten * 10 + 9 }>,
        ]),*]
    };
}

static INITIALIZE: [[fn() -> InitResult; 10]; 20] =
    ten!(initialize, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
static DESCRIPTOR: [[fn() -> &'static Descriptor; 10]; 20] =
    ten!(descriptor, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    (0..200)
        .map(|number| &*format!("S{number}").leak())
        .collect()
});

fn number_of(name: &str) -> usize {
    name[1..].parse().unwrap()
}

struct Node(usize);

impl Instance for Node {
    fn ping(&self) -> Work<'_> {
        let run = current();
        let checked = run.step(self.0, Step::Ping);
        if checked.is_ok() {
            run.record(Event::Ready(self.0));
        }
        Work::Done(checked)
    }

    fn shutdown(&self) -> (Work<'_>, bool) {
        let run = current();
        run.record(Event::Stops(self.0));
        let plan = &run.case.services[self.0];
        for required in &plan.requirements {
            // The replay checks that the dependency is still ready.
            let _ = run.call(Some(self.0), *required);
        }
        run.record(Event::Stopped(self.0));
        (Work::Done(fail(plan.shutdown)), false)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

fn fail(behavior: Behavior) -> anyhow::Result<()> {
    match behavior {
        Behavior::Succeed => Ok(()),
        Behavior::Error => Err(anyhow!(EXPECTED_FAILURE)),
        Behavior::Panic => panic!("{EXPECTED_FAILURE}"),
    }
}

/// Describes the services of a case. A descriptor's address is its identity, so descriptors are leaked.
fn descriptors(case: &Case) -> Vec<&'static Descriptor> {
    let mut descriptors: Vec<&'static Descriptor> = Vec::new();
    for (number, plan) in case.services.iter().enumerate() {
        let required = plan.requirements.iter();
        let ranks = required.clone().map(|number| descriptors[*number].rank + 1);
        let requirements: Vec<_> = required
            .map(|number| DESCRIPTOR[number / 10][number % 10])
            .collect();
        let initialize = Initialize::Blocking(INITIALIZE[number / 10][number % 10]);
        descriptors.push(Box::leak(Box::new(Descriptor {
            rank: ranks.max().unwrap_or(0),
            policy: ServicePolicy {
                init_timeout: plan.on_own_thread.then_some(LONG_TIMEOUT),
                ..ServicePolicy::DEFAULT
            },
            ..Descriptor::for_test(NAMES[number], requirements.leak(), initialize)
        })));
    }
    descriptors
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn random_graphs_never_hang_and_keep_dependency_order(case in cases()) {
        run_with_watchdog(&case).map_err(TestCaseError::fail)?;
    }
}

/// The number of paths in the lattice is exponential, so a search that tries each path would not end.
#[test]
fn undeclared_use_in_a_deep_lattice_is_found_without_trying_every_path() {
    let mut services: Vec<_> = (0..200_usize)
        .map(|number| Plan {
            // None of the services requires the first one.
            requirements: (number.saturating_sub(2).max(1)..number).collect(),
            undeclared: Vec::new(),
            failure: None,
            shutdown: Behavior::Succeed,
            yields: 0,
            on_own_thread: false,
        })
        .collect();
    services[199].undeclared.push(UndeclaredUse {
        service: 0,
        step: Step::Initialize,
        on_error: OnError::Propagate,
    });
    let threads = vec![vec![Action::Resolve(199)]];
    assert_eq!(
        run_with_watchdog(&Case {
            services,
            threads,
            refused_threads: 0
        }),
        Ok(())
    );
}
