//! All realms, behind one lock that guarded calls of ready services never take.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::LazyLock;

use super::attempt::{Attempt, Outcome};
use super::container::{Realm, RealmId, Slot};
use crate::error::Error;
use crate::service::{Descriptor, Instance, State};
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Engine {
    realms: BTreeMap<RealmId, Realm>,
    /// Which attempts an attempt waits for: nested in it, or another thread's, or several tasks'.
    needs: HashMap<u64, Vec<Arc<Attempt>>>,
    /// How many times threads have entered scopes and not left them.
    inside_scopes: usize,
    last_id: u64,
}

#[cfg(not(loom))]
static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| Mutex::new(Engine::new()));

#[cfg(loom)]
loom::lazy_static! {
    static ref ENGINE: Mutex<Engine> = Mutex::new(Engine::new());
}

pub(crate) fn lock() -> MutexGuard<'static, Engine> {
    crate::sync::lock(&ENGINE)
}

impl Engine {
    fn new() -> Self {
        Engine {
            realms: BTreeMap::from_iter([(RealmId::PROCESS, Realm::new(HashMap::new()))]),
            needs: HashMap::new(),
            inside_scopes: 0,
            last_id: 0,
        }
    }

    /// The realm, unless it was that of a scope that has ended.
    pub(crate) fn realm(&self, id: RealmId) -> Option<&Realm> {
        self.realms.get(&id)
    }

    pub(crate) fn realm_mut(&mut self, id: RealmId) -> Option<&mut Realm> {
        self.realms.get_mut(&id)
    }

    pub(crate) fn state(&self, id: RealmId, service: &Descriptor) -> State {
        let Some(realm) = self.realm(id) else {
            return State::ShutDown;
        };
        match realm.get(service).map(|entry| &entry.slot) {
            None | Some(Slot::Idle) if realm.closing.is_requested() => State::ShutDown,
            None | Some(Slot::Idle) => State::Uninitialized,
            Some(Slot::Initializing(_)) => State::Initializing,
            Some(Slot::Ready(_)) => State::Ready,
            Some(Slot::Stopping { .. } | Slot::ShutDown) => State::ShutDown,
        }
    }

    /// Starts an attempt; everyone else who asks for the service from now on waits for it.
    pub(crate) fn begin(
        &mut self,
        id: RealmId,
        service: &'static Descriptor,
    ) -> Result<Arc<Attempt>, Error> {
        let next_id = self.next_id();
        match self.realms.get_mut(&id) {
            Some(realm) if !realm.closing.is_requested() => {
                let missing = realm.link_declared(service);
                let entry = realm.get_mut(service);
                let is_provided = entry.provided.is_some();
                let attempt = Arc::new(Attempt::new(next_id, id, service, is_provided, missing));
                entry.slot = Slot::Initializing(Arc::clone(&attempt));
                Ok(attempt)
            }
            _ => Err(Error::ShutDown {
                service: service.name,
            }),
        }
    }

    /// Ends an attempt: stores the instance, or leaves the service as if nobody had asked for it.
    ///
    /// Returns `ShutDown` for an instance that nobody waited for until it was there; it is the caller's to release.
    /// So is, once the engine is unlocked, the error of an earlier attempt, whose destructor is a user's.
    pub(crate) fn finish(
        &mut self,
        attempt: &Attempt,
        result: Outcome,
    ) -> (Outcome, Option<Box<Error>>) {
        let service = attempt.service;
        let publish = attempt.realm == RealmId::PROCESS && self.inside_scopes == 0;
        let known = self.realms.get_mut(&attempt.realm).filter(|realm| {
            realm.get(service).is_some_and(
                |entry| matches!(&entry.slot, Slot::Initializing(current) if current.id == attempt.id),
            )
        });
        let gone = Error::ShutDown {
            service: service.name,
        };
        let (outcome, earlier) = match (known, result) {
            (Some(realm), Ok(instance)) if !attempt.is_abandoned() => {
                let entry = realm.start(service, instance);
                entry.timing = attempt.timing.get().copied();
                if publish {
                    service.publish(Some(instance));
                }
                (Ok(instance), entry.failure.take())
            }
            (Some(realm), result) => {
                let error = result.err().unwrap_or(gone);
                realm.let_go(service);
                let entry = realm.get_mut(service);
                entry.slot = Slot::Idle;
                entry.timing = attempt.timing.get().copied();
                let earlier = entry.failure.replace(Box::new(error.clone()));
                (Err(error), earlier)
            }
            (None, Ok(_)) => (Err(gone), None),
            (None, Err(error)) => (Err(error), None),
        };
        attempt.end(&outcome);
        (outcome, earlier)
    }

