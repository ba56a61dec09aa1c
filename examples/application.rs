//! The application of singleton-core's README: starts all services, reports on them, and shuts them down.

use singleton_core::{PingOptions, Service, registry, requires, service};

#[service(tags("readiness"))]
struct Cache;

impl Service for Cache {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Cache)
    }
}

#[service]
#[requires(Cache)]
struct Website;

impl Service for Website {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Website)
    }
}

fn main() -> anyhow::Result<()> {
    let report = registry().start_all()?; // or `start::<T>()`, `start_eager()`
    println!("{report}\n{}", report.waterfall());
    println!("{}", registry().graph());
    println!(
        "{}",
        registry().ping_all(&PingOptions::new().tag("readiness"))
    );
    print!("{}", registry().shutdown_all());
    Ok(())
}
