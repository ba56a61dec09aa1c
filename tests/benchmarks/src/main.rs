//! The overhead of starting many services.
//!
//! `cargo run --release --manifest-path tests/benchmarks/Cargo.toml` prints, for programs of several sizes, the
//! duration of `start` for a service and all its dependencies, the duration of calling each `initialize` directly, and
//! the difference per service. It should be at most 1 µs, and the same for each size. The best round shows the
//! overhead; the median includes other work of the machine.

#![allow(dead_code, reason = "most services are started and never used")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use singleton_core::testing::Scope;
use singleton_core::{Service, registry, requires, service};

type Size = (usize, fn(), fn());

include!(concat!(env!("OUT_DIR"), "/services.rs"));

const ROUNDS: usize = 41;

fn main() {
    println!("services  start  direct  overhead per service: best, median of {ROUNDS} rounds");
    for (size, start, direct) in SIZES {
        let mut with = Vec::with_capacity(ROUNDS);
        let mut without = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            Scope::new().run(|| with.push(time(start)));
            without.push(time(direct));
        }
        let [best, median] = [0, ROUNDS / 2].map(|rank| {
            let (with, without) = (nth(&mut with, rank), nth(&mut without, rank));
            let overhead = with.saturating_sub(without) / u32::try_from(*size).unwrap_or(u32::MAX);
            (with, without, overhead)
        });
        println!("{size:8}  {:?}  {:?}  {:?}, {:?}", best.0, best.1, best.2, median.2);
    }
}

fn time(work: &fn()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Returns the duration at a rank, from the fastest.
fn nth(times: &mut [Duration], rank: usize) -> Duration {
    times.sort_unstable();
    times[rank]
}