    /// Takes a ready service out of use, for good or until it has stopped; whoever asks meanwhile can wait for the attempt.
    pub(crate) fn begin_stopping(
        &mut self,
        id: RealmId,
        service: &'static Descriptor,
        instance: &'static dyn Instance,
    ) {
        let next_id = self.next_id();
        if let Some(realm) = self.realms.get_mut(&id) {
            realm.get_mut(service).slot = Slot::Stopping {
                attempt: Arc::new(Attempt::new(next_id, id, service, false, Vec::new())),
                instance,
                over: false,
            };
        }
        if id == RealmId::PROCESS {
            service.publish(None);
        }
    }

    /// Lets the service of `user` hold on to `used`.
    pub(crate) fn link(&mut self, user: &Attempt, used: &'static Descriptor) {
        if let Some(realm) = self.realms.get_mut(&user.realm) {
            realm.link(user.service, used);
        }
    }

    /// Notes that `dependent` cannot go on before `attempt` ends.
    pub(crate) fn needs(&mut self, dependent: &Attempt, attempt: &Arc<Attempt>) {
        let needed = self.needs.entry(dependent.id).or_default();
        needed.push(Arc::clone(attempt));
    }

    pub(crate) fn needs_no_more(&mut self, dependent: &Attempt, attempt: &Attempt) {
        if let Some(needed) = self.needs.get_mut(&dependent.id) {
            if let Some(position) = needed.iter().position(|needed| needed.id == attempt.id) {
                needed.swap_remove(position);
            }
            if needed.is_empty() {
                self.needs.remove(&dependent.id);
            }
        }
    }

    /// Tells whether no attempt waits for another.
    #[cfg(all(test, loom))]
    pub(crate) fn nobody_waits(&self) -> bool {
        self.needs.is_empty()
    }

    /// The error for `dependent` needing `attempt`, if that one, through however many threads, needs `dependent`.
    pub(crate) fn find_cycle(&self, dependent: &Attempt, attempt: &Arc<Attempt>) -> Option<Error> {
        let service = attempt.service.name;
        if attempt.id == dependent.id {
            return Some(Error::SelfDependency { service });
        }
        let mut path = vec![attempt];
        if !self.leads_to(dependent, &mut path, &mut HashSet::new()) {
            return None;
        }
        let names = path.iter().map(|attempt| attempt.service.name);
        Some(Error::CircularDependency {
            path: names.chain([service]).collect(),
        })
    }

    /// Extends the path from its end along what is waited for until it reaches `goal`.
    fn leads_to<'a>(
        &'a self,
        goal: &Attempt,
        path: &mut Vec<&'a Arc<Attempt>>,
        seen: &mut HashSet<u64>,
    ) -> bool {
        let Some(last) = path.last() else {
            return false;
        };
        if last.id == goal.id {
            return true;
        }
        if !seen.insert(last.id) {
            return false;
        }
        for next in self.needs.get(&last.id).into_iter().flatten() {
            path.push(next);
            if self.leads_to(goal, path, seen) {
                return true;
            }
            path.pop();
        }
        false
    }

    /// The service that an attempt has been waiting for at the end of the chain, itself if for none.
    pub(crate) fn waits_for(&self, attempt: &Attempt) -> &'static Descriptor {
        let mut service = attempt.service;
        let mut id = attempt.id;
        while let Some(next) = self.needs.get(&id).and_then(|needed| needed.first()) {
            (service, id) = (next.service, next.id);
        }
        service
    }

    /// Opens a realm in which the given instances are ready and nothing else is.
    pub(crate) fn open_realm(
        &mut self,
        provided: Vec<(&'static Descriptor, &'static dyn Instance)>,
        environment: HashMap<OsString, Option<OsString>>,
    ) -> RealmId {
        let id = RealmId(self.next_id());
        let mut realm = Realm::new(environment);
        for (service, instance) in provided {
            // A fake is ready as it is: its thread is not started, so none is to be waited for.
            realm.start(service, instance).background = None;
        }
        self.realms.insert(id, realm);
        id
    }

    /// Gives the realm of a scope that has ended, to be dropped where the engine is not locked.
    #[must_use = "what it holds has destructors of users"]
    pub(crate) fn forget_realm(&mut self, id: RealmId) -> Option<Realm> {
        (id != RealmId::PROCESS).then(|| self.realms.remove(&id))?
    }

    /// Sends all guarded calls the long way round, so that they ask which realm they are in.
    pub(super) fn divert(&mut self) {
        self.inside_scopes += 1;
        if self.inside_scopes == 1 {
            self.publish_all(false);
        }
    }

    pub(super) fn undivert(&mut self) {
        self.inside_scopes -= 1;
        if self.inside_scopes == 0 {
            self.publish_all(true);
        }
    }

    fn publish_all(&self, direct: bool) {
        let process = self.realm(RealmId::PROCESS);
        for (service, entry) in process.into_iter().flat_map(Realm::entries) {
            if let Slot::Ready(instance) = entry.slot {
                service.publish(direct.then_some(instance));
            }
        }
    }

    /// The highest id that was given out.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
