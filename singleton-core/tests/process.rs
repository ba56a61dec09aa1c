//! Applications in their own processes: the `#[setup]` function, signals, and shutdown.
//!
//! Without arguments, the program is the test, which runs itself with the name of a scenario.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use singleton_core::testing::{Scope, require_scope};
use singleton_core::{
    BackgroundService, Error, ErrorKind, Policy, Service, ServiceContext, Stop, registry, requires,
    service, setup,
};

fn scenario() -> String {
    env::args().nth(1).unwrap_or_default()
}

fn print(line: &str) {
    println!("{line}");
}

static SETUPS: AtomicU32 = AtomicU32::new(0);

#[setup]
fn configure() -> anyhow::Result<()> {
    SETUPS.fetch_add(1, Ordering::SeqCst);
    match scenario().as_str() {
        "setup fails" => anyhow::bail!("no settings"),
        "setup panics" => panic!("damaged settings"),
        "setup uses a service" => {
            let error = Store::instance().err().map(|error| error.to_string());
            print(&error.unwrap_or_default());
        }
        "setup configures" => registry().configure::<Spare>(Policy::new().eager())?,
        _ => {}
    }
    <dyn Shelf>::bind::<Store>()?;
    Ok(())
}

#[service(eager)]
struct Store;

impl Service for Store {
    fn initialize() -> anyhow::Result<Self> {
        assert_eq!(
            SETUPS.load(Ordering::SeqCst),
            1,
            "the setup function must run before the first service"
        );
        print("store starts");
        Ok(Store)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        print("store stops");
        if scenario() == "hanging shutdown" {
            block_forever();
        }
        Ok(())
    }
}

/// Starts on first use, unless it is configured otherwise.
#[service]
#[requires(Store)]
struct Spare;

impl Service for Spare {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Spare)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        // Its dependencies are still there, also after `require_scope`.
        Store::instance()?;
        print("spare stops");
        Ok(())
    }
}

fn block_forever() -> ! {
    loop {
        thread::park();
    }
}

/// A trait whose implementation the `#[setup]` function chooses.
#[service]
trait Shelf: Send + Sync {}

impl Shelf for Store {}

/// A logger that panics at each record.
struct PanickingLogger;

impl log::Log for PanickingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        panic!("no records here");
    }

    fn flush(&self) {}
}

#[service(background)]
#[requires(Store)]
struct Worker;

impl Service for Worker {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Worker)
    }
}

impl BackgroundService for Worker {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        print("worker runs");
        stop.wait_for_request();
        print("worker ends");
        Ok(())
    }
}

#[service(eager, shutdown_timeout = "50ms")]
#[requires(Worker)]
struct Trouble;

impl Service for Trouble {
    fn initialize() -> anyhow::Result<Self> {
        match scenario().as_str() {
            "failing start" => anyhow::bail!("no connection"),
            "hanging start" => {
                print("trouble hangs");
                block_forever();
            }
            _ => {}
        }
        Ok(Trouble)
    }
}

fn run_scenario(scenario: &str) {
    match scenario {
        "setup fails" | "setup panics" => {
            for _ in 0..2 {
                print(&Store::instance().err().unwrap().to_string());
            }
            print(&registry().start_all().unwrap_err().to_string());
            assert_eq!(SETUPS.load(Ordering::SeqCst), 1);
        }
        "setup uses a service" => drop(Store::instance().unwrap()),
        "setup runs once" => {
            let threads: Vec<_> = (0..16).map(|_| thread::spawn(Store::instance)).collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
            assert_eq!(SETUPS.load(Ordering::SeqCst), 1);
        }
        "shutdown" => {
            registry().start_all().unwrap();
            let report = registry().shutdown_all();
            assert!(
                report.is_clean() && report.services().len() == 5,
                "{report}"
            );
            // The fast path's pointer is reset too.
            assert!(matches!(
                Store::instance().map_err(|error| error.kind()),
                Err(ErrorKind::ShutDown)
            ));
            assert!(!Store::is_initialized());
        }
        "setup chooses" => {
            // Even if the first use is in a scope, the setup function runs before the start. Its binding applies to
            // the process.
            let inside = Scope::new().run(|| <dyn Shelf>::instance().map(|_| ()));
            assert!(
                inside.is_err(),
                "a scope must not use the binding of the process"
            );
            let report = registry().start::<dyn Shelf>().unwrap();
            let names: Vec<_> = report
                .services()
                .iter()
                .map(|service| service.name())
                .collect();
            print(&names.join(" "));
        }
        "setup configures" => {
            registry().start_eager().unwrap();
            assert!(Spare::is_initialized());
        }
        "scope required" => {
            Spare::instance().unwrap();
            require_scope();
            fn kind(error: Error) -> ErrorKind {
                error.kind()
            }
            for outside in [
                Spare::instance().map(drop).map_err(kind),
                Worker::instance().map(drop).map_err(kind),
                thread::spawn(|| Store::instance().map(drop).map_err(kind))
                    .join()
                    .unwrap(),
            ] {
                assert_eq!(outside, Err(ErrorKind::OutsideScope));
            }
            let start = registry().start_all().unwrap_err();
            assert!(
                start.to_string().contains("was called outside every scope"),
                "{start}"
            );
            Scope::new().run(|| {
                Spare::instance().unwrap();
                let work = || Store::instance().map(drop);
                thread::spawn(work).join().unwrap().unwrap_err();
                let carried = ServiceContext::current().wrap(work);
                thread::spawn(carried).join().unwrap().unwrap();
            });
            let report = registry().shutdown_all();
            assert!(report.is_clean(), "{report}");
        }
        _ => {
            if scenario == "panicking logger" {
                log::set_logger(&PanickingLogger).unwrap();
                log::set_max_level(log::LevelFilter::Info);
            }
            match registry().run_until_signal() {
                Ok(report) => print(&report.to_string()),
                Err(error) => print(&error.to_string()),
            }
            if scenario == "afterwards" {
                print("afterwards");
                block_forever();
            }
        }
    }
}

