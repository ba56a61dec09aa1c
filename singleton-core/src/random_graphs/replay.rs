//! Whether what happened in a case follows from its graph.

use std::collections::HashSet;

use anyhow::{bail, ensure};

use super::cases::{Case, OnError, Plan, Way};
use super::services::number_of;
use crate::error::Error;
use crate::fault::Step;

/// What happens, in the order in which it was noted.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Begins(usize),
    Fails(usize),
    Ready(usize),
    /// What a call got: from a service while it initialises or shuts down, or from a thread.
    Answer(Option<usize>, usize, Option<Error>),
    Stops(usize),
    Stopped(usize),
    /// A start is about to begin; whether it fails is known in hindsight.
    Starts {
        fails: bool,
    },
    /// It failed and had started these, and nobody else did anything meanwhile.
    TakenBack(Vec<usize>),
    /// The whole realm is about to be shut down.
    Closing,
    /// It has been.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    Starting,
    Ready,
    Stopping,
}

/// The services of a case as far as the log has been read.
pub(super) struct Replay<'a> {
    graph: Graph<'a>,
    states: Vec<State>,
    /// What each holds on to.
    holds: Vec<HashSet<usize>>,
    /// How often each became ready.
    lives: Vec<usize>,
    closing: bool,
    closed: bool,
    /// Whether a start fails that has begun: then what it had started is taken back, and may start anew.
    taken_back: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(case: &'a Case) -> Self {
        let count = case.services.len();
        Replay {
            graph: Graph::new(case),
            states: vec![State::Idle; count],
            holds: vec![HashSet::new(); count],
            lives: vec![0; count],
            closing: false,
            closed: false,
            taken_back: false,
        }
    }

    /// Reads the whole log; gives how often each service has become ready.
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
        Ok(self.lives)
    }

    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match *event {
            Event::Begins(number) => {
                ensure!(!self.closed, "S{number} begins after the shutdown");
                self.go(number, State::Idle, State::Starting)?;
                let again = self.lives[number] > 0;
                ensure!(!again || self.taken_back, "S{number} begins again");
                for required in self.graph.requirements(number) {
                    let state = self.states[*required];
                    ensure!(
                        state == State::Ready,
                        "S{number} begins, S{required} is {state:?}"
                    );
                    self.holds[number].insert(*required);
                }
            }
            Event::Fails(number) => {
                self.go(number, State::Starting, State::Idle)?;
                self.holds[number].clear();
            }
            Event::Ready(number) => {
                self.go(number, State::Starting, State::Ready)?;
                self.lives[number] += 1;
            }
            Event::Answer(user, used, None) => {
                ensure!(self.lives[used] > 0, "S{used} was never ready");
                if let Some(user) = user {
                    let state = self.states[used];
                    ensure!(
                        state == State::Ready,
                        "S{user} got S{used}, which is {state:?}"
                    );
                    self.holds[user].insert(used);
                }
            }
            Event::Answer(user, used, Some(ref error)) => {
                let required =
                    user.is_some_and(|user| self.graph.requirements(user).contains(&used));
                ensure!(!required, "a requirement fails");
                self.failure(used, error)?;
            }
            Event::Stops(number) => {
                ensure!(
                    self.closing || self.taken_back,
                    "S{number} stops for no reason"
                );
                self.go(number, State::Ready, State::Stopping)?;
                for (user, holds) in self.holds.iter().enumerate() {
                    ensure!(
                        !holds.contains(&number),
                        "S{number} stops, S{user} holds on to it"
                    );
                }
            }
            Event::Stopped(number) => {
                self.go(number, State::Stopping, State::Idle)?;
                self.holds[number].clear();
            }
            Event::Starts { fails } => self.taken_back |= fails,
            Event::TakenBack(ref started) => {
                for number in started {
                    let used = self.holds.iter().any(|holds| holds.contains(number));
                    let gone = self.states[*number] == State::Idle;
                    ensure!(used || gone, "S{number} is not taken back");
                }
            }
            Event::Closing => self.closing = true,
            Event::Closed => self.closed = true,
        }
        Ok(())
    }

    fn go(&mut self, number: usize, from: State, to: State) -> anyhow::Result<()> {
        let state = std::mem::replace(&mut self.states[number], to);
        ensure!(state == from, "S{number} goes from {state:?} to {to:?}");
        Ok(())
    }

    /// Checks that a call of the service may fail like this.
    fn failure(&self, number: usize, error: &Error) -> anyhow::Result<()> {
        let graph = &self.graph;
        let gone = self.closing || self.taken_back;
        let (named, culprit) = match error {
            Error::ShutDown { service } => {
                ensure!(gone, "nothing was shut down");
                (None, number_of(service))
            }
            Error::SelfDependency { service } => (None, graph.check_circle(&[service, service])?),
            Error::CircularDependency { path } => {
                ensure!(path.len() > 2, "that is no circle");
                (None, graph.check_circle(path)?)
            }
            Error::InitializationFailed {
                service,
                because_of,
                ..
            } => {
                let culprit = number_of(because_of.unwrap_or(service));
                let fails = graph.fails(culprit, Way::Error, Step::Initialize);
                ensure!(fails, "S{culprit} initialises");
                (Some(*service), culprit)
            }
            Error::PingFailed {
                service,
                because_of,
                ..
            } => {
                let culprit = number_of(because_of.unwrap_or(service));
                let fails = graph.fails(culprit, Way::Error, Step::Ping);
                ensure!(fails, "S{culprit} answers pings");
                (Some(*service), culprit)
            }
            Error::Panicked {
                service,
                because_of,
                ..
            } => {
                let culprit = number_of(because_of.unwrap_or(service));
                let fails = graph.fails(culprit, Way::Panic, Step::Initialize)
                    || graph.fails(culprit, Way::Panic, Step::Ping);
                ensure!(fails, "S{culprit} does not panic");
                (Some(*service), culprit)
            }
            _ => bail!("nothing here fails like that"),
        };
        let named = named.is_none_or(|named| number_of(named) == number);
        ensure!(named, "it is S{number} that was asked for");
        let involved = graph.needed(number).contains(&culprit);
        ensure!(involved, "S{number} does not need S{culprit}");
        let sound = graph.calls_until_ready(number) == Some(1);
        ensure!(gone || !sound, "nothing that S{number} needs can fail");
        Ok(())
    }
}

