//! The threads of background services, and what is known of how they fare.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;

use crate::context::contain;
use crate::descriptor::{Descriptor, Instance};
use crate::engine::{self, RealmId};
use crate::escaped::Escaped;
use crate::health_report::Health;
use crate::policy::growing;
use crate::stop::Stop;
use crate::watch;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who has run for so long is not taken to fail for the reason that it failed for before.
const RECOVERED: Duration = Duration::from_secs(60);

/// One background service's thread.
pub(crate) struct Supervision {
    stop: Stop,
    ended: Stop,
    course: Mutex<Course>,
}

/// How the thread has fared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    pub(crate) restarts: u64,
    /// Why it is not running, between two runs.
    pub(crate) down: Option<String>,
    /// Why it ended last, and when.
    pub(crate) last_failure: Option<(Instant, String)>,
}

impl Course {
    /// What is wrong with it now, or was within the time that it takes to be taken for well again.
    pub(crate) fn trouble(&self) -> Option<(Health, String)> {
        let recent = self
            .last_failure
            .as_ref()
            .filter(|(at, _)| at.elapsed() < RECOVERED)
            .map(|(_, why)| (Health::Degraded, format!("restarted after: {why}")));
        let down = self.down.as_ref();
        down.map(|why| (Health::Unhealthy, format!("not running: {why}")))
            .or(recent)
    }
}

impl Supervision {
    pub(crate) fn new() -> Self {
        Supervision {
            stop: Stop::new(),
            ended: Stop::new(),
            course: Mutex::default(),
        }
    }

    /// Asks the thread to end and waits until it has.
    pub(crate) fn join(&self) {
        self.stop.request();
        self.ended.wait_for_request();
    }

    pub(crate) fn course(&self) -> Course {
        self.course_mut().clone()
    }

    fn course_mut(&self) -> std::sync::MutexGuard<'_, Course> {
        self.course
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn supervise(
        &self,
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
            let ended = run(&self.stop);
            let why = match ended {
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(message) => format!("panicked: {message}"),
            };
            if self.stop.is_requested() {
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
                let mut course = self.course_mut();
                course.restarts += 1;
                course.down = Some(why.clone());
                course.last_failure = Some((Instant::now(), why.clone()));
            }
            // A logger that panics must not make it restart without a pause.
            let _ = contain(|| watch::restarting(service, &why, pause));
            if self.stop.wait(pause) {
                return;
            }
            self.course_mut().down = None;
        }
    }
}

/// Requests the end that others wait for, also when the thread panics.
struct Ending<'a>(&'a Stop);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Starts the thread of a service that has become ready, if it is a background service.
pub(crate) fn start(realm: RealmId, service: &'static Descriptor, instance: &'static dyn Instance) {
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
    let own = std::sync::Arc::clone(&supervision);
    let spawned = thread::Builder::new()
        .name(service.name.to_owned())
        .spawn(move || {
            let _ending = Ending(&own.ended);
            let _entered = engine::enter(realm);
            let run = |stop: &Stop| contain(|| run(instance.as_any(), stop));
            if !own.stop.is_requested() {
                own.supervise(run, service);
            }
        });
    if let Err(error) = spawned {
        let why = format!("no thread for it: {error}");
        supervision.course_mut().down = Some(why.clone());
        supervision.ended.request();
        log::error!("{} cannot run: {}", service.name, Escaped(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_is_worse_than_what_runs_again() {
        let mut course = Course::default();
        assert_eq!(course.trouble(), None);
        course.last_failure = Some((Instant::now(), "fell".to_owned()));
        let again = (Health::Degraded, "restarted after: fell".to_owned());
        assert_eq!(course.trouble(), Some(again));
        course.down = Some("fell".to_owned());
        let down = (Health::Unhealthy, "not running: fell".to_owned());
        assert_eq!(course.trouble(), Some(down));
    }
}
