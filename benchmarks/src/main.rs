//! What starting many services costs beyond what they do themselves.
//!
//! `cargo run --release --manifest-path benchmarks/Cargo.toml` prints, for programs of several sizes, the time of `start` for a service
//! and each that it requires, less that of calling each `initialize` by hand, per service. It should be at most
//! a microsecond, and the same for each size.

#![allow(dead_code, reason = "most services are there to be started, not to be used")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use singleton_core::testing::Scope;
use singleton_core::{Service, registry, requires, service};

type Size = (usize, fn(), fn());

include!(concat!(env!("OUT_DIR"), "/services.rs"));

const ROUNDS: usize = 41;

fn main() {
    println!("services  start  by hand  overhead per service (medians of {ROUNDS} rounds)");
    for (size, start, plainly) in SIZES {
        let mut with = Vec::with_capacity(ROUNDS);
        let mut without = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            Scope::new().run(|| with.push(time(start)));
            without.push(time(plainly));
        }
        let (with, without) = (median(with), median(without));
        let overhead = with.saturating_sub(without) / u32::try_from(*size).unwrap_or(u32::MAX);
        println!("{size:8}  {with:?}  {without:?}  {overhead:?}");
    }
}

fn time(work: &fn()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
