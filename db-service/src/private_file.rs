//! Files that only their owner can read: locks, and new databases.

use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(not(unix))]
pub(crate) use elsewhere::{create_database, open_lock};
#[cfg(unix)]
pub(crate) use unix::{create_database, open_lock};

#[cfg(unix)]
mod unix {
    use std::fs::{self, FileType, Metadata, OpenOptions, Permissions};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    use rustix::fs::OFlags;
    use rustix::process::geteuid;

    use super::{File, Path, io};
    use singleton_core::__private::Escaped;

    const PRIVATE: u32 = 0o600;
    /// The permissions of the group and of all others.
    const OTHERS: u32 = 0o077;

    /// Opens the lock file of a database, and creates it if it is missing.
    ///
    /// A process that can open a file can lock it, so the mode is 0600. A file with hard links is refused, because
    /// changing its mode would change another file's mode.
    ///
    /// # Errors
    ///
    /// Returns an error if the path is not a regular file, or if its owner is not this process's user, root, or the
    /// owner of the database.
    pub(crate) fn open_lock(path: &Path, database: &Path) -> io::Result<File> {
        // Opening a device can have side effects, so the kind is checked before the open, and again after it.
        match fs::symlink_metadata(path) {
            Ok(metadata) => check_kind(metadata.file_type())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = private()
            .read(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let metadata = file.metadata()?;
        check_kind(metadata.file_type())?;
        if metadata.nlink() > 1 {
            return Err(refused("it has other names (hard links)"));
        }
        let user = geteuid().as_raw();
        let owners = [user, 0].into_iter();
        let mut owners = owners.chain(fs::metadata(database).map(|database| database.uid()));
        if !owners.any(|owner| owner == metadata.uid()) {
            let uid = metadata.uid();
            return Err(refused(format!(
                "it belongs to another user (number {uid})"
            )));
        }
        if is_open_to_others(&metadata) && metadata.uid() == user {
            file.set_permissions(Permissions::from_mode(PRIVATE))?;
        }
        Ok(file)
    }

    /// Creates an empty file with mode 0600 unless the file exists. SQLite treats an empty file as a new database, and
    /// gives its `-wal`, `-shm` and `-journal` files the same mode.
    ///
    /// # Errors
    ///
    /// Returns an error if the path is a symbolic link to a missing file, because SQLite would create that file with
    /// the default mode.
    pub(crate) fn create_database(path: &Path) -> io::Result<()> {
        match private().create_new(true).open(path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match fs::metadata(path) {
                    Ok(metadata) => {
                        if is_open_to_others(&metadata) {
                            log::warn!(
                                "other users may read {}, which existed before (mode {:o}): DB_SQLITE_PRIVATE is for new files",
                                Escaped(path.display()),
                                metadata.mode() & 0o777
                            );
                        }
                        Ok(())
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(
                        "the file is a symbolic link to one that does not exist",
                    )),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns options that follow no symbolic link and do not block on a pipe.
    fn private() -> OpenOptions {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut options = File::options();
        options
            .write(true)
            .mode(PRIVATE)
            .custom_flags(flags.bits().cast_signed());
        options
    }

    fn is_open_to_others(metadata: &Metadata) -> bool {
        metadata.mode() & OTHERS != 0
    }

    fn check_kind(kind: FileType) -> io::Result<()> {
        Err(refused(if kind.is_file() {
            return Ok(());
        } else if kind.is_symlink() {
            "it is a symbolic link"
        } else if kind.is_dir() {
            "it is a folder"
        } else if kind.is_fifo() {
            "it is a named pipe"
        } else if kind.is_socket() {
            "it is a socket"
        } else {
            "it is a device"
        }))
    }

    fn refused(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, why)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn permissions(path: &Path) -> u32 {
            fs::metadata(path).unwrap().mode() & 0o777
        }

        #[test]
        fn device_is_refused_as_a_lock_file() {
            let error = open_lock(Path::new("/dev/null"), Path::new("/dev/null")).unwrap_err();
            assert_eq!(error.to_string(), "it is a device");
        }

        #[test]
        fn lock_file_of_another_user_is_refused_unless_they_own_the_database() {
            let folder = tempfile::tempdir().unwrap();
            let (lock, database) = (folder.path().join("lock"), folder.path().join("database"));
            fs::write(&lock, "").unwrap();
            fs::write(&database, "").unwrap();
            let other = geteuid().as_raw() + 4711;
            // Only root can change a file's owner.
            if std::os::unix::fs::chown(&lock, Some(other), None).is_err() {
                return;
            }
            let before = permissions(&lock);
            let error = open_lock(&lock, &database).unwrap_err();
            let expected = format!("it belongs to another user (number {other})");
            assert_eq!(error.to_string(), expected);
            std::os::unix::fs::chown(&database, Some(other), None).unwrap();
            open_lock(&lock, &database).unwrap();
            assert_eq!(permissions(&lock), before, "another user owns the file");
        }

        #[test]
        fn new_database_is_private_and_existing_mode_is_kept() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("new.db");
            create_database(&path).unwrap();
            assert_eq!(permissions(&path), PRIVATE);
            fs::write(&path, "data").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            create_database(&path).unwrap();
            assert_eq!(
                (fs::read(&path).unwrap(), permissions(&path)),
                (b"data".to_vec(), 0o644)
            );

            let link = folder.path().join("link.db");
            std::os::unix::fs::symlink(folder.path().join("missing.db"), &link).unwrap();
            let error = create_database(&link).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use super::{File, Path, io};

    /// Opens the lock file with default permissions.
    pub(crate) fn open_lock(path: &Path, _database: &Path) -> io::Result<File> {
        let mut options = File::options();
        options.create(true).truncate(false).write(true).open(path)
    }

    pub(crate) fn create_database(_path: &Path) -> io::Result<()> {
        Ok(())
    }
}
