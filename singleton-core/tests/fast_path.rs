//! The fast path of guarded calls, in its own process, because an open scope of another test would disable it.

use singleton_core::__private::ready;
use singleton_core::testing::Scope;
use singleton_core::{Service, service};

#[service]
struct Early;

#[service]
struct Late;

impl Service for Early {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Early)
    }
}

impl Service for Late {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Late)
    }
}

#[test]
fn open_scope_disables_the_fast_path_until_it_ends() {
    assert!(ready::<Early>().is_none(), "it has not been used");
    assert!(Early::instance().is_ok() && ready::<Early>().is_some());
    Scope::new().run(|| {
        assert!(ready::<Early>().is_none() && !Early::is_initialized());
        Scope::new().run(|| assert!(Early::instance().is_ok()));
        assert!(ready::<Early>().is_none(), "the outer scope is still open");
        let outside = std::thread::spawn(|| (Early::is_initialized(), Late::instance().is_ok()));
        assert_eq!(outside.join().unwrap(), (true, true));
        assert!(
            ready::<Late>().is_none(),
            "a service that starts while a scope is open stays on the slow path"
        );
    });
    assert!(ready::<Early>().is_some() && ready::<Late>().is_some());
}
