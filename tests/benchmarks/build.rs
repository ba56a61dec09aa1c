//! Generates programs of many services. Each service requires up to three earlier ones.

use std::fmt::Write;
use std::{env, fs, path::Path};

const SIZES: [usize; 4] = [250, 500, 1000, 2000];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut program = String::new();
    let mut sizes = String::new();
    for size in SIZES {
        module(&mut program, size).expect("writing to a string does not fail");
        write!(sizes, "({size}, size_{size}::start, size_{size}::direct),").expect("writing to a string does not fail");
    }
    program += &format!("const SIZES: &[Size] = &[{sizes}];\n");
    let folder = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&folder).join("services.rs"), program).expect("the folder is ours");
}

fn module(program: &mut String, size: usize) -> std::fmt::Result {
    writeln!(program, "mod size_{size} {{ use super::*;")?;
    for number in 0..size {
        // Half of the services have dependencies, so the graph has many levels with several services each.
        let requirements: Vec<_> = [
            number / 2,
            number.saturating_sub(7),
            number.saturating_sub(100),
        ]
        .into_iter()
        .filter(|required| *required < number && number % 2 == 1)
        .collect();
        let mut named: Vec<_> = requirements;
        named.sort_unstable();
        named.dedup();
        let named: Vec<_> = named
            .iter()
            .map(|required| format!("S{required}"))
            .collect();
        writeln!(
            program,
            "#[service] #[requires({})] pub(crate) struct S{number}(u64);\
             impl Service for S{number} {{ fn initialize() -> anyhow::Result<Self> {{ Ok(S{number}(black_box({number}))) }} }}",
            named.join(", ")
        )?;
    }
    let all: Vec<_> = (0..size).map(|number| format!("S{number}")).collect();
    writeln!(
        program,
        "#[service] #[requires({})] pub(crate) struct All;\
         impl Service for All {{ fn initialize() -> anyhow::Result<Self> {{ Ok(All) }} }}\
         pub(crate) fn start() {{ registry().start::<All>().map(drop).unwrap_or_else(|error| panic!(\"{{error}}\")); }}\
         pub(crate) fn direct() {{ {} }}",
        all.join(", "),
        (0..size)
            .map(|number| format!(
                "let _ = black_box(Box::leak(Box::new(S{number}::initialize().ok()))); "
            ))
            .collect::<String>()
    )?;
    writeln!(program, "}}")
}
