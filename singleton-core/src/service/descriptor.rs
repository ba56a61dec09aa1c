//! Services without their types, as the engine knows them.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

use futures_util::future::BoxFuture;

use super::policy::ServicePolicy;
use super::stop::Stop;

/// An instance of any service.
pub(crate) trait Instance: Send + Sync {
    /// Checks that the instance works.
    fn ping(&self) -> Work<'_>;
    /// Releases the instance's resources. The second value is whether the service has no `shutdown` of its own.
    fn shutdown(&self) -> (Work<'_>, bool);
    /// Returns the instance for a downcast to its type.
    fn as_any(&self) -> &(dyn Any + Send + Sync);
}

/// The result of a step of a service's life, at once or later.
pub(crate) enum Work<'a> {
    /// The call has finished the step.
    Done(anyhow::Result<()>),
    /// The future finishes the step.
    Later(BoxFuture<'a, anyhow::Result<()>>),
}

type InitResult = anyhow::Result<Box<dyn Instance>>;

/// The way in which a service's instance is created.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Initialize {
    /// By a call that may block.
    Blocking(fn() -> InitResult),
    /// By a future.
    Async(fn() -> BoxFuture<'static, InitResult>),
    /// Only by `provide` or `bind`.
    Provided,
}

/// How the engine creates instances of `T` and erases their type.
#[allow(missing_debug_implementations, reason = "functions show nothing")]
pub struct Kind<T> {
    pub(crate) initialize: Initialize,
    pub(crate) erase: fn(T) -> Box<dyn Instance>,
}

/// The work of a background service on its thread.
pub(crate) type Run = fn(&(dyn Any + Send + Sync), &Stop) -> anyhow::Result<()>;

/// The static description that `#[service]` generates for each service.
pub struct Descriptor {
    pub(crate) number: ServiceNumber,
    /// The name of the struct. [`Descriptor::name`] distinguishes services of one name.
    pub(crate) declared_name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) location: &'static Location<'static>,
    pub(crate) shown_name: OnceLock<&'static str>,
    /// Whether a shutdown has shown that the service has no `shutdown` of its own.
    pub(crate) has_default_shutdown: AtomicBool,
    pub(crate) rank: usize,
    /// Whether only an `async` caller can wait for the service.
    pub(crate) asynchronous: bool,
    pub(crate) initialize: Initialize,
    pub(crate) run: Option<Run>,
    pub(crate) policy: ServicePolicy,
    pub(crate) requirements: &'static [fn() -> &'static Descriptor],
    pub(crate) publish: fn(Option<&'static dyn Instance>, Visibility),
}

/// The calls that find the process's instance without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// None.
    Hidden,
    /// Those of threads that have checked that they are in no scope.
    OutsideScopes,
    /// All, because no scope is open.
    Everywhere,
}

