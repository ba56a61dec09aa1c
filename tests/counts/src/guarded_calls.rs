//! Calls of a `#[guarded]` method, at four kinds of call site. The service is ready.
//!
//! The service holds one number, so that the figures show the guard and the return of the result, and nothing else. The
//! baseline of each row is the same call site with a method of a plain struct, to which the call site has a reference.

use std::hint::black_box;

use singleton_core::{Error, Service, guarded, service};

use crate::case::Case;

const CALLS: [u64; 2] = [100_000, 300_000];

pub(crate) const CASES: [Case; 4] = [
    Case {
        name: "guarded-returned",
        operation: "guarded call, result returned to the caller",
        run: |calls| {
            Counter::value()?;
            for _ in 0..calls {
                let _ = black_box(returned());
            }
            Ok(())
        },
        baseline: Some(|calls| {
            let plain = plain();
            for _ in 0..calls {
                let _ = black_box(plain_returned(plain));
            }
            Ok(())
        }),
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "guarded-question-mark",
        operation: "guarded call, value taken with `?`",
        run: |calls| {
            Counter::value()?;
            for _ in 0..calls {
                let _ = black_box(question_mark());
            }
            Ok(())
        },
        baseline: Some(|calls| {
            let plain = plain();
            for _ in 0..calls {
                let _ = black_box(plain_question_mark(plain));
            }
            Ok(())
        }),
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "guarded-match",
        operation: "guarded call, value taken with `match`",
        run: |calls| {
            Counter::value()?;
            for _ in 0..calls {
                black_box(matched());
            }
            Ok(())
        },
        baseline: Some(|calls| {
            let plain = plain();
            for _ in 0..calls {
                black_box(plain_matched(plain));
            }
            Ok(())
        }),
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "guarded-loop",
        operation: "guarded call, inlined into a loop",
        run: |calls| {
            Counter::value()?;
            in_loop(calls)
        },
        baseline: Some(|calls| plain_in_loop(plain(), calls)),
        iterations: CALLS,
        per_iteration: 1,
    },
];

#[service]
struct Counter {
    value: u64,
}

impl Service for Counter {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Counter {
            value: black_box(7),
        })
    }
}

impl Counter {
    #[guarded]
    fn value(&self) -> Result<u64, Error> {
        Ok(self.value)
    }
}

/// The struct of the baselines.
struct Plain {
    value: u64,
}

impl Plain {
    fn value(&self) -> Result<u64, Error> {
        Ok(self.value)
    }
}

/// Returns a reference whose target the optimizer does not know.
fn plain() -> &'static Plain {
    static PLAIN: Plain = Plain { value: 7 };
    black_box(&PLAIN)
}

#[inline(never)]
fn returned() -> Result<u64, Error> {
    Counter::value()
}

#[inline(never)]
fn plain_returned(plain: &Plain) -> Result<u64, Error> {
    plain.value()
}

#[inline(never)]
fn question_mark() -> Result<u64, Error> {
    let value = Counter::value()?;
    Ok(value + 1)
}

#[inline(never)]
fn plain_question_mark(plain: &Plain) -> Result<u64, Error> {
    let value = plain.value()?;
    Ok(value + 1)
}

#[inline(never)]
fn matched() -> u64 {
    match Counter::value() {
        Ok(value) => value + 1,
        Err(_) => 0,
    }
}

#[inline(never)]
fn plain_matched(plain: &Plain) -> u64 {
    match plain.value() {
        Ok(value) => value + 1,
        Err(_) => 0,
    }
}

#[inline(never)]
fn in_loop(calls: u64) -> anyhow::Result<()> {
    let mut sum = 0_u64;
    for _ in 0..calls {
        // Without `black_box`, the optimizer replaces the additions by a multiplication.
        sum += black_box(Counter::value()?);
    }
    black_box(sum);
    Ok(())
}

#[inline(never)]
fn plain_in_loop(plain: &Plain, calls: u64) -> anyhow::Result<()> {
    let mut sum = 0_u64;
    for _ in 0..calls {
        sum += black_box(plain.value()?);
    }
    black_box(sum);
    Ok(())
}
