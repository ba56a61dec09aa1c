//! A logger that stores warnings, for the whole test binary.

use std::sync::{Mutex, Once};

use log::{LevelFilter, Log, Metadata, Record};

struct Capture {
    warnings: Mutex<Vec<String>>,
}

static CAPTURE: Capture = Capture {
    warnings: Mutex::new(Vec::new()),
};
static INSTALLED: Once = Once::new();

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.warnings
            .lock()
            .unwrap()
            .push(record.args().to_string());
    }

    fn flush(&self) {}
}

pub(crate) fn install() {
    INSTALLED.call_once(|| {
        log::set_logger(&CAPTURE).unwrap();
        log::set_max_level(LevelFilter::Warn);
    });
}

pub(crate) fn warnings_with(text: &str) -> Vec<String> {
    CAPTURE
        .warnings
        .lock()
        .unwrap()
        .iter()
        .filter(|warning| warning.contains(text))
        .cloned()
        .collect()
}
