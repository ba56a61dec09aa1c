//! What is random: the graph, how its services behave, and what threads do with them.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::fault::Step;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) services: Vec<Plan>,
    pub(super) threads: Vec<Vec<Action>>,
}

/// How one service behaves.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) requirements: Vec<usize>,
    pub(super) undeclared: Vec<Use>,
    pub(super) failure: Option<Failure>,
    pub(super) shutdown: Way,
    pub(super) yields: usize,
    /// With a limit of time, a service is initialised on a thread of its own.
    pub(super) elsewhere: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) service: usize,
    pub(super) step: Step,
    pub(super) on_error: OnError,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum OnError {
    Swallow,
    HandOn,
    Wrap,
    Unwrap,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    Fine,
    Error,
    Panic,
}

#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) way: Way,
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
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let services = prop_oneof![
        vec(plans(), 1..=6),
        vec(plans(), 1..=40),
        vec(plans(), 1..=200)
    ];
    let threads = vec(vec(actions(), 1..=8), 1..=16);
    (services, shapes(), threads).prop_map(|(raw, shape, threads)| {
        let count = raw.len();
        let plans = raw.into_iter().enumerate();
        let services = plans.map(|(number, raw)| raw.shaped(number, count, shape));
        Case {
            services: services.collect(),
            threads,
        }
    })
}

/// What the services of a case have in common.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// How many of a hundred fail, and use others undeclared: where all do, nothing much happens.
    failing: u8,
    using: u8,
    /// How far down requirements reach: 1 makes chains, a few make lattices.
    reach: usize,
    /// Whether most services have requirements, so that chains and lattices are deep.
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

/// A plan before it is known in which graph it is.
#[derive(Debug, Clone)]
struct Raw {
    plan: Plan,
    requirements: usize,
    fails: u8,
    uses: u8,
}

impl Raw {
    fn shaped(self, number: usize, count: usize, shape: Shape) -> Plan {
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
        for used in &mut plan.undeclared {
            used.service %= count;
        }
        plan.failure = plan.failure.filter(|_| self.fails < shape.failing);
        plan
    }
}

fn plans() -> impl Strategy<Value = Raw> {
    let shutdown = prop_oneof![4 => Just(Way::Fine), 1 => ways()];
    let plan = (
        vec(0..200_usize, 3),
        vec(uses(), 0..=2),
        prop::option::of(failures()),
        shutdown,
        0..4_usize,
        prop::bool::weighted(0.1),
    );
    let plan = plan.prop_map(
        |(requirements, undeclared, failure, shutdown, yields, elsewhere)| Plan {
            requirements,
            undeclared,
            failure,
            shutdown,
            yields,
            elsewhere,
        },
    );
    let raw = (plan, 0..24_usize, 0..100_u8, 0..100_u8);
    raw.prop_map(|(plan, requirements, fails, uses)| Raw {
        plan,
        requirements,
        fails,
        uses,
    })
}

fn uses() -> impl Strategy<Value = Use> {
    let on_error = [
        OnError::Swallow,
        OnError::HandOn,
        OnError::Wrap,
        OnError::Unwrap,
    ];
    let on_error = prop::sample::select(on_error.to_vec());
    (0..200_usize, steps(), on_error).prop_map(|(service, step, on_error)| Use {
        service,
        step,
        on_error,
    })
}

fn failures() -> impl Strategy<Value = Failure> {
    let times = prop_oneof![1..=3_usize, Just(usize::MAX)];
    (steps(), ways(), times).prop_map(|(step, way, times)| Failure { step, way, times })
}

fn steps() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![Step::Initialize, Step::Ping])
}

fn ways() -> impl Strategy<Value = Way> {
    prop::sample::select(vec![Way::Error, Way::Panic])
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        80 => (0..200_usize).prop_map(Action::Resolve),
        2 => (vec(0..200_usize, 0..6), 1..=8_usize)
            .prop_map(|(services, threads)| Action::Start { services, threads }),
        1 => Just(Action::ShutDown),
    ]
}