/// A scenario in its own process.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(scenario: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .arg(scenario)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }

    fn read_until(&mut self, line: &str) {
        let lines = self.output.by_ref().lines();
        let found = lines.map_while(Result::ok).any(|read| read == line);
        assert!(found, "the output ends without {line:?}");
    }

    fn signal(&self, signal: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &process]).status();
        assert!(sent.unwrap().success());
    }

    /// Returns the remaining output and the exit status.
    fn finish(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

fn check(name: &str, test: impl FnOnce()) {
    test();
    println!("test {name} ... ok");
}

fn main() {
    if !scenario().is_empty() && !scenario().starts_with("--") {
        return run_scenario(&scenario());
    }
    check(
        "the setup function runs once, before the first service",
        || {
            let (_, status) = Process::start("setup runs once").finish();
            assert!(status.success());
        },
    );
    check("no service starts if the setup function fails", || {
        for (scenario, cause) in [
            ("setup fails", "no settings"),
            ("setup panics", "panicked: damaged settings"),
        ] {
            let (output, status) = Process::start(scenario).finish();
            let text = format!("setup function process::configure failed: {cause}");
            let start = format!("5 of 5 services did not start: {text}");
            assert_eq!(output.lines().collect::<Vec<_>>(), [&text, &text, &start]);
            assert!(status.success());
        }
    });
    check("the setup function cannot use services", || {
        let (output, status) = Process::start("setup uses a service").finish();
        let text = "Store was used in the setup function, which runs before any service";
        assert_eq!(output.lines().collect::<Vec<_>>(), [text, "store starts"]);
        assert!(status.success());
    });
    check("services outside scopes can be shut down", || {
        let (output, status) = Process::start("shutdown").finish();
        assert!(status.success(), "{output}");
    });
    for signal in ["INT", "TERM"] {
        check("a signal shuts the services down in order", || {
            let mut process = Process::start("runs");
            process.read_until("worker runs");
            process.signal(signal);
            let (output, status) = process.finish();
            assert!(output.starts_with("worker ends\nstore stops\n"), "{output}");
            assert!(output.contains("shut down in ") && status.success());
        });
    }
    check("a logger that panics does not block signals", || {
        let mut process = Process::start("panicking logger");
        process.read_until("worker runs");
        process.signal("TERM");
        let (output, status) = process.finish();
        assert!(output.starts_with("worker ends\nstore stops\n"), "{output}");
        assert!(status.success());
    });
    check(
        "after the shutdown, a signal has its default action",
        || {
            let mut process = Process::start("afterwards");
            process.read_until("worker runs");
            process.signal("INT");
            process.read_until("afterwards");
            process.signal("INT");
            assert_eq!(process.finish().1.signal(), Some(2));
        },
    );
    check(
        "a binding in the setup function applies to the process",
        || {
            let (output, status) = Process::start("setup chooses").finish();
            assert_eq!(output, "store starts\nStore dyn Shelf\n");
            assert!(status.success());
        },
    );
    check("the setup function can make a service eager", || {
        let (output, status) = Process::start("setup configures").finish();
        assert!(status.success(), "{output}");
    });
    check(
        "calls outside scopes are refused once a scope is required",
        || {
            let (output, status) = Process::start("scope required").finish();
            // One in the scope, one in the process.
            assert_eq!(output.matches("spare stops").count(), 2, "{output}");
            assert!(status.success(), "{output}");
        },
    );
    check("a signal interrupts a start that hangs", || {
        let mut process = Process::start("hanging start");
        process.read_until("trouble hangs");
        process.signal("INT");
        let (output, status) = process.finish();
        assert!(output.contains("store stops\n"), "{output}");
        assert!(
            output.contains("still initializing") && status.success(),
            "{output}"
        );
    });
    check("a start that fails shuts down the started services", || {
        let (output, status) = Process::start("failing start").finish();
        assert!(output.contains("store stops\n"), "{output}");
        assert!(
            output.ends_with(
                "1 of 3 services did not start: failed to initialize Trouble: no connection\n"
            ),
            "{output}"
        );
        assert!(status.success());
    });
    check("a second signal ends the process at once", || {
        let mut process = Process::start("hanging shutdown");
        process.read_until("worker runs");
        process.signal("TERM");
        process.read_until("store stops");
        process.signal("INT");
        let (_, status) = process.finish();
        assert_eq!(status.code(), Some(128 + 2));
    });
}
