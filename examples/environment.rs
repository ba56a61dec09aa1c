//! Setup that the example programs share: `.env`, logging and a default database.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};

/// The database if `DATABASE_URL` is not set.
const DEFAULT_URL: &str = "sqlite:///singleton-services.db";
/// Only the current directory's file is read. In a directory above it, such as `/tmp`, any user could create one.
const DOTENV: &str = ".env";

/// Reads `.env` in the current directory, starts logging, and selects a SQLite file if `DATABASE_URL` is not set.
///
/// Variables that are set take precedence over `.env`. A `.env` that another user can have written is ignored with a
/// warning. The log level is `warn`, unless `RUST_LOG` is set. The choice of the SQLite file is printed.
///
/// # Errors
///
/// Returns an error if `.env` exists and cannot be read, or has a line that is not `NAME=value`.
pub fn prepare() -> anyhow::Result<()> {
    let dotenv = open_dotenv().context("reading .env")?;
    let warning = match dotenv {
        Dotenv::Missing => None,
        Dotenv::Untrusted(reason) => Some(reason),
        Dotenv::Trusted(file) => {
            read_dotenv(file)?;
            None
        }
    };
    // After `.env`, which may set `RUST_LOG`.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    if let Some(reason) = warning {
        log::warn!("ignoring {DOTENV} in the current directory: {reason}");
    }
    if env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()) {
        println!(
            "DATABASE_URL is not set: using the SQLite file singleton-services.db in the current directory."
        );
        dotenvy::from_read_override(format!("DATABASE_URL={DEFAULT_URL}").as_bytes())?;
    }
    Ok(())
}

enum Dotenv {
    Missing,
    Untrusted(&'static str),
    Trusted(File),
}

fn open_dotenv() -> io::Result<Dotenv> {
    let path = Path::new(DOTENV);
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(Dotenv::Untrusted("it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Dotenv::Missing),
        Err(error) => return Err(error),
    }
    let mut options = File::options();
    // The file may have been replaced since: do not follow a symbolic link, and do not wait for the writer of a FIFO.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let file = options.read(true).open(path)?;
    Ok(match reason_for_distrust(&file)? {
        Some(reason) => Dotenv::Untrusted(reason),
        None => Dotenv::Trusted(file),
    })
}

/// Returns why another user can have written a file in the current directory, or `None` if only this user and root can.
#[cfg(unix)]
fn reason_for_distrust(file: &File) -> io::Result<Option<&'static str>> {
    use std::os::unix::fs::MetadataExt;

    const WRITABLE_BY_ALL: u32 = 0o002;
    let (file, directory) = (file.metadata()?, fs::metadata(".")?);
    let user = rustix::process::geteuid().as_raw();
    Ok(if !file.is_file() {
        Some("it is not a regular file")
    } else if ![0, user].contains(&file.uid()) {
        Some("it belongs to another user")
    } else if file.mode() & WRITABLE_BY_ALL != 0 {
        Some("all users can write to it")
    } else if directory.mode() & WRITABLE_BY_ALL != 0 {
        Some("all users can write to its directory")
    } else {
        None
    })
}

/// Returns `None`: permissions are checked on Unix only.
#[cfg(not(unix))]
fn reason_for_distrust(_file: &File) -> io::Result<Option<&'static str>> {
    Ok(None)
}

fn read_dotenv(file: File) -> anyhow::Result<()> {
    match dotenvy::from_read(file) {
        Ok(()) => Ok(()),
        // The error's own text quotes the line, which may contain a password.
        Err(dotenvy::Error::LineParse(_, position)) => Err(anyhow!(
            "a line of .env cannot be read, from its character {position} on; write NAME=value"
        )),
        Err(error) => Err(error).context("reading .env"),
    }
}
