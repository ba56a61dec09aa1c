//! The threads of background services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;

use crate::engine::{self, Context, OwnServiceGuard, RECOVERY_TIME, Supervision};
use crate::escaped::Escaped;
use crate::panics::catch_panic;
use crate::service::{Descriptor, Instance, Stop, growing};
use crate::telemetry;
use crate::threads;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Signals the end of the thread when it is dropped, also after a panic.
struct SignalEnd<'a>(&'a Stop);

impl Drop for SignalEnd<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Starts the thread of a background service that has become ready. Does nothing for other services.
pub(crate) fn start_background(
    context: &Context,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
) {
    let Some(run) = service.run else {
        return;
    };
    let supervision = {
        let engine = engine::lock();
        let entry = engine
            .container(context.container)
            .and_then(|container| container.get(service));
        entry.and_then(|entry| entry.background.clone())
    };
    let Some(supervision) = supervision else {
        return;
    };
    let thread_supervision = Arc::clone(&supervision);
    let context = context.clone();
    let spawned = threads::spawn(service.name(), move || {
        let _signal_end = SignalEnd(&thread_supervision.thread_ended);
        let _context = context.enter();
        // `run` may use the service while it finishes its work, when other callers cannot anymore.
        let _own = OwnServiceGuard::background(context.container, service, instance);
        let run = |stop: &Stop| catch_panic(|| run(instance.as_any(), stop));
        if !thread_supervision.stop.is_requested() {
            supervise(&thread_supervision, run, service);
        }
    });
    if let Err(error) = spawned {
        let why = format!("no thread for it: {error}");
        supervision.lock_history().not_running = Some(why.clone());
        supervision.thread_ended.request();
        log::error!("{} cannot run: {}", service.name(), Escaped(why));
    }
}

/// Runs the service until it is asked to stop, and restarts it whenever `run` ends before that.
fn supervise(
    supervision: &Supervision,
    run: impl Fn(&Stop) -> Result<anyhow::Result<()>, String>,
    service: &Descriptor,
) {
    let pauses = || {
        growing(FIRST_PAUSE, LONGEST_PAUSE)
            .without_max_times()
            .build()
    };
    let mut next_pauses = pauses();
    loop {
        let started_at = Instant::now();
        let result = run(&supervision.stop);
        let why = match result {
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(message) => format!("panicked: {message}"),
        };
        if supervision.stop.is_requested() {
            if why != "it returned" {
                let _ = catch_panic(|| {
                    log::warn!(
                        "run of {} failed while it was ending: {}",
                        service.name(),
                        Escaped(&why)
                    );
                });
            }
            return;
        }
        if started_at.elapsed() >= RECOVERY_TIME {
            next_pauses = pauses();
        }
        let pause = next_pauses.next().unwrap_or(LONGEST_PAUSE);
        {
            let mut history = supervision.lock_history();
            history.restarts += 1;
            history.not_running = Some(why.clone());
            history.last_failure = Some((Instant::now(), why.clone()));
        }
        // The pause must follow even if a logger panics.
        let _ = catch_panic(|| telemetry::restarting(service, &why, pause));
        if supervision.stop.wait(pause) {
            return;
        }
        supervision.lock_history().not_running = None;
    }
}
