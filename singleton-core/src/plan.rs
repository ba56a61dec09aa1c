//! What a start has to do: the services, each after what it requires.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::by_service::ByService;
use crate::descriptor::Descriptor;
use crate::engine::{self, RealmId};
use crate::realm::{Realm, Slot};
use crate::start_report::{ServiceStart, StartOutcome, StartReport};

/// One service of a plan.
pub(crate) struct Node {
    pub(crate) service: &'static Descriptor,
    pub(crate) was_ready: bool,
    pub(crate) is_begun: bool,
    /// Requirements that have not ended.
    pub(crate) missing: usize,
    /// Where in the plan's list its requirements are.
    pub(crate) requirements: Range<usize>,
    /// Likewise.
    pub(crate) dependents: Range<usize>,
    pub(crate) outcome: Option<StartOutcome>,
    /// When its turn came, and how long that took, where the service itself does not tell.
    pub(crate) turn: Option<(Instant, Duration)>,
}

/// What is to start, and how far that has come.
pub(crate) struct Plan {
    pub(crate) realm: RealmId,
    /// Attempts from here on began after the plan was made.
    pub(crate) first_attempt: u64,
    /// Each after what it requires, as far as there is no circle.
    pub(crate) nodes: Vec<Node>,
    pub(crate) requirements: Vec<usize>,
    pub(crate) dependents: Vec<usize>,
    /// Nodes that lack nothing and that nobody has begun.
    pub(crate) ready: VecDeque<usize>,
    pub(crate) left: usize,
    pub(crate) running: usize,
    /// How many nodes were begun and have ended.
    pub(crate) ended: usize,
    pub(crate) workers: usize,
    /// Threads that wait until there is something to do.
    pub(crate) idle: usize,
    /// Threads that wait whether those that work get along without them.
    pub(crate) watching: usize,
}

impl Plan {
    pub(crate) fn new(realm: RealmId, services: Vec<&'static Descriptor>) -> Self {
        let engine = engine::lock();
        let first_attempt = engine.last_id() + 1;
        let Found {
            mut nodes,
            required,
            positions,
        } = Found::new(engine.realm(realm), services);
        let position = |service: &&'static Descriptor| positions.get(service).copied();
        let requirements: Vec<usize> = required.iter().filter_map(position).collect();
        let mut dependent_count = vec![0; nodes.len()];
        for required in &requirements {
            dependent_count[*required] += 1;
        }
        let mut dependents = vec![0; requirements.len()];
        let mut end = 0;
        for (node, count) in nodes.iter_mut().zip(dependent_count) {
            node.dependents = end..end;
            end += count;
        }
        for position in 0..nodes.len() {
            for required in nodes[position].requirements.clone() {
                let place = &mut nodes[requirements[required]].dependents.end;
                dependents[*place] = position;
                *place += 1;
            }
        }
        let ready = (0..nodes.len()).filter(|position| nodes[*position].missing == 0);
        Plan {
            realm,
            first_attempt,
            ready: ready.collect(),
            left: nodes.len(),
            nodes,
            requirements,
            dependents,
            running: 0,
            ended: 0,
            watching: 0,
            workers: 1,
            idle: 0,
        }
    }

