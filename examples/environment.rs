//! What the three programs do before they use a service: read `.env`, and choose a database where none is named.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};

/// The database that is used where `DATABASE_URL` is not set.
const DEFAULT_URL: &str = "sqlite:///singleton-services.db";
/// In the current folder only: anybody may have put one into a folder above it, such as `/tmp`.
const DOTENV: &str = ".env";

/// Reads `.env` of the current folder, and falls back to a SQLite file, and says so.
///
/// A `.env` that another user could have written is ignored, with a warning.
///
/// # Errors
///
/// `.env` is there and cannot be read.
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
    // It may have been replaced meanwhile.
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

/// Why somebody else may have written a file of the current folder.
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

/// Permissions are not looked at elsewhere.
#[cfg(not(unix))]
fn distrust(_file: &File) -> io::Result<Option<&'static str>> {
    Ok(None)
}

fn read_dotenv(file: File) -> anyhow::Result<()> {
    match dotenvy::from_read(file) {
        Ok(()) => Ok(()),
        // Its own text repeats the line, which may hold a password.
        Err(dotenvy::Error::LineParse(_, position)) => Err(anyhow!(
            "a line of .env cannot be read, from its character {position} on; write NAME=value"
        )),
        Err(error) => Err(error).context("reading .env"),
    }
}
