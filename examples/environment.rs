//! The preparation of the programs: reads `.env`, and chooses a database if `DATABASE_URL` is not set.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};

/// The database if `DATABASE_URL` is not set.
const DEFAULT_URL: &str = "sqlite:///singleton-services.db";
/// Only in the current directory: another user could have put one into a parent directory such as `/tmp`.
const DOTENV: &str = ".env";

/// Reads `.env` in the current directory. Without a `DATABASE_URL`, chooses a SQLite file and prints its name.
///
/// A `.env` that another user could have written is ignored with a warning.
///
/// # Errors
///
/// Returns an error if `.env` exists and cannot be read.
pub fn prepare() -> anyhow::Result<()> {
    let dotenv = open_dotenv().context("reading .env")?;
    let ignored = match dotenv {
        Dotenv::Missing => None,
        Dotenv::Ignored(why) => Some(why),
        Dotenv::Trusted(file) => {
            read_dotenv(file)?;
            None
        }
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    if let Some(why) = ignored {
        log::warn!("{DOTENV} of this folder is ignored, since {why}");
    }
    if env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()) {
        println!(
            "DATABASE_URL is not set: using the SQLite file singleton-services.db in this folder."
        );
        dotenvy::from_read_override(format!("DATABASE_URL={DEFAULT_URL}").as_bytes())?;
    }
    Ok(())
}

enum Dotenv {
    Missing,
    Ignored(&'static str),
    Trusted(File),
}

fn open_dotenv() -> io::Result<Dotenv> {
    let path = Path::new(DOTENV);
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(Dotenv::Ignored("it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Dotenv::Missing),
        Err(error) => return Err(error),
    }
    let mut options = File::options();
    // The file may have been replaced since the check.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let file = options.read(true).open(path)?;
    Ok(match distrust(&file)? {
        Some(why) => Dotenv::Ignored(why),
        None => Dotenv::Trusted(file),
    })
}

/// Returns the reason why another user could have written the file, if there is one.
#[cfg(unix)]
fn distrust(file: &File) -> io::Result<Option<&'static str>> {
    use std::os::unix::fs::MetadataExt;

    const OTHERS_WRITE: u32 = 0o002;
    let (file, folder) = (file.metadata()?, fs::metadata(".")?);
    let user = rustix::process::geteuid().as_raw();
    Ok(if !file.is_file() {
        Some("it is not a regular file")
    } else if ![0, user].contains(&file.uid()) {
        Some("it belongs to another user")
    } else if file.mode() & OTHERS_WRITE != 0 {
        Some("others can write to it")
    } else if folder.mode() & OTHERS_WRITE != 0 {
        Some("others can write to its folder")
    } else {
        None
    })
}

/// Permissions are checked only on Unix.
#[cfg(not(unix))]
fn distrust(_file: &File) -> io::Result<Option<&'static str>> {
    Ok(None)
}

fn read_dotenv(file: File) -> anyhow::Result<()> {
    match dotenvy::from_read(file) {
        Ok(()) => Ok(()),
        // dotenvy's message contains the line, which may contain a password.
        Err(dotenvy::Error::LineParse(_, position)) => Err(anyhow!(
            "a line of .env cannot be read, from its character {position} on; write NAME=value"
        )),
        Err(error) => Err(error).context("reading .env"),
    }
}
