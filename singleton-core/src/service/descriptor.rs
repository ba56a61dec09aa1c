//! Services without their types, as the engine knows them.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;

use super::policy::Policy;
use super::stop::Stop;

/// An instance of any service.
pub(crate) trait Instance: Send + Sync {
    /// Checks that the instance works.
    fn ping(&self) -> Work<'_>;
    /// Releases the instance's resources.
    fn shutdown(&self) -> Work<'_>;
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
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) rank: usize,
    /// Whether only an `async` caller can wait for the service.
    pub(crate) asynchronous: bool,
    pub(crate) initialize: Initialize,
    pub(crate) run: Option<Run>,
    pub(crate) policy: Policy,
    pub(crate) requirements: &'static [fn() -> &'static Descriptor],
    pub(crate) publish: fn(Option<&'static dyn Instance>),
}

impl Descriptor {
    /// Returns the services that `#[requires]` lists, in that order.
    pub(crate) fn requirements(
        &self,
    ) -> impl ExactSizeIterator<Item = &'static Descriptor> + use<> {
        self.requirements.iter().map(|descriptor| descriptor())
    }

    /// Returns whether an application starts the service at once: it is eager or runs in the background.
    pub(crate) fn starts_with_application(&self) -> bool {
        self.policy.eager || self.run.is_some()
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

    /// Publishes the instance for the fast path of guarded calls. `None` sends calls to the slow path.
    pub(crate) fn publish(&self, instance: Option<&'static dyn Instance>) {
        (self.publish)(instance);
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
