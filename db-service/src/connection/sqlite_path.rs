//! The path of a SQLite file that could not be opened, and the reason.
//!
//! SQLite reports only "unable to open database file". A path in a URL is easily wrong: with three slashes it is
//! relative to the working directory.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{self, Path};

use singleton_core::__private::Escaped;

/// Returns the absolute path of a file, on one line. If the file is not open, the reason and a hint about relative paths
/// follow.
pub(super) fn explained(path: &Path, is_open: bool) -> String {
    let absolute = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut text = Escaped(absolute.display()).to_string();
    if is_open {
        return text;
    }
    if let Some(problem) = problem(&absolute) {
        let _ = write!(text, " ({})", Escaped(problem));
    }
    if path.is_relative() {
        let path = path.strip_prefix(".").unwrap_or(path);
        let path = Escaped(path.display());
        let _ = write!(
            text,
            "; the path is relative to the working directory, and an absolute path has four slashes: sqlite:////{path}"
        );
    }
    text
}

/// Returns why a file cannot be opened or created.
///
/// The file is not opened: on Unix, closing it would release the locks of this process's other connections to it.
fn problem(file: &Path) -> Option<String> {
    let Some(folder) = file.parent() else {
        return Some("it is a folder".to_owned());
    };
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(folder) if folder.is_dir() => {}
        Ok(_) => return Some(format!("{shown} is not a folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(format!("the folder {shown} does not exist"));
        }
        Err(error) => return Some(format!("the folder {shown} cannot be opened: {error}")),
    }
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => Some("it is a folder".to_owned()),
        Ok(_) if !is_permitted(file) => Some("no permission to read and write it".to_owned()),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_link = fs::symlink_metadata(file).is_ok();
            if is_link {
                Some("it is a symbolic link to a missing file".to_owned())
            } else if !is_permitted(folder) {
                Some(format!(
                    "no permission to create a file in the folder {shown}"
                ))
            } else {
                None
            }
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Returns whether this process may read and write a file or a folder.
#[cfg(unix)]
fn is_permitted(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn is_permitted(_path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let shown = |name: &str| {
            let text = explained(&at(name), false);
            text.replace(&folder.path().display().to_string(), "")
        };
        assert_eq!(
            shown("none/x.db"),
            "/none/x.db (the folder /none does not exist)"
        );
        assert_eq!(shown("file/x.db"), "/file/x.db (/file is not a folder)");
        assert_eq!(shown("folder"), "/folder (it is a folder)");
        assert_eq!(shown("new.db"), "/new.db");
        assert_eq!(
            shown("a\nb/\u{1b}.db"),
            r"/a\nb/\u{1b}.db (the folder /a\nb does not exist)"
        );
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("none"), at("link")).unwrap();
            assert_eq!(
                shown("link"),
                "/link (it is a symbolic link to a missing file)"
            );
        }
        assert_eq!(
            explained("/none/x.db".as_ref(), true),
            "/none/x.db",
            "no reason for an open file"
        );
        assert!(problem("/".as_ref()).is_some());
    }

    #[test]
    fn relative_path_is_resolved() {
        let text = explained("./none/x.db".as_ref(), false);
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        assert_eq!(
            text,
            format!(
                "{here}/none/x.db (the folder {here}/none does not exist); the path is relative to the working directory, \
                 and an absolute path has four slashes: sqlite:////none/x.db"
            )
        );
    }

    /// The superuser may open every file.
    #[test]
    #[cfg(unix)]
    fn missing_permission_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
        let expected = match rustix::process::geteuid().is_root() {
            true => None,
            false => Some(format!(
                "no permission to create a file in the folder {}",
                folder.path().display()
            )),
        };
        assert_eq!(problem(&folder.path().join("x.db")), expected);
    }
}
