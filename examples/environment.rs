//! What the three programs do before they use a service: read `.env`, and choose a database where none is named.

use std::env;

use anyhow::{Context, anyhow};

/// The database that is used where `DATABASE_URL` is not set.
const DEFAULT_URL: &str = "sqlite:///singleton-services.db";

/// Reads `.env` and falls back to a SQLite file, and says so.
///
/// # Errors
///
/// `.env` is there and cannot be read.
pub fn prepare() -> anyhow::Result<()> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        // Its own text repeats the line, which may hold a password.
        Err(dotenvy::Error::LineParse(_, position)) => {
            return Err(anyhow!(
                "a line of .env cannot be read, from its character {position} on; write NAME=value"
            ));
        }
        Err(error) => return Err(error).context("reading .env"),
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    if env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()) {
        println!(
            "DATABASE_URL is not set: using the SQLite file singleton-services.db in this folder."
        );
        dotenvy::from_read_override(format!("DATABASE_URL={DEFAULT_URL}").as_bytes())?;
    }
    Ok(())
}
