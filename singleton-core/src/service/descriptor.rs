//! What the engine knows of a service without knowing its type.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;

use super::policy::Policy;
use super::stop::Stop;

/// An instance whose type the engine need not know.
pub(crate) trait Instance: Send + Sync {
    /// Checks that it works.
    fn ping(&self) -> Work<'_>;
    /// Releases what it holds.
    fn shutdown(&self) -> Work<'_>;
    /// The instance as its own type.
    fn as_any(&self) -> &(dyn Any + Send + Sync);
}

/// What a step of a service's life comes to: done by the call itself, or by a future.
pub(crate) enum Work<'a> {
    /// It has been done.
    Done(anyhow::Result<()>),
    /// It is done when the future is.
    Later(BoxFuture<'a, anyhow::Result<()>>),
}

type InitResult = anyhow::Result<Box<dyn Instance>>;

/// How an instance comes about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Initialize {
    /// By a call that may block.
    Blocking(fn() -> InitResult),
    /// By a future.
    Async(fn() -> BoxFuture<'static, InitResult>),
    /// Only by what was provided.
    Provided,
}

/// What tells the services of one type from those of another: how an instance comes about, and as what
/// the engine knows it.
#[allow(missing_debug_implementations, reason = "functions show nothing")]
pub struct Kind<T> {
    pub(crate) initialize: Initialize,
    pub(crate) erase: fn(T) -> Box<dyn Instance>,
}

/// What a background service does on its thread.
pub(crate) type Run = fn(&(dyn Any + Send + Sync), &Stop) -> anyhow::Result<()>;

/// The static description that `#[service]` makes of each service.
pub struct Descriptor {
    pub(crate) number: ServiceNumber,
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) rank: usize,
    /// Whether only an `async` caller can wait for it.
    pub(crate) asynchronous: bool,
    pub(crate) initialize: Initialize,
    pub(crate) run: Option<Run>,
    pub(crate) policy: Policy,
    pub(crate) requirements: &'static [fn() -> &'static Descriptor],
    pub(crate) publish: fn(Option<&'static dyn Instance>),
}

impl Descriptor {
    /// The services that `#[requires]` lists, in its order.
    pub(crate) fn requirements(
        &self,
    ) -> impl ExactSizeIterator<Item = &'static Descriptor> + use<> {
        self.requirements.iter().map(|descriptor| descriptor())
    }

    /// Tells whether it is among those that an application starts with.
    pub(crate) fn starts_with_application(&self) -> bool {
        self.policy.eager || self.run.is_some()
    }

    /// Tells whether `other` is required by this service, directly or through others.
    pub(crate) fn depends_on(&'static self, other: &Descriptor) -> bool {
        let mut seen = HashSet::new();
        let mut pending = vec![self];
        while let Some(service) = pending.pop() {
            // Ranks fall along requirements: at the rank of `other` and below it cannot be found.
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

    /// Makes guarded calls find the instance with one load, or with `None` sends them the long way round.
    pub(crate) fn publish(&self, instance: Option<&'static dyn Instance>) {
        (self.publish)(instance);
    }
}

// A descriptor is a static: there is one of each service, and its address is its identity.
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

/// A service's number, given when it is first asked for.
pub(crate) struct ServiceNumber(AtomicUsize);

impl ServiceNumber {
    pub(crate) const fn new() -> Self {
        ServiceNumber(AtomicUsize::new(0))
    }

    pub(crate) fn get(&self) -> usize {
        // A number says nothing of anything else in memory.
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
        // Whoever came second takes the number of the first.
        assigned.map_or_else(|first| first - 1, |_| number - 1)
    }
}

/// A service linked into the program, as `#[service]` submits it.
#[derive(Debug)]
pub struct Registration {
    pub(crate) descriptor: fn() -> &'static Descriptor,
}

inventory::collect!(Registration);
