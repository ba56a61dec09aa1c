//! What is known of every service in every realm, behind one lock that guarded calls of ready services never take.
//!
//! A realm is a set of instances: the process's own, or those of one test scope. No code of a user
//! runs while the lock is held: no `initialize`, no logger, no destructor of a service.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::descriptor::{Descriptor, Instance};
use crate::error::Error;
use crate::registry::State;

/// The outcome of an attempt: everyone who waited for it gets the same.
pub(crate) type Outcome = Result<&'static dyn Instance, Error>;

/// One run of a service's initialisation, its requirements included.
pub(crate) struct Attempt {
    id: u64,
    pub(crate) service: &'static Descriptor,
    pub(crate) outcome: OnceLock<Outcome>,
    /// The first circle that `initialize` or `ping` ran into.
    pub(crate) cycle: OnceLock<Error>,
    done: Condvar,
}

pub(crate) enum Slot {
    Initializing(Arc<Attempt>),
    Ready(&'static dyn Instance),
    ShutDown,
}

/// Names a realm; ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RealmId(u64);

impl RealmId {
    /// The process's own instances, outside of any test scope.
    pub(crate) const PROCESS: RealmId = RealmId(0);
}

#[derive(Default)]
struct Realm {
    slots: HashMap<&'static Descriptor, Slot>,
    /// Services that became ready, each after all that it requires.
    started: Vec<&'static Descriptor>,
    /// Undeclared uses that were logged already.
    reported: HashSet<(&'static Descriptor, &'static Descriptor)>,
}

impl Realm {
    fn start(&mut self, service: &'static Descriptor, instance: &'static dyn Instance) {
        self.slots.insert(service, Slot::Ready(instance));
        // An instance that was provided may be there before what it requires.
        let dependents = self
            .started
            .iter()
            .position(|started| started.depends_on(service));
        self.started
            .insert(dependents.unwrap_or(self.started.len()), service);
    }
}

pub(crate) struct Engine {
    realms: HashMap<RealmId, Realm>,
    /// Which attempt cannot go on before which other one ends: nested in it, or waiting for another thread's.
    needs: HashMap<u64, Arc<Attempt>>,
    /// How many times threads have entered scopes and not left them.
    inside_scopes: usize,
    last_id: u64,
}

static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| {
    Mutex::new(Engine {
        realms: HashMap::from([(RealmId::PROCESS, Realm::default())]),
        needs: HashMap::new(),
        inside_scopes: 0,
        last_id: 0,
    })
});

thread_local! {
    static CURRENT_REALM: Cell<RealmId> = const { Cell::new(RealmId::PROCESS) };
}

pub(crate) fn lock() -> MutexGuard<'static, Engine> {
    ENGINE.lock()
}

/// The realm whose instances the calling thread sees.
pub(crate) fn current_realm() -> RealmId {
    // Destructors of other thread-locals may call services when this one is gone.
    CURRENT_REALM
        .try_with(Cell::get)
        .unwrap_or(RealmId::PROCESS)
}

pub(crate) fn is_ready(service: &'static Descriptor) -> bool {
    lock().state(current_realm(), service) == State::Ready
}

/// Makes `realm` the calling thread's until the value is dropped.
pub(crate) struct Entered {
    realm: RealmId,
    previous: RealmId,
}

pub(crate) fn enter(realm: RealmId) -> Entered {
    if realm != RealmId::PROCESS {
        lock().divert();
    }
    Entered {
        realm,
        previous: CURRENT_REALM.replace(realm),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT_REALM.set(self.previous);
        if self.realm != RealmId::PROCESS {
            lock().undivert();
        }
    }
}

impl Engine {
    /// What is known of the service; `None` where nobody has asked for it yet.
    pub(crate) fn slot(&self, realm: RealmId, service: &Descriptor) -> Option<&Slot> {
        match self.realms.get(&realm) {
            Some(realm) => realm.slots.get(service),
            None => Some(&Slot::ShutDown),
        }
    }

    pub(crate) fn state(&self, realm: RealmId, service: &Descriptor) -> State {
        match self.slot(realm, service) {
            None => State::Uninitialized,
            Some(Slot::Initializing(_)) => State::Initializing,
            Some(Slot::Ready(_)) => State::Ready,
            Some(Slot::ShutDown) => State::ShutDown,
        }
    }

    /// Starts an attempt; everyone else who asks for the service from now on waits for it.
    pub(crate) fn begin(&mut self, realm: RealmId, service: &'static Descriptor) -> Arc<Attempt> {
        let id = self.next_id();
        let attempt = Arc::new(Attempt {
            id,
            service,
            outcome: OnceLock::new(),
            cycle: OnceLock::new(),
            done: Condvar::new(),
        });
        if let Some(realm) = self.realms.get_mut(&realm) {
            realm
                .slots
                .insert(service, Slot::Initializing(Arc::clone(&attempt)));
        }
        attempt
    }

