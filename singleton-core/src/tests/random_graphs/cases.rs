//! Random cases: the graph, the behavior of its services, and the actions of threads. Also the replay, which checks
//! that the log of a case follows from its graph.

use std::collections::HashSet;

use anyhow::{Context, bail, ensure};
use proptest::collection::vec;
use proptest::prelude::*;

use super::number_of;
use crate::error::{Error, ErrorKind};
use crate::invoke::Step;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) services: Vec<Plan>,
    pub(super) threads: Vec<Vec<Action>>,
    /// If not 0, every so-many-th thread of a start or shutdown is refused.
    pub(super) refused_threads: usize,
}

/// The behavior of one service.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) requirements: Vec<usize>,
    pub(super) undeclared: Vec<UndeclaredUse>,
    pub(super) failure: Option<Failure>,
    pub(super) shutdown: Behavior,
    pub(super) yields: usize,
    /// Whether the service has an `init_timeout`, so that it initializes on its own thread.
    pub(super) on_own_thread: bool,
}

#[derive(Debug, Clone)]
pub(super) struct UndeclaredUse {
    pub(super) service: usize,
    pub(super) step: Step,
    pub(super) on_error: OnError,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum OnError {
    Swallow,
    Propagate,
    Wrap,
    Unwrap,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Behavior {
    Succeed,
    Error,
    Panic,
}

#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) behavior: Behavior,
    pub(super) times: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Resolve(usize),
    Start {
        services: Vec<usize>,
        threads: usize,
    },
    ShutDown,
    /// Opens a scope inside the case's one, and uses a service there that the process uses too.
    OpenScope,
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let services = prop_oneof![
        vec(plans(), 1..=6),
        vec(plans(), 1..=40),
        vec(plans(), 1..=200)
    ];
    let threads = vec(vec(actions(), 1..=8), 1..=16);
    let refused_threads = prop::sample::select(vec![0, 2, 3]);
    let parts = (services, shapes(), threads, refused_threads);
    parts.prop_map(|(raw, shape, threads, refused_threads)| {
        let count = raw.len();
        let plans = raw.into_iter().enumerate();
        let services = plans.map(|(number, raw)| raw.into_plan(number, count, shape));
        Case {
            services: services.collect(),
            threads,
            refused_threads,
        }
    })
}

/// The common parameters of a case's services.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// The percentages of services that fail, and that use others without a declaration. With 100, little would happen.
    failing: u8,
    using: u8,
    /// The maximum distance to a required service: 1 results in chains, a few in lattices.
    reach: usize,
    /// Whether most services have dependencies, so that chains and lattices are deep.
    deep: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let share = || prop::sample::select(vec![0, 2, 10, 40, 100]);
    let reach = prop_oneof![1..=4_usize, Just(200)];
    (share(), share(), reach, any::<bool>()).prop_map(|(failing, using, reach, deep)| Shape {
        failing,
        using,
        reach,
        deep,
    })
}

/// A service's plan before its graph is known.
#[derive(Debug, Clone)]
struct RawPlan {
    plan: Plan,
    requirements: usize,
    fails: u8,
    uses: u8,
}

impl RawPlan {
    fn into_plan(self, number: usize, count: usize, shape: Shape) -> Plan {
        let mut plan = self.plan;
        plan.requirements.truncate(match self.requirements {
            _ if number == 0 => 0,
            0 => 0,
            many if shape.deep => 1 + many % 3,
            many => many % 4,
        });
        for required in &mut plan.requirements {
            *required = number - 1 - *required % shape.reach.min(number);
        }
        plan.requirements.sort_unstable();
        plan.requirements.dedup();
        plan.undeclared.retain(|_| self.uses < shape.using);
        for dependency in &mut plan.undeclared {
            dependency.service %= count;
        }
        plan.failure = plan.failure.filter(|_| self.fails < shape.failing);
        plan
    }
}

