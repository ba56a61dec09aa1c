use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::fstat;
use rustix::net::{self, AddressFamily, Shutdown, SocketAddrUnix};

/// How long a search on Unix sockets waits for another one to end, which takes some milliseconds if all is well.
const PATIENCE: Duration = Duration::from_secs(1);

/// A second hold on the socket of a connection.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Socket(file.as_fd().try_clone_to_owned()?))
    }

    /// Ends the connection, so that whoever waits for it is told.
    pub(crate) fn cut(&self) {
        // What is ended already is what was wanted.
        let _ = net::shutdown(&self.0, Shutdown::Both);
    }
}

/// Looks for the socket that comes up while a connection is opened.
///
/// On TCP it is told from those of other threads by its `TCP_USER_TIMEOUT`, to which each search adds some milliseconds of its own;
/// Unix sockets have nothing of the kind, and are opened in [`turn`].
#[derive(Debug)]
pub(crate) struct Search {
    before: HashSet<u64>,
    mark: Option<u32>,
}

/// Waits until nobody else searches on Unix sockets, where `url` leads to one.
pub(crate) fn turn(url: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    is_local(url).then(|| TURN.try_lock_for(PATIENCE)).flatten()
}

impl Search {
    /// Begins a search for the socket of a connection; `user_timeout` is the limit to set there, if any.
    pub(crate) fn begin(user_timeout: Option<Duration>) -> Self {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        let mark = MARKS.fetch_add(1, Ordering::Relaxed) % 1000;
        let limit = user_timeout.and_then(|limit| u32::try_from(limit.as_millis()).ok());
        Search {
            before: sockets().into_iter().map(|(inode, _)| inode).collect(),
            mark: limit.and_then(|limit| limit.checked_add(mark)),
        }
    }

    /// The limit with the mark, to be set on the connection.
    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        self.mark.map(|mark| Duration::from_millis(mark.into()))
    }

    /// Tells which it is; `None` if it cannot be told.
    pub(crate) fn find(&self) -> Option<Socket> {
        let mut found: Option<(u64, Socket)> = None;
        for (inode, descriptor) in sockets() {
            if self.before.contains(&inode) {
                continue;
            }
            let Some(socket) = hold(descriptor, inode) else {
                continue;
            };
            match &found {
                _ if !self.fits(&socket) => {}
                // Two of them: rather none than the wrong one.
                Some((other, _)) if *other != inode => return None,
                _ => found = Some((inode, socket)),
            }
        }
        found.map(|(_, socket)| socket)
    }

    fn fits(&self, Socket(socket): &Socket) -> bool {
        let Ok(Some(peer)) = net::getpeername(socket) else {
            return false;
        };
        match (peer.address_family(), self.mark) {
            (AddressFamily::UNIX, _) => SocketAddrUnix::try_from(peer).is_ok_and(|peer| {
                let name = peer.path_bytes().or(peer.abstract_name());
                name.is_some_and(|name| name.windows(9).any(|part| part == b"/.s.PGSQL"))
            }),
            (AddressFamily::INET | AddressFamily::INET6, Some(mark)) => {
                net::sockopt::tcp_user_timeout(socket).is_ok_and(|set| set == mark)
            }
            (AddressFamily::INET | AddressFamily::INET6, None) => true,
            _ => false,
        }
    }
}

/// The sockets of this process: which, and under what number.
fn sockets() -> Vec<(u64, RawFd)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            Some((
                inode.parse().ok()?,
                entry.file_name().to_str()?.parse().ok()?,
            ))
        })
        .collect()
}

/// Tells whether the way to the server is a Unix socket, as it is where the URL names no host or a folder.
fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    host.is_empty() || host.starts_with('%')
}

/// Takes hold of a socket, unless its number stands for something else by now.
#[allow(unsafe_code, reason = "only the number of the descriptor is known")]
fn hold(descriptor: RawFd, inode: u64) -> Option<Socket> {
    // SAFETY: the borrow is only used to duplicate the descriptor at once, which fails if it was closed, and is seen
    // below if it was opened anew; nothing is read, written or closed through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = Socket::of(borrowed).ok()?;
    (fstat(&socket.0).ok()?.st_ino == inode).then_some(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn of_several_new_sockets_the_marked_one_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limit = Some(Duration::from_secs(30));
        let (first, second) = (Search::begin(limit), Search::begin(limit));
        let (one, _other, two) = (connect(), connect(), connect());
        for (stream, search) in [(&one, &first), (&two, &second)] {
            let mark = search.user_timeout().unwrap().as_millis();
            net::sockopt::set_tcp_user_timeout(stream, mark.try_into().unwrap()).unwrap();
        }
        for (stream, search) in [(&one, first), (&two, second)] {
            let found = search.find().unwrap();
            let inode = |file: BorrowedFd<'_>| fstat(file).unwrap().st_ino;
            assert_eq!(inode(found.0.as_fd()), inode(stream.as_fd()));
        }
    }

    #[test]
    fn no_socket_is_taken_for_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let search = Search::begin(None);
        let _several = (connect(), connect());
        assert!(search.find().is_none());
    }

    #[test]
    fn a_url_tells_whether_its_socket_is_local() {
        for url in [
            "postgresql://",
            "postgresql:///shop?host=/run/postgresql",
            "postgresql://user:secret@/shop",
            "postgresql://%2Frun%2Fpostgresql/shop",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in [
            "postgresql://localhost",
            "postgresql://user:secret@[::1]:5432/shop",
            "postgresql://a,b/shop",
        ] {
            assert!(!is_local(url), "{url}");
        }
    }
}
