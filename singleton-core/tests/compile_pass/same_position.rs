//! Services with the same path and the same position, which are no cycle.
#![deny(warnings)]

use singleton_core::{Requirement, Service, requires, service};

macro_rules! service {
    ($name:ident) => {
        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                Ok($name)
            }
        }
    };
}

/// The upper `Twin` requires `Between`, which requires the lower `Twin`.
macro_rules! twins {
    () => {
        fn rank() -> usize {
            #[service]
            struct Twin;
            service!(Twin);

            #[service]
            #[requires(Twin)]
            struct Between;
            service!(Between);

            fn inner() -> usize {
                #[service]
                #[requires(Between)]
                struct Twin;
                service!(Twin);
                Twin::RANK
            }
            inner()
        }
    };
}

twins!();

pub(super) fn main() {
    assert_eq!(rank(), 3);
}
