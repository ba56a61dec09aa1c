//! Secrets in errors and URLs, untrusted text, and file permissions.

mod error_secrets;
#[cfg(unix)]
mod private_files;
mod untrusted_text;
mod url_secrets;
