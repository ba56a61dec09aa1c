//! Starts a shop of twelve services, and prints how long each took and the dependency graph in each format.
//!
//! If Graphviz is installed, the program also draws the graph into `target/services.svg`.

use std::fs;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use singleton_core::{PingOptions, Service, registry, requires, service};

macro_rules! shop {
    ($($(#[$attribute:meta])* $name:ident takes $milliseconds:literal ms;)*) => {$(
        $(#[$attribute])*
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                // Stands for the time that a real service needs to connect or to fill its cache.
                thread::sleep(Duration::from_millis($milliseconds));
                Ok($name)
            }
        }
    )*};
}

shop! {
    #[service]
    Config takes 5 ms;
    #[service]
    #[requires(Config)]
    Telemetry takes 10 ms;
    #[service(tags("readiness"))]
    #[requires(Config)]
    Database takes 60 ms;
    #[service(tags("readiness"))]
    #[requires(Config)]
    Cache takes 20 ms;
    #[service]
    #[requires(Config)]
    Mail takes 30 ms;
    #[service]
    #[requires(Database, Telemetry)]
    Users takes 8 ms;
    #[service]
    #[requires(Database, Cache)]
    Catalog takes 25 ms;
    #[service]
    #[requires(Config)]
    Payments takes 45 ms;
    #[service]
    #[requires(Users, Catalog, Payments)]
    Orders takes 12 ms;
    #[service]
    #[requires(Orders, Mail)]
    Invoices takes 6 ms;
    #[service]
    #[requires(Catalog)]
    Search takes 40 ms;
    #[service(eager)]
    #[requires(Invoices, Search, Telemetry)]
    Website takes 15 ms;
}

fn main() -> anyhow::Result<()> {
    let report = registry().start::<Website>()?;
    println!("{report}\n{}", report.waterfall());
    let graph = registry()
        .graph()
        .only(|service| service.name() == "Website");
    println!(
        "{graph}\n{}\n{}\n{}\n",
        graph.to_dot(),
        graph.to_mermaid(),
        graph.to_json()
    );
    println!(
        "{}",
        registry().ping_all(&PingOptions::new().tag("readiness"))
    );
    draw(&graph.to_dot())?;
    print!("{}", registry().shutdown_all());
    Ok(())
}

fn draw(dot: &str) -> anyhow::Result<()> {
    let process = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut process = match process {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("No drawing: Graphviz is not installed (Debian: apt-get install graphviz)\n");
            return Ok(());
        }
        process => process.context("could not start dot")?,
    };
    let input = process.stdin.take();
    input.context("a pipe to dot")?.write_all(dot.as_bytes())?;
    let output = process.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "dot failed: {}", output.status);
    fs::create_dir_all("target")?;
    fs::write("target/services.svg", output.stdout)?;
    println!("The drawing is in target/services.svg\n");
    Ok(())
}
