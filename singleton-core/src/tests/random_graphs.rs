//! Random graphs of services that fail, panic and use each other undeclared, called by many threads.
//!
//! Each case runs in a realm of its own and keeps a log. The log is replayed afterwards: all that the
//! services saw of each other must follow from the graph.

mod cases;

use std::any::Any;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, LazyLock, Mutex, Once, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use proptest::prelude::*;

use crate::application::{
    Extent, ServiceShutdown, ShutdownOptions, ShutdownOutcome, StartOptions, shut_down, start,
};
use crate::engine::{self, RealmId};
use crate::error::Error;
use crate::init::resolve;
use crate::invoke::{Driver, Step};
use crate::service::{Descriptor, Initialize, Instance, Number, Policy, Work};
use crate::testing::Scope;
use cases::{Action, Case, Event, Graph, OnError, Plan, Replay, Use, Way, cases};

/// The message of every failure and panic that a case asks for.
const ON_PURPOSE: &str = "on purpose";
const LONG: Duration = Duration::from_secs(3600);

/// A case that runs.
struct Run {
    case: Case,
    descriptors: Vec<&'static Descriptor>,
    log: Mutex<Vec<Event>>,
    /// How often a service with a failure has come to it.
    tried: Vec<AtomicUsize>,
    shut_down: Mutex<Vec<ServiceShutdown>>,
}

impl Run {
    fn new(case: Case) -> Self {
        let descriptors = descriptors(&case);
        Run {
            tried: case.services.iter().map(|_| AtomicUsize::new(0)).collect(),
            case,
            descriptors,
            log: Mutex::default(),
            shut_down: Mutex::default(),
        }
    }

    /// Gives where in the log the event is.
    fn note(&self, event: Event) -> usize {
        let mut log = self.log.lock().unwrap();
        log.push(event);
        log.len() - 1
    }

    fn call(&self, user: Option<usize>, number: usize) -> Result<(), Error> {
        let answer = resolve(self.descriptors[number]).map(|instance| {
            let node = instance.as_any().downcast_ref::<Node>();
            assert_eq!(node.map(|node| node.0), Some(number), "another's instance");
        });
        self.note(Event::Answer(user, number, answer.clone().err()));
        answer
    }

    fn step(&self, number: usize, step: Step) -> anyhow::Result<()> {
        let done = panic::catch_unwind(AssertUnwindSafe(|| self.work(number, step)));
        // Noted while the engine does not know: it cannot have begun anew.
        if !matches!(done, Ok(Ok(()))) {
            self.note(Event::Fails(number));
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
        for used in plan.undeclared.iter().filter(|used| used.step == step) {
            match (self.call(Some(number), used.service), used.on_error) {
                (Ok(()), _) | (_, OnError::Swallow) => {}
                (Err(error), OnError::HandOn) => return Err(error.into()),
                (Err(error), OnError::Wrap) => bail!("{ON_PURPOSE}: {error}"),
                (Err(error), OnError::Unwrap) => panic!("{ON_PURPOSE}: {error:?}"),
            }
        }
        match &plan.failure {
            Some(failure) if failure.step == step => {
                let again = self.tried[number].fetch_add(1, SeqCst) < failure.times;
                fail(if again { failure.way } else { Way::Fine })
            }
            _ => Ok(()),
        }
    }

    fn act(&self, realm: RealmId, action: &Action) {
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
                self.start(realm, services, *threads);
            }
            Action::ShutDown => {
                self.note(Event::Closing);
                let options = ShutdownOptions::new().timeout(LONG);
                let report = shut_down(realm, Extent::Realm, &options, &Driver::Here);
                self.note(Event::Closed);
                let services = report.services();
                self.shut_down.lock().unwrap().extend_from_slice(services);
            }
        }
    }

    /// Starts the services; if that fails, gives those of them that had become ready.
    fn start(
        &self,
        realm: RealmId,
        services: Vec<&'static Descriptor>,
        threads: usize,
    ) -> Option<Vec<usize>> {
        let noted = self.note(Event::Starts { fails: false });
        let options = StartOptions::new().threads(threads);
        let error = start(realm, services, &options, &Driver::Here).err()?;
        self.log.lock().unwrap()[noted] = Event::Starts { fails: true };
        for (service, error) in error.report().failures() {
            self.note(Event::Answer(None, number_of(service), Some(error.clone())));
        }
        let taken_back = error.taken_back().services();
        self.shut_down.lock().unwrap().extend_from_slice(taken_back);
        let started = error.report().started();
        Some(started.map(|service| number_of(service.name)).collect())
    }

    /// Lets the threads loose, then shuts down.
    fn run(&self, realm: RealmId) -> anyhow::Result<()> {
        let (scope, together) = (Scope::current(), Barrier::new(self.case.threads.len()));
        thread::scope(|threads| {
            for actions in &self.case.threads {
                threads.spawn(|| {
                    together.wait();
                    scope.enter(|| actions.iter().for_each(|action| self.act(realm, action)));
                });
            }
        });
        let mut actions = self.case.threads.iter().flatten();
        if !actions.any(|action| matches!(action, Action::ShutDown)) {
            if let Some(started) = self.start(realm, self.descriptors.clone(), 4) {
                self.note(Event::TakenBack(started));
            }
            self.get_all_ready()?;
        }
        self.act(realm, &Action::ShutDown);
        for (number, service) in self.descriptors.iter().enumerate() {
            let gone = match resolve(service) {
                Err(Error::ShutDown { service }) => number_of(service) == number,
                _ => false,
            };
            ensure!(gone, "S{number} can be called after the shutdown");
        }
        Ok(())
    }

    /// Calls each service, now undisturbed, until it is ready, if nothing keeps it from that.
    fn get_all_ready(&self) -> anyhow::Result<()> {
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
        let lives = Replay::new(&self.case).read(&log)?;
        let reported = self.shut_down.lock().unwrap();
        for (number, (plan, lives)) in self.case.services.iter().zip(lives).enumerate() {
            let outcomes = reported
                .iter()
                .filter(|service| service.name() == NAMES[number]);
            let outcomes: Vec<_> = outcomes.map(ServiceShutdown::outcome).collect();
            ensure!(
                outcomes.len() == lives,
                "S{number} was ready {lives} times: {outcomes:?}"
            );
            let expected = match plan.shutdown {
                Way::Fine => ShutdownOutcome::Done,
                Way::Error => ShutdownOutcome::Failed(ON_PURPOSE.to_owned()),
                Way::Panic => ShutdownOutcome::Failed(format!("panicked: {ON_PURPOSE}")),
            };
            let right = outcomes.iter().all(|outcome| **outcome == expected);
            ensure!(right, "S{number} was shut down: {outcomes:?}");
        }
        Ok(())
    }
}