    /// The next node to begin, if there is one.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let unended = |node: &Node| node.outcome.is_none();
        let next = self.ready.pop_front().or_else(|| {
            // A circle, which trait objects can close: whoever begins is told so.
            let stuck = self.running == 0;
            self.nodes.iter().position(unended).filter(|_| stuck)
        })?;
        self.running += 1;
        self.nodes[next].is_begun = true;
        Some(next)
    }

    /// Skips whatever has not begun.
    pub(crate) fn cancel(&mut self) {
        self.ready.clear();
        for node in &mut self.nodes {
            if !node.is_begun && node.outcome.is_none() {
                let because_of = "the task that started it was cancelled";
                node.outcome = Some(StartOutcome::Skipped { because_of });
                self.left -= 1;
            }
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        let good = |outcome: &StartOutcome| {
            matches!(outcome, StartOutcome::Started | StartOutcome::AlreadyReady)
        };
        self.nodes
            .iter()
            .all(|node| node.outcome.as_ref().is_some_and(good))
    }

    /// Gives up what is overdue, so that it does not outlive a start that failed.
    pub(crate) fn abandon(&self) {
        let engine = engine::lock();
        let Some(realm) = engine.realm(self.realm) else {
            return;
        };
        for (_, entry) in realm.entries() {
            if let Slot::Initializing(attempt) = &entry.slot
                && attempt.id >= self.first_attempt
                && attempt.is_overdue()
                && self
                    .nodes
                    .iter()
                    .any(|node| node.service == attempt.service)
            {
                attempt.abandon(true);
            }
        }
    }

    /// Notes how a node ended: its dependents come a step nearer, or are skipped if it failed.
    pub(crate) fn end(&mut self, position: usize, outcome: StartOutcome) {
        self.left -= 1;
        let culprit = match &outcome {
            StartOutcome::Started | StartOutcome::AlreadyReady => None,
            StartOutcome::Failed(_) => Some(self.nodes[position].service.name),
            StartOutcome::Skipped { because_of } => Some(*because_of),
        };
        self.nodes[position].outcome = Some(outcome);
        for dependent in self.nodes[position].dependents.clone() {
            let dependent = self.dependents[dependent];
            let node = &mut self.nodes[dependent];
            node.missing -= 1;
            match culprit {
                Some(because_of) if node.outcome.is_none() => {
                    self.end(dependent, StartOutcome::Skipped { because_of });
                }
                None if node.missing == 0 && node.outcome.is_none() => {
                    self.ready.push_back(dependent);
                }
                _ => {}
            }
        }
    }

    /// What became of it all, when there is nothing left.
    pub(crate) fn report(&mut self, began: Instant) -> StartReport {
        let engine = engine::lock();
        let realm = engine.realm(self.realm);
        let timing = |service| realm.and_then(|realm| realm.get(service)?.timing);
        let services = std::mem::take(&mut self.nodes).into_iter().map(|node| {
            let timing = timing(node.service).filter(|timing| timing.began >= began);
            let turn = timing.map(|timing| (timing.began, timing.own));
            let (since, own) = turn.or(node.turn).unwrap_or((began, Duration::ZERO));
            ServiceStart {
                service: node.service,
                requirements: node.requirements,
                waited: since.saturating_duration_since(began),
                own,
                // What the plan did not get to, for the set-up failed.
                outcome: node.outcome.unwrap_or(StartOutcome::Skipped {
                    because_of: "setup",
                }),
            }
        });
        let requirements = std::mem::take(&mut self.requirements);
        StartReport::new(services.collect(), requirements, began.elapsed())
    }
}

/// The services and all that they require.
struct Found {
    /// Each after what it requires itself.
    nodes: Vec<Node>,
    /// What they require; each node knows where in the list that is for itself.
    required: Vec<&'static Descriptor>,
    /// Where in `nodes` the services are.
    positions: ByService<usize>,
}

impl Found {
    fn new(realm: Option<&Realm>, services: Vec<&'static Descriptor>) -> Self {
        let mut found = Found {
            nodes: Vec::with_capacity(services.len()),
            required: Vec::new(),
            positions: ByService::default(),
        };
        // The services from one of those asked for down to one that it requires, with how many requirements of
        // each have been seen to.
        let mut path: Vec<(Node, usize)> = Vec::new();
        for service in services {
            path.extend(found.meet(realm, service));
            while let Some((node, seen)) = path.last_mut() {
                let next = node.requirements.start + *seen;
                if next < node.requirements.end {
                    *seen += 1;
                    path.extend(found.meet(realm, found.required[next]));
                } else if let Some((node, _)) = path.pop() {
                    let position = found.nodes.len();
                    *found.positions.place(node.service) = Some((node.service, position));
                    found.nodes.push(node);
                }
            }
        }
        found
    }

    /// Makes the node of a service that is met for the first time; on a circle, which trait objects can close,
    /// nothing is found behind one that is met again.
    fn meet(
        &mut self,
        realm: Option<&Realm>,
        service: &'static Descriptor,
    ) -> Option<(Node, usize)> {
        let place = self.positions.place(service);
        if place.is_some() {
            return None;
        }
        *place = Some((service, usize::MAX));
        let entry = realm.and_then(|realm| realm.get(service));
        let first = self.required.len();
        self.required.extend(Realm::requirements_of(service, entry));
        let node = Node {
            service,
            was_ready: entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_))),
            is_begun: false,
            missing: self.required.len() - first,
            requirements: first..self.required.len(),
            dependents: 0..0,
            outcome: None,
            turn: None,
        };
        Some((node, 0))
    }
}