    /// Ends an attempt: stores the instance, or leaves the service as if nobody had asked for it.
    ///
    /// Returns `ShutDown` for an instance whose realm has been closed meanwhile; it is the caller's to release.
    pub(crate) fn finish(&mut self, realm: RealmId, attempt: &Attempt, result: Outcome) -> Outcome {
        let service = attempt.service;
        let outcome = match (self.realms.get_mut(&realm), result) {
            (Some(known), Ok(instance)) => {
                known.start(service, instance);
                if realm == RealmId::PROCESS && self.inside_scopes == 0 {
                    service.publish(Some(instance));
                }
                Ok(instance)
            }
            (None, Ok(_)) => Err(Error::ShutDown {
                service: service.name,
            }),
            (known, Err(error)) => {
                if let Some(realm) = known {
                    realm.slots.remove(service);
                }
                Err(error)
            }
        };
        // Nobody else sets it: an attempt ends once, on the thread that began it.
        let _ = attempt.outcome.set(outcome.clone());
        attempt.done.notify_all();
        outcome
    }

    /// Notes that `dependent` cannot go on before `attempt` ends.
    pub(crate) fn needs(&mut self, dependent: &Attempt, attempt: &Arc<Attempt>) {
        self.needs.insert(dependent.id, Arc::clone(attempt));
    }

    pub(crate) fn needs_no_more(&mut self, dependent: &Attempt) {
        self.needs.remove(&dependent.id);
    }

    /// The error for `dependent` needing `attempt`, if that one, through however many threads, needs `dependent`.
    ///
    /// An attempt runs on one thread, so it needs at most one other at a time: the way is a chain.
    pub(crate) fn find_cycle(&self, dependent: &Attempt, attempt: &Attempt) -> Option<Error> {
        let mut path = vec![attempt.service.name];
        let mut last = attempt;
        while last.id != dependent.id {
            last = self.needs.get(&last.id)?;
            path.push(last.service.name);
        }
        if path.len() == 1 {
            return Some(Error::SelfDependency {
                service: attempt.service.name,
            });
        }
        path.push(attempt.service.name);
        Some(Error::CircularDependency { path: path.into() })
    }

    /// Tells whether `user` is seen for the first time to use `used` before that one is ready.
    pub(crate) fn is_news(
        &mut self,
        realm: RealmId,
        user: &'static Descriptor,
        used: &'static Descriptor,
    ) -> bool {
        let realm = self.realms.get_mut(&realm);
        realm.is_some_and(|realm| {
            !matches!(realm.slots.get(used), Some(Slot::Ready(_)))
                && realm.reported.insert((user, used))
        })
    }

    /// Opens a realm in which the given instances are ready and nothing else is.
    pub(crate) fn open_realm(
        &mut self,
        provided: Vec<(&'static Descriptor, &'static dyn Instance)>,
    ) -> RealmId {
        let id = RealmId(self.next_id());
        let mut realm = Realm::default();
        for (service, instance) in provided {
            realm.start(service, instance);
        }
        self.realms.insert(id, realm);
        id
    }

    /// Takes the service that started last out of a realm, or closes the realm if there is none left.
    pub(crate) fn stop_next(
        &mut self,
        id: RealmId,
    ) -> Option<(&'static Descriptor, &'static dyn Instance)> {
        let realm = self.realms.get_mut(&id)?;
        while let Some(service) = realm.started.pop() {
            if let Some(Slot::Ready(instance)) = realm.slots.insert(service, Slot::ShutDown) {
                return Some((service, instance));
            }
        }
        self.realms.remove(&id);
        None
    }

    /// Sends all guarded calls the long way round, so that they ask which realm they are in.
    fn divert(&mut self) {
        self.inside_scopes += 1;
        if self.inside_scopes == 1 {
            self.publish_all(false);
        }
    }

    fn undivert(&mut self) {
        self.inside_scopes -= 1;
        if self.inside_scopes == 0 {
            self.publish_all(true);
        }
    }

    fn publish_all(&self, direct: bool) {
        for (service, slot) in self
            .realms
            .get(&RealmId::PROCESS)
            .into_iter()
            .flat_map(|realm| &realm.slots)
        {
            if let Slot::Ready(instance) = slot {
                service.publish(direct.then_some(*instance));
            }
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Attempt {
    /// Waits until the attempt has ended, on whatever thread it runs.
    pub(crate) fn wait(&self, engine: &mut MutexGuard<'static, Engine>) -> Outcome {
        loop {
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            self.done.wait(engine);
        }
    }
}
