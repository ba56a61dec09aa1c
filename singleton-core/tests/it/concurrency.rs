//! Concurrent first calls from many threads.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Barrier, Mutex};
use std::thread;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{Error, Service, guarded, requires, service};

static BASE_STARTS: AtomicUsize = AtomicUsize::new(0);
static TOP_STARTS: AtomicUsize = AtomicUsize::new(0);

#[service]
struct ParallelBase;

impl Service for ParallelBase {
    fn initialize() -> anyhow::Result<Self> {
        BASE_STARTS.fetch_add(1, Ordering::Relaxed);
        Ok(ParallelBase)
    }
}

#[service]
#[requires(ParallelBase)]
struct Top {
    number: usize,
}

impl Service for Top {
    fn initialize() -> anyhow::Result<Self> {
        thread::yield_now();
        Ok(Top {
            number: TOP_STARTS.fetch_add(1, Ordering::Relaxed),
        })
    }
}

impl Top {
    #[guarded]
    fn number(&self) -> Result<usize, Error> {
        Ok(self.number)
    }
}

/// Each round has a new scope, in which all services are uninitialized.
#[test]
fn sixty_four_threads_initialize_each_service_once() {
    const THREADS: usize = 64;
    const ROUNDS: usize = 1_000;
    let scope: Mutex<ServiceContext> = Mutex::new(ServiceContext::current());
    let (start, end) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                for round in 0..ROUNDS {
                    start.wait();
                    let scope = scope.lock().unwrap().clone();
                    let number = scope.sync_scope(Top::number);
                    end.wait();
                    assert_eq!(number.unwrap(), round);
                }
            });
        }
        for round in 1..=ROUNDS {
            Scope::new().run(|| {
                *scope.lock().unwrap() = ServiceContext::current();
                start.wait();
                end.wait();
            });
            assert_eq!(
                (
                    BASE_STARTS.load(Ordering::Relaxed),
                    TOP_STARTS.load(Ordering::Relaxed)
                ),
                (round, round)
            );
        }
    });
}

macro_rules! process_services {
    ($($name:ident)*) => {
        $(
            #[service]
            struct $name;

            impl Service for $name {
                fn initialize() -> anyhow::Result<Self> {
                    PROCESS_STARTS.fetch_add(1, Ordering::Relaxed);
                    Ok($name)
                }
            }
        )*
        const FIRST_USES: &[fn() -> usize] = &[$(|| std::ptr::from_ref($name::instance().unwrap()).addr()),*];
    };
}

static PROCESS_STARTS: AtomicUsize = AtomicUsize::new(0);
process_services! { P00 P01 P02 P03 P04 P05 P06 P07 P08 P09 P10 P11 P12 P13 P14 P15 P16 P17 P18 P19 P20 P21 P22 P23 }

#[test]
fn racing_threads_outside_scopes_get_one_instance() {
    const THREADS: usize = 16;
    for first_use in FIRST_USES {
        let barrier = Barrier::new(THREADS);
        let addresses: Vec<usize> = thread::scope(|threads| {
            let running: Vec<_> = (0..THREADS)
                .map(|_| {
                    threads.spawn(|| {
                        barrier.wait();
                        first_use()
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(addresses.iter().all(|address| *address == addresses[0]));
    }
    assert_eq!(PROCESS_STARTS.load(Ordering::Relaxed), FIRST_USES.len());
}

static SLOW_GATE: Mutex<Option<(Sender<()>, Receiver<()>)>> = Mutex::new(None);

#[service]
struct ParallelSlow;

impl Service for ParallelSlow {
    fn initialize() -> anyhow::Result<Self> {
        let (started, released) = SLOW_GATE.lock().unwrap().take().unwrap();
        started.send(())?;
        released.recv()?;
        anyhow::bail!("slow, then failed")
    }
}

#[service]
struct Independent;

impl Service for Independent {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Independent)
    }
}

#[test]
fn independent_services_do_not_wait_and_waiters_share_a_failure() {
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel();
    *SLOW_GATE.lock().unwrap() = Some((started, released));
    let first = thread::spawn(ParallelSlow::instance);
    has_started.recv().unwrap();
    assert!(
        Independent::instance().is_ok(),
        "an initialization must not delay independent services"
    );

    // Only the first attempt waits at the gate, so a caller with its own attempt would get another error.
    let (about_to_wait, waiting_threads) = mpsc::channel();
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let about_to_wait = about_to_wait.clone();
            thread::spawn(move || {
                about_to_wait
                    .send(fs::read_link("/proc/thread-self").unwrap())
                    .unwrap();
                ParallelSlow::instance()
            })
        })
        .collect();
    for thread in waiting_threads.iter().take(4) {
        wait_until_asleep(&thread);
    }
    release.send(()).unwrap();
    for outcome in waiters.into_iter().chain([first]) {
        let error = outcome.join().unwrap().err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to initialize ParallelSlow: slow, then failed"
        );
    }
}

/// Returns when the kernel has put the thread to sleep, which happens only while it waits for another thread.
fn wait_until_asleep(thread: &Path) {
    let status = Path::new("/proc").join(thread).join("stat");
    while !fs::read_to_string(&status).unwrap().contains(") S ") {
        thread::yield_now();
    }
}
