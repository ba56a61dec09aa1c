//! Service definitions: the traits that authors implement, the descriptors that `#[service]` generates, and service
//! states.

mod cycle;
mod descriptor;
mod erased;
mod policy;
mod ready;
mod state;
mod stop;
mod traits;

pub use cycle::{Facts, Node};
pub use descriptor::{Descriptor, Kind, Registration};
pub(crate) use descriptor::{Initialize, Instance, Visibility, Work};
pub use erased::{Chosen, TraitService, asynchronous, blocking, describe, run};
pub(crate) use policy::{DEFAULT_SHUTDOWN_TIMEOUT, growing};
pub use policy::{Policy, Retry, ServicePolicy};
pub use ready::Ready;
pub use state::{Degraded, Health, State};
pub use stop::Stop;
pub use traits::{AsyncService, BackgroundService, Requirement, Service, Singleton};
