//! What starting many services costs beyond what they do themselves.
//!
//! `cargo run --release --manifest-path benchmarks/Cargo.toml` prints, for programs of several sizes, the time of `start` for a service
//! and each that it requires, less that of calling each `initialize` by hand, per service. It should be at most
//! a microsecond, and the same for each size. The best of the rounds is what it costs; the median has in it what
//! else the machine was doing.

#![allow(dead_code, reason = "most services are there to be started, not to be used")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use singleton_core::testing::Scope;
use singleton_core::{Service, registry, requires, service};

type Size = (usize, fn(), fn());

include!(concat!(env!("OUT_DIR"), "/services.rs"));

const ROUNDS: usize = 41;

fn main() {
    println!("services  start  by hand  overhead per service: best, median of {ROUNDS} rounds");
    for (size, start, plainly) in SIZES {
        let mut with = Vec::with_capacity(ROUNDS);
        let mut without = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            Scope::new().run(|| with.push(time(start)));
            without.push(time(plainly));
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

/// The time of the round that only so many rounds were faster than.
fn nth(times: &mut [Duration], rank: usize) -> Duration {
    times.sort_unstable();
    times[rank]
}
