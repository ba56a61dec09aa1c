//! Two hundred services that behave as the case says in whose realm they are called.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

use anyhow::anyhow;

use super::cases::{Case, Way};
use super::replay::Event;
use super::{LONG, ON_PURPOSE, Run};
use crate::by_service::Number;
use crate::descriptor::{Descriptor, Initialize, Instance, Work};
use crate::engine::{self, RealmId};
use crate::fault::Step;
use crate::policy::Policy;

/// Services are plain functions: they find their case by the realm that they are called in.
pub(super) static RUNS: LazyLock<RwLock<HashMap<RealmId, Arc<Run>>>> =
    LazyLock::new(RwLock::default);

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
pub(super) static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    (0..200)
        .map(|number| &*format!("S{number}").leak())
        .collect()
});

pub(super) fn number_of(name: &str) -> usize {
    name[1..].parse().unwrap()
}

pub(super) struct Node(pub(super) usize);

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

pub(super) fn fail(way: Way) -> anyhow::Result<()> {
    match way {
        Way::Fine => Ok(()),
        Way::Error => Err(anyhow!(ON_PURPOSE)),
        Way::Panic => panic!("{ON_PURPOSE}"),
    }
}

/// Describes the services of a case. The engine knows a service by its address: it is never given back.
pub(super) fn descriptors(case: &Case) -> Vec<&'static Descriptor> {
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
