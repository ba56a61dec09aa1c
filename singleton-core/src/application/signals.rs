//! An application that runs until a signal.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};

use super::shutdown::{ShutdownOptions, ShutdownReport, ShutdownScope, shut_down};
use super::start::{StartOptions, start};
use super::start_report::{StartError, StartReport};
use crate::engine::Context;
use crate::invoke::Driver;
use crate::panics::catch_panic;
use crate::service::Descriptor;
use crate::threads;

/// The reason why an application did not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The operating system refused to deliver signals or to start a thread.
    Signals(io::Error),
    /// Services failed to start. All services were shut down.
    Start(StartError),
}

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Signals(error) => write!(formatter, "cannot receive signals: {error}"),
            RunError::Start(error) => error.fmt(formatter),
        }
    }
}

// `Display` shows the causes.
impl std::error::Error for RunError {}

/// The number of applications that listen for signals, and whether it is zero. Handlers stay registered for the life of
/// the process; with zero listeners, they perform the default action.
static LISTENERS: Mutex<usize> = Mutex::new(0);
static NO_LISTENERS: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Restores the default action of the signals when the application has ended.
struct SignalListener(Handle);

impl SignalListener {
    fn register() -> io::Result<(Signals, Self)> {
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        if LazyLock::get(&NO_LISTENERS).is_none() {
            for signal in [SIGINT, SIGTERM] {
                flag::register_conditional_default(signal, Arc::clone(&NO_LISTENERS))?;
            }
        }
        let signals = Signals::new([SIGINT, SIGTERM])?;
        *listeners += 1;
        NO_LISTENERS.store(false, Ordering::SeqCst);
        let handle = signals.handle();
        Ok((signals, SignalListener(handle)))
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        *listeners -= 1;
        NO_LISTENERS.store(*listeners == 0, Ordering::SeqCst);
        self.0.close();
    }
}

enum Event {
    Signal,
    Started(Result<StartReport, StartError>),
}

/// Starts `services`, runs until a signal, and shuts all services of the container down.
pub(crate) fn run_until_signal(
    services: Vec<&'static Descriptor>,
    driver: &Driver,
) -> Result<ShutdownReport, RunError> {
    let context = Context::current();
    let (signals, _listener) = SignalListener::register().map_err(RunError::Signals)?;
    let (sender, events) = mpsc::channel();
    let signal_sender = sender.clone();
    threads::spawn("signals", move || listen(signals, &signal_sender))
        .map_err(RunError::Signals)?;
    // On its own thread, so that a signal takes effect even if an `initialize` never returns.
    let (start_context, start_driver) = (context.clone(), driver.clone());
    threads::spawn("start", move || {
        let options = StartOptions::default();
        let started = start(&start_context, services, &options, &start_driver);
        // The receiver is gone if a signal came first.
        let _ = sender.send(Event::Started(started));
    })
    .map_err(RunError::Signals)?;
    let start_error = loop {
        match events.recv() {
            Ok(Event::Started(Ok(report))) => drop(catch_panic(|| log::info!("started {report}"))),
            Ok(Event::Started(Err(error))) => break Some(error),
            // Without senders, no signal can come anymore.
            Ok(Event::Signal) | Err(mpsc::RecvError) => break None,
        }
    };
    let options = ShutdownOptions::default();
    let report = shut_down(&context, ShutdownScope::All, &options, driver);
    match start_error {
        Some(error) => Err(RunError::Start(error)),
        None => Ok(report),
    }
}

fn listen(mut signals: Signals, events: &mpsc::Sender<Event>) {
    let mut second_signal = false;
    for signal in &mut signals {
        if second_signal {
            signal_hook::low_level::exit(128 + signal);
        }
        second_signal = true;
        let _ = events.send(Event::Signal);
        // On another thread, so that a logger that panics or blocks does not delay the next signal.
        let _ = threads::spawn("signal log", move || {
            log::info!("received signal {signal}: shutting down");
        });
    }
}