/// Who may fail of what in a case.
pub(super) struct Graph<'a> {
    case: &'a Case,
    /// Whom each service uses, declared or not.
    uses: Vec<Vec<usize>>,
    /// Without whom it fails.
    needs: Vec<Vec<usize>>,
    /// Whether it uses itself, through however many others.
    circular: Vec<bool>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(case: &'a Case) -> Self {
        let edges = |swallowed: bool| -> Vec<Vec<usize>> {
            let of = |plan: &Plan| {
                let undeclared = plan.undeclared.iter();
                let undeclared =
                    undeclared.filter(|used| swallowed || used.on_error != OnError::Swallow);
                let undeclared = undeclared.map(|used| used.service);
                plan.requirements
                    .iter()
                    .copied()
                    .chain(undeclared)
                    .collect()
            };
            case.services.iter().map(of).collect()
        };
        let (uses, needs) = (edges(true), edges(false));
        let circular = |number: usize| reached(&uses, &uses[number]).contains(&number);
        let circular = (0..uses.len()).map(circular).collect();
        Graph {
            case,
            uses,
            needs,
            circular,
        }
    }

    fn requirements(&self, number: usize) -> &'a [usize] {
        &self.case.services[number].requirements
    }

    /// The service and all without which it fails.
    fn needed(&self, number: usize) -> Vec<usize> {
        reached(&self.needs, &[number])
    }

    /// How many calls the service takes at most, one after the other, until it is ready; none if it may fail for ever.
    pub(super) fn calls_until_ready(&self, number: usize) -> Option<usize> {
        let mut calls = 1_usize;
        for needed in self.needed(number) {
            if self.circular[needed] {
                return None;
            }
            if let Some(failure) = &self.case.services[needed].failure {
                calls = calls.checked_add(failure.times)?;
            }
        }
        Some(calls)
    }

    /// Tells whether the service itself may fail in this way.
    fn fails(&self, number: usize, way: Way, step: Step) -> bool {
        let plan = &self.case.services[number];
        let on_error = match way {
            Way::Panic => OnError::Unwrap,
            _ => OnError::Wrap,
        };
        let failure = plan.failure.iter();
        let mut failure = failure.map(|failure| (failure.way, failure.step));
        let undeclared = plan.undeclared.iter();
        let mut undeclared = undeclared.map(|used| (used.on_error, used.step));
        failure.any(|fails| fails == (way, step)) || undeclared.any(|used| used == (on_error, step))
    }

    /// Checks that each uses the next and that none but the first returns; gives the first.
    fn check_circle(&self, path: &[&str]) -> anyhow::Result<usize> {
        let path: Vec<_> = path.iter().map(|name| number_of(name)).collect();
        let distinct: HashSet<_> = path.iter().collect();
        ensure!(path.first() == path.last(), "the circle is not closed");
        ensure!(distinct.len() + 1 == path.len(), "it goes round twice");
        for pair in path.windows(2) {
            let used = self.uses[pair[0]].contains(&pair[1]);
            ensure!(used, "S{} does not use S{}", pair[0], pair[1]);
        }
        Ok(path[0])
    }
}

/// Those, and all that can be reached from them.
fn reached(edges: &[Vec<usize>], from: &[usize]) -> Vec<usize> {
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
