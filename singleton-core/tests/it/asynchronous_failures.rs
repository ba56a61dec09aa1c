//! Asynchronous services that do not become ready.

use singleton_core::testing::Scope;
use singleton_core::{AsyncService, env, service};
use singleton_core::{ErrorKind, ServiceContext};
use tokio::task;

use crate::asynchronous::{Simple, runtimes};

#[service(async)]
struct Chicken;

impl AsyncService for Chicken {
    async fn initialize() -> anyhow::Result<Self> {
        Egg::instance_async().await?;
        Ok(Chicken)
    }
}

#[service(async)]
struct Egg;

impl AsyncService for Egg {
    async fn initialize() -> anyhow::Result<Self> {
        task::yield_now().await;
        let (chicken, simple) = tokio::join!(Chicken::instance_async(), Simple::instance_async());
        chicken?;
        simple?;
        Ok(Egg)
    }
}

#[service(async)]
struct Narcissus;

impl AsyncService for Narcissus {
    async fn initialize() -> anyhow::Result<Self> {
        Narcissus::instance_async().await?;
        Ok(Narcissus)
    }
}

#[test]
fn cycles_are_found_in_one_task_and_across_tasks() {
    for runtime in runtimes() {
        for _ in 0..50 {
            runtime.block_on(Scope::new().run_async(async {
                let scope = ServiceContext::current();
                let tasks = [
                    tokio::spawn(scope.scope(async { Chicken::instance_async().await.err() })),
                    tokio::spawn(scope.scope(async { Egg::instance_async().await.err() })),
                ];
                for task in tasks {
                    let error = task.await.unwrap().unwrap();
                    assert!((error.kind() == ErrorKind::CircularDependency), "{error}");
                }
                let error = Narcissus::instance_async().await.err().unwrap();
                assert!((error.kind() == ErrorKind::SelfDependency), "{error}");
            }));
        }
    }
}

#[service(
    async,
    init_timeout = "10ms",
    retry(attempts = 1000, initial = "1ms", max = "1ms")
)]
struct Never;

impl AsyncService for Never {
    async fn initialize() -> anyhow::Result<Self> {
        if env::var("NEVER") == Ok("fails".to_owned()) {
            anyhow::bail!("not available");
        }
        std::future::pending().await
    }
}

#[service(async, retry(attempts = 3, initial = "1ms", max = "1ms"))]
struct Panicking;

impl AsyncService for Panicking {
    async fn initialize() -> anyhow::Result<Self> {
        task::yield_now().await;
        panic!("out of range")
    }
}

#[test]
fn timeouts_and_panics_are_errors() {
    pollster::block_on(async {
        for setting in ["hangs", "fails"] {
            let error = Scope::new()
                .env("NEVER", setting)
                .run_async(Never::instance_async())
                .await;
            let error = error.err().unwrap();
            assert_eq!(
                error.to_string(),
                "failed to initialize Never: not ready after 10ms"
            );
        }
        let error = Scope::new()
            .run_async(Panicking::instance_async())
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "failed to initialize Panicking: panicked: out of range"
        );
    });
}