fn plans() -> impl Strategy<Value = RawPlan> {
    let shutdown = prop_oneof![4 => Just(Behavior::Succeed), 1 => failures_of_a_step()];
    let plan = (
        vec(0..200_usize, 3),
        vec(uses(), 0..=2),
        prop::option::of(failures()),
        shutdown,
        0..4_usize,
        prop::bool::weighted(0.1),
    );
    let plan = plan.prop_map(
        |(requirements, undeclared, failure, shutdown, yields, on_own_thread)| Plan {
            requirements,
            undeclared,
            failure,
            shutdown,
            yields,
            on_own_thread,
        },
    );
    let raw = (plan, 0..24_usize, 0..100_u8, 0..100_u8);
    raw.prop_map(|(plan, requirements, fails, uses)| RawPlan {
        plan,
        requirements,
        fails,
        uses,
    })
}

fn uses() -> impl Strategy<Value = UndeclaredUse> {
    let on_error = [
        OnError::Swallow,
        OnError::Propagate,
        OnError::Wrap,
        OnError::Unwrap,
    ];
    let on_error = prop::sample::select(on_error.to_vec());
    (0..200_usize, steps(), on_error).prop_map(|(service, step, on_error)| UndeclaredUse {
        service,
        step,
        on_error,
    })
}

fn failures() -> impl Strategy<Value = Failure> {
    let times = prop_oneof![1..=3_usize, Just(usize::MAX)];
    (steps(), failures_of_a_step(), times).prop_map(|(step, behavior, times)| Failure {
        step,
        behavior,
        times,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![Step::Initialize, Step::Ping])
}

fn failures_of_a_step() -> impl Strategy<Value = Behavior> {
    prop::sample::select(vec![Behavior::Error, Behavior::Panic])
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        80 => (0..200_usize).prop_map(Action::Resolve),
        5 => Just(Action::OpenScope),
        2 => (vec(0..200_usize, 0..6), 1..=8_usize)
            .prop_map(|(services, threads)| Action::Start { services, threads }),
        1 => Just(Action::ShutDown),
    ]
}

/// The events of a case, in the order of the log.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Begins(usize),
    Fails(usize),
    Ready(usize),
    /// The result of a call by a service that initializes or shuts down, or by a thread.
    Answer(Option<usize>, usize, Option<Error>),
    Stops(usize),
    Stopped(usize),
    /// A start is about to begin. Whether it fails is entered later.
    Starts {
        fails: bool,
    },
    /// A start without concurrent actions failed after it had started these services.
    RolledBack(Vec<usize>),
    /// The whole container is about to be shut down.
    Closing,
    /// The whole container was shut down.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    Starting,
    Ready,
    Stopping,
}

