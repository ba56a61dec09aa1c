//! A shop of a dozen services: starts it, prints the report and the graph, and draws `target/services.svg` if graphviz
//! is installed.

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
                // Stands for connecting, reading and warming up.
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
    Catalogue takes 25 ms;
    #[service]
    #[requires(Config)]
    Payments takes 45 ms;
    #[service]
    #[requires(Users, Catalogue, Payments)]
    Orders takes 12 ms;
    #[service]
    #[requires(Orders, Mail)]
    Invoices takes 6 ms;
    #[service]
    #[requires(Catalogue)]
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
    let drawing = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut drawing = match drawing {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("No picture: graphviz is not installed (Debian: apt-get install graphviz)\n");
            return Ok(());
        }
        drawing => drawing.context("dot")?,
    };
    let input = drawing.stdin.take();
    input.context("a pipe to dot")?.write_all(dot.as_bytes())?;
    let drawn = drawing.wait_with_output()?;
    anyhow::ensure!(drawn.status.success(), "dot failed: {}", drawn.status);
    fs::create_dir_all("target")?;
    fs::write("target/services.svg", drawn.stdout)?;
    println!("The picture is in target/services.svg\n");
    Ok(())
}
