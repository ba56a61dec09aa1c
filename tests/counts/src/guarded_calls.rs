//! Calls of a `#[guarded]` method, at five kinds of call site, and the same calls through a `LazyLock`. The service is
//! ready.
//!
//! The service holds one number, so that the figures show the guard and the return of the result, and nothing else. The
//! baseline of each row is the same call site with a method of a plain struct, to which the call site has a reference.

use std::hint::black_box;
use std::sync::LazyLock;

use singleton_core::{Error, Service, guarded, service};

use crate::case::Case;

const CALLS: [u64; 2] = [100_000, 300_000];

/// Defines the rows of one call site: by `#[guarded]`, and by `LazyLock`.
macro_rules! rows {
    ($site:ident, $guarded:literal, $lazy_lock:literal, $operation:literal) => {
        [
            Case {
                name: $guarded,
                operation: concat!("guarded call, ", $operation),
                run: |calls| {
                    Counter::value()?;
                    guarded_call::$site(calls)
                },
                baseline: Some(|calls| plain_call::$site(plain(), calls)),
                iterations: CALLS,
                per_iteration: 1,
            },
            Case {
                name: $lazy_lock,
                operation: concat!("`LazyLock`, ", $operation),
                run: |calls| {
                    LAZY_LOCK.value()?;
                    lazy_lock_call::$site(calls)
                },
                baseline: Some(|calls| plain_call::$site(plain(), calls)),
                iterations: CALLS,
                per_iteration: 1,
            },
        ]
    };
}

pub(crate) const CASES: [[Case; 2]; 5] = [
    rows!(
        stored,
        "guarded-stored",
        "lazy-lock-stored",
        "result stored in memory"
    ),
    rows!(
        returned,
        "guarded-returned",
        "lazy-lock-returned",
        "result returned to the caller"
    ),
    rows!(
        question_mark,
        "guarded-question-mark",
        "lazy-lock-question-mark",
        "value taken with `?`"
    ),
    rows!(
        matched,
        "guarded-match",
        "lazy-lock-match",
        "value taken with `match`"
    ),
    rows!(
        in_loop,
        "guarded-loop",
        "lazy-lock-loop",
        "inlined into a loop"
    ),
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

/// The struct of the baselines, and of the `LazyLock`.
struct Plain {
    value: u64,
}

impl Plain {
    fn value(&self) -> Result<u64, Error> {
        Ok(self.value)
    }
}

static LAZY_LOCK: LazyLock<Plain> = LazyLock::new(|| Plain {
    value: black_box(7),
});

/// Returns a reference whose target the optimizer does not know.
fn plain() -> &'static Plain {
    static PLAIN: Plain = Plain { value: 7 };
    black_box(&PLAIN)
}

/// Defines the call sites for one kind of call.
macro_rules! call_sites {
    ($module:ident, ($($plain:ident: &Plain)?), $call:expr) => {
        mod $module {
            use super::*;

            #[inline(never)]
            fn store($($plain: &Plain,)? slot: &mut Result<u64, Error>) {
                *slot = $call;
            }

            pub(super) fn stored($($plain: &Plain,)? calls: u64) -> anyhow::Result<()> {
                let mut slot = Ok(0);
                for _ in 0..calls {
                    store($($plain,)? black_box(&mut slot));
                }
                Ok(())
            }

            #[inline(never)]
            fn call_returned($($plain: &Plain)?) -> Result<u64, Error> {
                $call
            }

            pub(super) fn returned($($plain: &Plain,)? calls: u64) -> anyhow::Result<()> {
                for _ in 0..calls {
                    let _ = black_box(call_returned($($plain)?));
                }
                Ok(())
            }

            #[inline(never)]
            fn call_question_mark($($plain: &Plain)?) -> Result<u64, Error> {
                let value = $call?;
                Ok(value + 1)
            }

            pub(super) fn question_mark($($plain: &Plain,)? calls: u64) -> anyhow::Result<()> {
                for _ in 0..calls {
                    let _ = black_box(call_question_mark($($plain)?));
                }
                Ok(())
            }

            #[inline(never)]
            fn call_matched($($plain: &Plain)?) -> u64 {
                match $call {
                    Ok(value) => value + 1,
                    Err(_) => 0,
                }
            }

            pub(super) fn matched($($plain: &Plain,)? calls: u64) -> anyhow::Result<()> {
                for _ in 0..calls {
                    black_box(call_matched($($plain)?));
                }
                Ok(())
            }

            #[inline(never)]
            pub(super) fn in_loop($($plain: &Plain,)? calls: u64) -> anyhow::Result<()> {
                let mut sum = 0_u64;
                for _ in 0..calls {
                    // Without `black_box`, the optimizer replaces the additions by a multiplication.
                    sum += black_box($call?);
                }
                black_box(sum);
                Ok(())
            }
        }
    };
}

call_sites!(guarded_call, (), Counter::value());
call_sites!(lazy_lock_call, (), LAZY_LOCK.value());
call_sites!(plain_call, (plain: &Plain), plain.value());
