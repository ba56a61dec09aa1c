//! What the engine knows of a service without knowing its type.

use std::any::{Any, TypeId};
use std::hash::{Hash, Hasher};

use crate::service::{Service, Singleton};

/// An instance whose type the engine need not know.
pub(crate) trait Instance: Any + Send + Sync {
    fn ping(&self) -> anyhow::Result<()>;
    fn shutdown(&self) -> anyhow::Result<()>;
    fn as_any(&self) -> &dyn Any;
}

impl<T: Service> Instance for T {
    fn ping(&self) -> anyhow::Result<()> {
        Service::ping(self)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        Service::shutdown(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The static description that `#[service]` makes of each service.
#[derive(Debug)]
pub struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) rank: usize,
    requirements: &'static [fn() -> &'static Descriptor],
    pub(crate) initialize: fn() -> anyhow::Result<Box<dyn Instance>>,
    publish: fn(Option<&'static dyn Instance>),
    type_id: fn() -> TypeId,
}

impl Descriptor {
    /// Describes `T`, whose `name` and `path` are those of its declaration.
    pub const fn new<T: Singleton>(
        name: &'static str,
        path: &'static str,
        requirements: &'static [fn() -> &'static Descriptor],
    ) -> Self {
        Descriptor {
            name,
            path,
            rank: T::RANK,
            requirements,
            initialize: initialize::<T>,
            publish: publish::<T>,
            type_id: TypeId::of::<T>,
        }
    }

    /// The services that `#[requires]` lists, in its order.
    pub(crate) fn requirements(&self) -> impl ExactSizeIterator<Item = &'static Descriptor> {
        self.requirements.iter().map(|descriptor| descriptor())
    }

    /// Tells whether `other` is required by this service, directly or through others.
    pub(crate) fn depends_on(&self, other: &Descriptor) -> bool {
        // Ranks fall along requirements: below the rank of `other` it cannot be found.
        self.rank > other.rank
            && self
                .requirements()
                .any(|requirement| requirement == other || requirement.depends_on(other))
    }

    /// Makes guarded calls find the instance with one load, or with `None` sends them the long way round.
    pub(crate) fn publish(&self, instance: Option<&'static dyn Instance>) {
        (self.publish)(instance);
    }
}

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        (self.type_id)() == (other.type_id)()
    }
}

impl Eq for Descriptor {}

impl Hash for Descriptor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.type_id)().hash(state);
    }
}

/// A service linked into the program, as `#[service]` submits it.
#[derive(Debug)]
pub struct Registration {
    pub(crate) descriptor: fn() -> &'static Descriptor,
}

impl Registration {
    /// Registers the service `T`.
    pub const fn of<T: Singleton>() -> Self {
        Registration {
            descriptor: T::descriptor,
        }
    }
}

inventory::collect!(Registration);

fn initialize<T: Service>() -> anyhow::Result<Box<dyn Instance>> {
    Ok(Box::new(T::initialize()?))
}

fn publish<T: Singleton>(instance: Option<&'static dyn Instance>) {
    T::ready().set(instance.and_then(|instance| instance.as_any().downcast_ref()));
}
