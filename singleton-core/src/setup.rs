//! The function with `#[setup]`, which runs before the first service of the process.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use crate::context::contain;
use crate::engine::{self, RealmId};
use crate::error::Error;

/// A function with `#[setup]`, as the attribute submits it.
#[derive(Debug)]
pub struct Setup {
    path: &'static str,
    run: fn() -> anyhow::Result<()>,
}

impl Setup {
    /// Registers `run`, whose `path` is that of its declaration.
    pub const fn new(path: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Setup { path, run }
    }
}

inventory::collect!(Setup);

static RESULT: OnceLock<Result<(), Error>> = OnceLock::new();

thread_local! {
    static IN_SETUP: Cell<bool> = const { Cell::new(false) };
}

/// Runs the function if it has not run; everyone waits until it has, and if it fails no service starts.
///
/// The name is that of the service, or whatever it is, that cannot start before.
pub(crate) fn ensure(service: &'static str) -> Result<(), Error> {
    if let Some(result) = RESULT.get() {
        return result.clone();
    }
    // Destructors of other thread-locals may start services when ours is gone; they do not set up.
    if IN_SETUP.try_with(Cell::get).unwrap_or(false) {
        return Err(Error::UsedInSetup { service });
    }
    RESULT.get_or_init(run).clone()
}

fn run() -> Result<(), Error> {
    let mut setups: Vec<_> = inventory::iter::<Setup>.into_iter().collect();
    setups.sort_by_key(|setup| setup.path);
    let setup = match setups[..] {
        [] => return Ok(()),
        [setup] => setup,
        [first, second, ..] => {
            return Err(Error::SeveralSetups {
                first: first.path,
                second: second.path,
            });
        }
    };
    // Whoever comes first, and in whatever scope: what is set up is the process.
    let _entered = engine::enter(RealmId::PROCESS);
    let _ = IN_SETUP.try_with(|inside| inside.set(true));
    let result =
        contain(setup.run).unwrap_or_else(|message| Err(anyhow::anyhow!("panicked: {message}")));
    let _ = IN_SETUP.try_with(|inside| inside.set(false));
    result.map_err(|cause| Error::SetupFailed {
        setup: setup.path,
        cause: Arc::new(cause),
    })
}
