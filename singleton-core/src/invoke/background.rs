//! The threads of background services.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;

use crate::engine::{self, RECOVERED, RealmId, Supervision};
use crate::escaped::Escaped;
use crate::panics::contain;
use crate::service::{Descriptor, Instance, Stop, growing};
use crate::telemetry;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Requests the end that others wait for, also when the thread panics.
struct Ending<'a>(&'a Stop);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Starts the thread of a service that has become ready, if it is a background service.
pub(crate) fn start_background(
    realm: RealmId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
) {
    let Some(run) = service.run else {
        return;
    };
    let supervision = {
        let engine = engine::lock();
        let entry = engine.realm(realm).and_then(|realm| realm.get(service));
        entry.and_then(|entry| entry.background.clone())
    };
    let Some(supervision) = supervision else {
        return;
    };
    let own = Arc::clone(&supervision);
    let spawned = thread::Builder::new()
        .name(service.name.to_owned())
        .spawn(move || {
            let _ending = Ending(&own.ended);
            let _entered = engine::enter(realm);
            let run = |stop: &Stop| contain(|| run(instance.as_any(), stop));
            if !own.stop.is_requested() {
                supervise(&own, run, service);
            }
        });
    if let Err(error) = spawned {
        let why = format!("no thread for it: {error}");
        supervision.course_mut().down = Some(why.clone());
        supervision.ended.request();
        log::error!("{} cannot run: {}", service.name, Escaped(why));
    }
}

/// Runs the service until it is asked to end, and again whenever its run ends before.
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
    let mut rest = pauses();
    loop {
        let began = Instant::now();
        let ended = run(&supervision.stop);
        let why = match ended {
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(message) => format!("panicked: {message}"),
        };
        if supervision.stop.is_requested() {
            if why != "it returned" {
                let _ = contain(|| {
                    log::warn!(
                        "run of {} failed while it was ending: {}",
                        service.name,
                        Escaped(&why)
                    );
                });
            }
            return;
        }
        if began.elapsed() >= RECOVERED {
            rest = pauses();
        }
        let pause = rest.next().unwrap_or(LONGEST_PAUSE);
        {
            let mut course = supervision.course_mut();
            course.restarts += 1;
            course.down = Some(why.clone());
            course.last_failure = Some((Instant::now(), why.clone()));
        }
        // A logger that panics must not make it restart without a pause.
        let _ = contain(|| telemetry::restarting(service, &why, pause));
        if supervision.stop.wait(pause) {
            return;
        }
        supervision.course_mut().down = None;
    }
}