impl Descriptor {
    /// Describes a service that has no type.
    #[cfg(test)]
    pub(crate) const fn for_test(
        name: &'static str,
        requirements: &'static [fn() -> &'static Descriptor],
        initialize: Initialize,
    ) -> Self {
        Descriptor {
            number: ServiceNumber::new(),
            declared_name: name,
            path: name,
            location: Location::caller(),
            shown_name: OnceLock::new(),
            has_default_shutdown: AtomicBool::new(false),
            rank: requirements.len(),
            asynchronous: false,
            initialize,
            run: None,
            policy: ServicePolicy::DEFAULT,
            requirements,
            publish: |_, _| {},
        }
    }

    /// Replaces the function that publishes instances.
    #[cfg(all(test, loom))]
    pub(crate) const fn published_by(
        mut self,
        publish: fn(Option<&'static dyn Instance>, Visibility),
    ) -> Self {
        self.publish = publish;
        self
    }

    /// Returns the services that `#[requires]` lists, in that order.
    pub(crate) fn requirements(
        &self,
    ) -> impl ExactSizeIterator<Item = &'static Descriptor> + use<> {
        self.requirements.iter().map(|descriptor| descriptor())
    }

    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub(crate) fn name(&self) -> &'static str {
        self.shown_name.get_or_init(|| self.unique_name())
    }

    fn unique_name(&self) -> &'static str {
        static BY_NAME: LazyLock<HashMap<&'static str, Vec<&'static Descriptor>>> =
            LazyLock::new(|| {
                let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
                for registration in inventory::iter::<Registration> {
                    let service = (registration.descriptor)();
                    by_name
                        .entry(service.declared_name)
                        .or_default()
                        .push(service);
                }
                by_name
            });
        let namesakes: Vec<_> = BY_NAME
            .get(self.declared_name)
            .into_iter()
            .flatten()
            .filter(|service| **service != self)
            .collect();
        if namesakes.is_empty() {
            return self.declared_name;
        }
        if namesakes.iter().any(|service| service.path == self.path) {
            // Two functions of one module declare it.
            let text = format!(
                "{} ({}:{})",
                self.path,
                self.location.file(),
                self.location.line()
            );
            return Box::leak(text.into_boxed_str());
        }
        let is_unique = |suffix: &&str| {
            let ends_alike = |path: &str| {
                let rest = path.strip_suffix(suffix);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
            };
            !namesakes.iter().any(|service| ends_alike(service.path))
        };
        let starts = self.path.rmatch_indices("::").map(|(start, _)| start + 2);
        starts
            .map(|start| &self.path[start..])
            .find(is_unique)
            .unwrap_or(self.path)
    }

    /// Records that the service has no `shutdown` of its own.
    pub(crate) fn remember_default_shutdown(&self) {
        self.has_default_shutdown.store(true, Ordering::Relaxed);
    }

    /// Returns whether the service is known to have no `shutdown` of its own.
    pub(crate) fn has_default_shutdown(&self) -> bool {
        // Relaxed is enough: no other memory depends on the flag.
        self.has_default_shutdown.load(Ordering::Relaxed)
    }

    /// Returns whether this service depends on `other`, directly or through others.
    pub(crate) fn depends_on(&'static self, other: &Descriptor) -> bool {
        let mut seen = HashSet::new();
        let mut pending = vec![self];
        while let Some(service) = pending.pop() {
            // A dependency has a lower rank than its dependents, so `other` is not below its own rank.
            if service.rank > other.rank && seen.insert(service) {
                for requirement in service.requirements() {
                    if requirement == other {
                        return true;
                    }
                    pending.push(requirement);
                }
            }
        }
        false
    }

    /// Publishes the process's instance to guarded calls. `None` sends calls to the slow path.
    pub(crate) fn publish(&self, instance: Option<&'static dyn Instance>, visibility: Visibility) {
        (self.publish)(instance, visibility);
    }
}

// Each service has exactly one descriptor, a static, so its address is its identity.
impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for Descriptor {}

impl Hash for Descriptor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::from_ref(self).hash(state);
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.path)
    }
}

/// A service's number, assigned on first use.
pub(crate) struct ServiceNumber(AtomicUsize);

impl ServiceNumber {
    pub(crate) const fn new() -> Self {
        ServiceNumber(AtomicUsize::new(0))
    }

    pub(crate) fn get(&self) -> usize {
        // Relaxed is enough: no other memory depends on the number.
        match self.0.load(Ordering::Relaxed) {
            0 => self.assign(),
            number => number - 1,
        }
    }

    #[cold]
    fn assign(&self) -> usize {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let assigned = self
            .0
            .compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        // If another thread assigned a number first, use that one.
        assigned.map_or_else(|first| first - 1, |_| number - 1)
    }
}

/// A service that is linked into the program, as `#[service]` submits it to `inventory`.
#[derive(Debug)]
pub struct Registration {
    pub(crate) descriptor: fn() -> &'static Descriptor,
}

inventory::collect!(Registration);