fn run(case: Case) -> anyhow::Result<()> {
    let run = Arc::new(Run::new(case));
    let (realm, ran) = Scope::new().run(|| {
        let realm = engine::current_realm();
        RUNS.write().unwrap().insert(realm, Arc::clone(&run));
        (realm, run.run(realm))
    });
    RUNS.write().unwrap().remove(&realm);
    // A case that was broken off has been shut down by its scope, which reports nothing.
    ran.and_then(|()| run.check())
}

/// Keeps panics that a case asks for out of the output.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let message = panic.payload_as_str().unwrap_or_default();
            if !message.starts_with(ON_PURPOSE) {
                loud(panic);
            }
        }));
    });
}

/// Runs a case under a watchdog, and checks it.
fn survive(case: &Case) -> Result<(), String> {
    silence();
    let (done, ended) = mpsc::channel();
    let own = case.clone();
    thread::spawn(move || {
        let _ = done.send(run(own).map_err(|error| format!("{error:#}")));
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it hangs: {case:#?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the case itself panicked".to_owned()),
    }
}

fn configuration() -> ProptestConfig {
    let mut configuration = ProptestConfig {
        // A case that hangs takes its minute each time that it is tried.
        max_shrink_time: 120_000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        configuration.cases = 700;
    }
    configuration
}

/// Services are plain functions: they find their case by the realm that they are called in.
static RUNS: LazyLock<RwLock<HashMap<RealmId, Arc<Run>>>> = LazyLock::new(RwLock::default);

fn current() -> Arc<Run> {
    Arc::clone(&RUNS.read().unwrap()[&engine::current_realm()])
}

type Made = anyhow::Result<Box<dyn Instance>>;

fn initialize<const NUMBER: usize>() -> Made {
    let run = current();
    run.note(Event::Begins(NUMBER));
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

static INITIALIZE: [[fn() -> Made; 10]; 20] =
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
            run.note(Event::Ready(self.0));
        }
        Work::Done(checked)
    }

    fn shutdown(&self) -> Work<'_> {
        let run = current();
        run.note(Event::Stops(self.0));
        let plan = &run.case.services[self.0];
        for required in &plan.requirements {
            // Still there, or the replay will tell.
            let _ = run.call(Some(self.0), *required);
        }
        run.note(Event::Stopped(self.0));
        Work::Done(fail(plan.shutdown))
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

fn fail(way: Way) -> anyhow::Result<()> {
    match way {
        Way::Fine => Ok(()),
        Way::Error => Err(anyhow!(ON_PURPOSE)),
        Way::Panic => panic!("{ON_PURPOSE}"),
    }
}

/// Describes the services of a case. The engine knows a service by its address: it is never given back.
fn descriptors(case: &Case) -> Vec<&'static Descriptor> {
    let mut descriptors: Vec<&'static Descriptor> = Vec::new();
    for (number, plan) in case.services.iter().enumerate() {
        let required = plan.requirements.iter();
        let ranks = required.clone().map(|number| descriptors[*number].rank + 1);
        let requirements: Vec<_> = required
            .map(|number| DESCRIPTOR[number / 10][number % 10])
            .collect();
        descriptors.push(Box::leak(Box::new(Descriptor {
            number: Number::new(),
            name: NAMES[number],
            path: NAMES[number],
            rank: ranks.max().unwrap_or(0),
            asynchronous: false,
            initialize: Initialize::Blocking(INITIALIZE[number / 10][number % 10]),
            run: None,
            policy: Policy {
                init_timeout: plan.elsewhere.then_some(LONG),
                ..Policy::DEFAULT
            },
            requirements: requirements.leak(),
            publish: |_| {},
        })));
    }
    descriptors
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn whatever_the_graph_nothing_hangs_and_everything_has_its_order(case in cases()) {
        survive(&case).map_err(TestCaseError::fail)?;
    }
}

/// There are more ways down a lattice than could ever be tried.
#[test]
fn an_undeclared_use_at_the_top_of_a_lattice_is_noticed_in_no_time() {
    let mut services: Vec<_> = (0..200_usize)
        .map(|number| Plan {
            // None of them leads to the first.
            requirements: (number.saturating_sub(2).max(1)..number).collect(),
            undeclared: Vec::new(),
            failure: None,
            shutdown: Way::Fine,
            yields: 0,
            elsewhere: false,
        })
        .collect();
    services[199].undeclared.push(Use {
        service: 0,
        step: Step::Initialize,
        on_error: OnError::HandOn,
    });
    let threads = vec![vec![Action::Resolve(199)]];
    assert_eq!(survive(&Case { services, threads }), Ok(()));
}