/// The services of a case at a position of the log.
pub(super) struct Replay<'a> {
    graph: Graph<'a>,
    states: Vec<State>,
    /// The dependencies of each service.
    dependencies: Vec<HashSet<usize>>,
    /// How often each service became ready.
    ready_counts: Vec<usize>,
    closing: bool,
    closed: bool,
    /// Whether a running start will fail. Then its services are shut down and may start again.
    rolled_back: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(case: &'a Case) -> Self {
        let count = case.services.len();
        Replay {
            graph: Graph::new(case),
            states: vec![State::Idle; count],
            dependencies: vec![HashSet::new(); count],
            ready_counts: vec![0; count],
            closing: false,
            closed: false,
            rolled_back: false,
        }
    }

    /// Replays the whole log. Returns how often each service became ready.
    pub(super) fn read(mut self, log: &[Event]) -> anyhow::Result<Vec<usize>> {
        for (position, event) in log.iter().enumerate() {
            if let Err(error) = self.event(event) {
                let lines = log[..=position].iter().map(|event| format!("{event:?}\n"));
                bail!("{}{error}", lines.collect::<String>());
            }
        }
        for (number, state) in self.states.iter().enumerate() {
            ensure!(*state == State::Idle, "S{number} is left {state:?}");
        }
        Ok(self.ready_counts)
    }

    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match *event {
            Event::Begins(number) => {
                ensure!(!self.closed, "S{number} begins after the shutdown");
                self.transition(number, State::Idle, State::Starting)?;
                let again = self.ready_counts[number] > 0;
                ensure!(!again || self.rolled_back, "S{number} begins again");
                for required in self.graph.requirements(number) {
                    let state = self.states[*required];
                    ensure!(
                        state == State::Ready,
                        "S{number} begins, S{required} is {state:?}"
                    );
                    self.dependencies[number].insert(*required);
                }
            }
            Event::Fails(number) => {
                self.transition(number, State::Starting, State::Idle)?;
                self.dependencies[number].clear();
            }
            Event::Ready(number) => {
                self.transition(number, State::Starting, State::Ready)?;
                self.ready_counts[number] += 1;
            }
            Event::Answer(dependent, dependency, None) => {
                ensure!(
                    self.ready_counts[dependency] > 0,
                    "S{dependency} was never ready"
                );
                if let Some(dependent) = dependent {
                    let state = self.states[dependency];
                    ensure!(
                        state == State::Ready,
                        "S{dependent} got S{dependency}, which is {state:?}"
                    );
                    self.dependencies[dependent].insert(dependency);
                }
            }
            Event::Answer(dependent, dependency, Some(ref error)) => {
                let required = dependent.is_some_and(|dependent| {
                    self.graph.requirements(dependent).contains(&dependency)
                });
                ensure!(!required, "a requirement fails");
                self.failure(dependency, error)?;
            }
            Event::Stops(number) => {
                ensure!(
                    self.closing || self.rolled_back,
                    "S{number} stops for no reason"
                );
                self.transition(number, State::Ready, State::Stopping)?;
                for (dependent, dependencies) in self.dependencies.iter().enumerate() {
                    ensure!(
                        !dependencies.contains(&number),
                        "S{number} stops, S{dependent} holds on to it"
                    );
                }
            }
            Event::Stopped(number) => {
                self.transition(number, State::Stopping, State::Idle)?;
                self.dependencies[number].clear();
            }
            Event::Starts { fails } => self.rolled_back |= fails,
            Event::RolledBack(ref started) => {
                for number in started {
                    let dependency = self
                        .dependencies
                        .iter()
                        .any(|dependencies| dependencies.contains(number));
                    let may_be_shut_down = self.states[*number] == State::Idle;
                    ensure!(
                        dependency || may_be_shut_down,
                        "S{number} is not taken back"
                    );
                }
            }
            Event::Closing => self.closing = true,
            Event::Closed => self.closed = true,
        }
        Ok(())
    }

    fn transition(&mut self, number: usize, from: State, to: State) -> anyhow::Result<()> {
        let state = std::mem::replace(&mut self.states[number], to);
        ensure!(state == from, "S{number} goes from {state:?} to {to:?}");
        Ok(())
    }

    /// Checks that a call of the service may fail with this error.
    fn failure(&self, number: usize, error: &Error) -> anyhow::Result<()> {
        let graph = &self.graph;
        let may_be_shut_down = self.closing || self.rolled_back;
        let service = error
            .service()
            .context("all of these errors have a service")?;
        let failed_service = number_of(error.because_of().unwrap_or(service));
        let (named, failed_service) = match error.kind() {
            ErrorKind::ShutDown => {
                ensure!(may_be_shut_down, "nothing was shut down");
                (None, failed_service)
            }
            ErrorKind::SelfDependency => (None, graph.check_cycle(&[service, service])?),
            ErrorKind::CircularDependency => {
                let path = error.cycle().context("a cycle has a path")?;
                ensure!(path.len() > 2, "that is no cycle");
                (None, graph.check_cycle(path)?)
            }
            ErrorKind::InitializationFailed => {
                let fails = graph.fails(failed_service, Behavior::Error, Step::Initialize);
                ensure!(fails, "S{failed_service} initializes");
                (Some(service), failed_service)
            }
            ErrorKind::PingFailed => {
                let fails = graph.fails(failed_service, Behavior::Error, Step::Ping);
                ensure!(fails, "S{failed_service} answers pings");
                (Some(service), failed_service)
            }
            ErrorKind::Panicked => {
                let fails = graph.fails(failed_service, Behavior::Panic, Step::Initialize)
                    || graph.fails(failed_service, Behavior::Panic, Step::Ping);
                ensure!(fails, "S{failed_service} does not panic");
                (Some(service), failed_service)
            }
            _ => bail!("nothing here fails like that"),
        };
        let named = named.is_none_or(|named| number_of(named) == number);
        ensure!(named, "it is S{number} that was asked for");
        let involved = graph.required_services(number).contains(&failed_service);
        ensure!(involved, "S{number} does not need S{failed_service}");
        let cannot_fail = graph.calls_until_ready(number) == Some(1);
        ensure!(
            may_be_shut_down || !cannot_fail,
            "nothing that S{number} needs can fail"
        );
        Ok(())
    }
}

/// The possible failures of a case's services.
pub(super) struct Graph<'a> {
    case: &'a Case,
    /// The services that each service uses, declared or not.
    uses: Vec<Vec<usize>>,
    /// The services whose failure makes each service fail.
    required: Vec<Vec<usize>>,
    /// Whether each service uses itself, directly or through others.
    is_in_cycle: Vec<bool>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(case: &'a Case) -> Self {
        let edges = |swallowed: bool| -> Vec<Vec<usize>> {
            let of = |plan: &Plan| {
                let undeclared = plan.undeclared.iter();
                let undeclared = undeclared
                    .filter(|dependency| swallowed || dependency.on_error != OnError::Swallow);
                let undeclared = undeclared.map(|dependency| dependency.service);
                plan.requirements
                    .iter()
                    .copied()
                    .chain(undeclared)
                    .collect()
            };
            case.services.iter().map(of).collect()
        };
        let (uses, required) = (edges(true), edges(false));
        let is_in_cycle = |number: usize| reachable(&uses, &uses[number]).contains(&number);
        let is_in_cycle = (0..uses.len()).map(is_in_cycle).collect();
        Graph {
            case,
            uses,
            required,
            is_in_cycle,
        }
    }

    fn requirements(&self, number: usize) -> &'a [usize] {
        &self.case.services[number].requirements
    }

    /// Returns the service, and all services whose failure makes it fail.
    fn required_services(&self, number: usize) -> Vec<usize> {
        reachable(&self.required, &[number])
    }

    /// Returns the maximum number of consecutive calls until the service is ready, or `None` if it may always fail.
    pub(super) fn calls_until_ready(&self, number: usize) -> Option<usize> {
        let mut calls = 1_usize;
        for required_services in self.required_services(number) {
            if self.is_in_cycle[required_services] {
                return None;
            }
            if let Some(failure) = &self.case.services[required_services].failure {
                calls = calls.checked_add(failure.times)?;
            }
        }
        Some(calls)
    }

    /// Returns whether the service itself may fail with this error.
    fn fails(&self, number: usize, behavior: Behavior, step: Step) -> bool {
        let plan = &self.case.services[number];
        let on_error = match behavior {
            Behavior::Panic => OnError::Unwrap,
            _ => OnError::Wrap,
        };
        let failure = plan.failure.iter();
        let mut failure = failure.map(|failure| (failure.behavior, failure.step));
        let undeclared = plan.undeclared.iter();
        let mut undeclared = undeclared.map(|dependency| (dependency.on_error, dependency.step));
        failure.any(|fails| fails == (behavior, step))
            || undeclared.any(|dependency| dependency == (on_error, step))
    }

    /// Checks that each service of a cycle uses the next, and that only the first one appears twice. Returns the first
    /// one.
    fn check_cycle(&self, path: &[&str]) -> anyhow::Result<usize> {
        let path: Vec<_> = path.iter().map(|name| number_of(name)).collect();
        let distinct: HashSet<_> = path.iter().collect();
        ensure!(path.first() == path.last(), "the cycle is not closed");
        ensure!(distinct.len() + 1 == path.len(), "it goes round twice");
        for pair in path.windows(2) {
            let dependency = self.uses[pair[0]].contains(&pair[1]);
            ensure!(dependency, "S{} does not use S{}", pair[0], pair[1]);
        }
        Ok(path[0])
    }
}

/// Returns the given services, and all that can be reached from them.
fn reachable(edges: &[Vec<usize>], from: &[usize]) -> Vec<usize> {
    let mut seen = vec![false; edges.len()];
    let (mut pending, mut found) = (from.to_vec(), Vec::new());
    while let Some(number) = pending.pop() {
        if !std::mem::replace(&mut seen[number], true) {
            found.push(number);
            pending.extend(&edges[number]);
        }
    }
    found
}
