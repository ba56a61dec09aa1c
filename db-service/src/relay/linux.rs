use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{Destination, Keepalive};

/// How much is passed on at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// A relay's threads call next to nothing.
const STACK: usize = 128 * 1024;

/// A connection to a server that waits for the driver.
#[derive(Debug)]
pub(crate) struct Relay {
    server: Stream,
    listener: TcpListener,
    port: u16,
}

impl Relay {
    /// Connects to a server, so that one that cannot be reached is found out before the driver is asked to connect.
    pub(crate) fn connect(
        destination: &Destination,
        keepalive: Keepalive,
        deadline: Option<Instant>,
    ) -> io::Result<Self> {
        let server = Stream::connect(destination, keepalive, deadline)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Relay {
            server,
            listener,
            port,
        })
    }

    /// The port on 127.0.0.1 that the driver is to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets the driver connect until the deadline, and passes on what comes from then on until either side closes.
    ///
    /// The link arrives before the first byte of the server does.
    pub(crate) fn start(self, deadline: Option<Instant>) -> io::Result<mpsc::Receiver<Arc<Link>>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        spawn("db-relay-in", move || {
            if let Ok(driver) = self.accept(deadline) {
                let link = Arc::new(Link {
                    driver,
                    server: self.server,
                });
                let outgoing = Arc::clone(&link);
                // Nobody waits any more if opening was given up.
                let is_wanted = sender.send(Arc::clone(&link)).is_ok();
                if is_wanted && spawn("db-relay-out", move || outgoing.pass_to_server()).is_ok() {
                    link.pass_to_driver();
                } else {
                    link.cut();
                }
            }
        })?;
        Ok(receiver)
    }

    /// Accepts a connection of this process and no other: the server takes every client of the relay for this process.
    fn accept(&self, deadline: Option<Instant>) -> io::Result<Stream> {
        loop {
            let left = left_until(deadline)?;
            sockopt::set_socket_timeout(&self.listener, sockopt::Timeout::Recv, left)?;
            let (stream, peer) = self.listener.accept()?;
            if is_own(peer, self.port)? {
                // The limit of the listener is inherited, and an idle connection has none.
                stream.set_read_timeout(None)?;
                stream.set_nodelay(true)?;
                return Ok(Stream::Tcp(stream));
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK);
    thread.spawn(work).map(drop)
}

/// The time that is left, and `None` for any amount of it.
fn left_until(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
        Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Whether a connection from `peer` to `port` on 127.0.0.1 comes from this process. The kernel lists the inode of each connection's
/// socket and the sockets of this process, so no other descriptor is opened or duplicated.
fn is_own(peer: SocketAddr, port: u16) -> io::Result<bool> {
    let IpAddr::V4(address) = peer.ip() else {
        return Ok(false);
    };
    let end = |address: Ipv4Addr, port: u16| {
        format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets()))
    };
    let ends = [end(address, peer.port()), end(Ipv4Addr::LOCALHOST, port)];
    // https://docs.kernel.org/networking/proc_net_tcp.html
    let table = fs::read_to_string("/proc/thread-self/net/tcp")?;
    let inode = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next() == Some(&ends[0]) && fields.next() == Some(&ends[1]);
        is_it.then(|| fields.nth(6)).flatten()
    });
    let Some(inode) = inode else {
        return Ok(false);
    };
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let descriptors = fs::read_dir("/proc/self/fd")?;
    Ok(descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == socket)))
}

/// The two sockets of a connection, both of them opened here.
#[derive(Debug)]
pub(crate) struct Link {
    driver: Stream,
    server: Stream,
}

impl Link {
    /// Closes the connection. A driver that waits for the server gets an error.
    pub(crate) fn cut(&self) {
        self.server.shutdown(Shutdown::Both);
        self.driver.shutdown(Shutdown::Both);
    }

    fn pass_to_server(&self) {
        pass(&self.driver, &self.server);
        // Also when the server says nothing more, which it may not do for as long as it is stopped.
        self.server.shutdown(Shutdown::Both);
    }

    fn pass_to_driver(&self) {
        pass(&self.server, &self.driver);
        // The driver closes its end when it has read all.
        self.driver.shutdown(Shutdown::Write);
    }

    #[cfg(test)]
    pub(crate) fn of(driver: TcpStream, server: TcpStream) -> Self {
        Link {
            driver: Stream::Tcp(driver),
            server: Stream::Tcp(server),
        }
    }
}

/// Passes on all that comes, until one side ends or fails: then there is nothing to do but to end the other.
fn pass(mut from: &Stream, mut to: &Stream) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) if to.write_all(&chunk[..count]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(
        destination: &Destination,
        keepalive: Keepalive,
        deadline: Option<Instant>,
    ) -> io::Result<Self> {
        let (host, port) = match destination {
            Destination::Tcp(host, port) => (host.as_str(), *port),
            Destination::Unix(path) => return UnixStream::connect(path).map(Stream::Unix),
        };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        // As libpq does, each address of a name in its order.
        for address in (host, port).to_socket_addrs()? {
            let connected = match left_until(deadline)? {
                Some(left) => TcpStream::connect_timeout(&address, left),
                None => TcpStream::connect(address),
            };
            match connected.and_then(|stream| keepalive.apply(&stream).map(|()| stream)) {
                Ok(stream) => return Ok(Stream::Tcp(stream)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn shutdown(&self, how: Shutdown) {
        // If it has ended already, that is what was wanted.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Keepalive {
    fn apply(self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if let Some((idle, interval, count)) = self.probes {
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, idle)?;
            sockopt::set_tcp_keepintvl(stream, interval)?;
            sockopt::set_tcp_keepcnt(stream, count)?;
        }
        if let Some(limit) = self.user_timeout {
            sockopt::set_tcp_user_timeout(stream, limit)?;
        }
        Ok(())
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(60))
    }

    fn server() -> (TcpListener, Destination) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, Destination::Tcp("localhost".to_owned(), port))
    }

    fn read_to_end(mut stream: impl Read) -> Vec<u8> {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    }

    /// A driver and a server with a relay in between.
    fn linked() -> (TcpStream, TcpStream, Arc<Link>) {
        let (listener, destination) = server();
        let relay = Relay::connect(&destination, Keepalive::default(), soon()).unwrap();
        let port = relay.port();
        let link = relay.start(soon()).unwrap();
        let driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        (driver, server, link.recv().unwrap())
    }

    #[test]
    fn bytes_pass_both_ways_and_so_does_the_end() {
        let (mut driver, mut server, _link) = linked();
        let many: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = many.clone();
        let mut from_driver = server.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut read = vec![0; expected.len()];
            from_driver.read_exact(&mut read).unwrap();
            assert!(read == expected);
        });
        driver.write_all(&many).unwrap();
        reader.join().unwrap();
        server.write_all(b"goodbye").unwrap();
        drop(server);
        assert_eq!(read_to_end(driver), b"goodbye");
        let (driver, server, _link) = linked();
        drop(driver);
        assert_eq!(read_to_end(server), b"");
    }

    #[test]
    fn a_cut_ends_both_sides() {
        let (driver, server, link) = linked();
        link.cut();
        assert_eq!((read_to_end(driver), read_to_end(server)), (vec![], vec![]));
    }

    #[test]
    fn a_unix_socket_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.5432");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let destination = Destination::Unix(path);
        let relay = Relay::connect(&destination, Keepalive::default(), soon()).unwrap();
        let port = relay.port();
        let link = relay.start(soon()).unwrap();
        let mut driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        driver.write_all(b"hello").unwrap();
        link.recv().unwrap();
        drop(driver);
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"hello");
    }

    /// Another local user must not get to the server as us, nor take the driver's place.
    #[test]
    fn another_process_is_not_let_in() {
        let (listener, destination) = server();
        let relay = Relay::connect(&destination, Keepalive::default(), soon()).unwrap();
        let port = relay.port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo ready; cat <&3");
        let mut stranger = std::process::Command::new("bash")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = stranger.stdout.take().unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        let link = relay.start(soon()).unwrap();
        let mut driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        driver.write_all(b"hello").unwrap();
        link.recv().unwrap();
        drop(driver);
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"hello");
        assert_eq!(read_to_end(output), b"", "the stranger is sent away");
        stranger.wait().unwrap();
    }

    #[test]
    fn a_connection_may_be_idle_for_longer_than_it_took_to_open() {
        let (listener, destination) = server();
        let relay = Relay::connect(&destination, Keepalive::default(), soon()).unwrap();
        let port = relay.port();
        let limit = Duration::from_millis(200);
        let link = relay.start(Some(Instant::now() + limit)).unwrap();
        let mut driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        link.recv().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(2 * limit)).unwrap();
        let silent = server.read(&mut [0]).unwrap_err();
        assert_eq!(
            silent.kind(),
            io::ErrorKind::WouldBlock,
            "nothing is closed"
        );
        driver.write_all(b"hello").unwrap();
        drop(driver);
        assert_eq!(read_to_end(server), b"hello");
    }

    #[test]
    fn a_driver_that_does_not_come_is_not_waited_for() {
        let (listener, destination) = server();
        let relay = Relay::connect(&destination, Keepalive::default(), soon()).unwrap();
        let link = relay
            .start(Some(Instant::now() + Duration::from_millis(10)))
            .unwrap();
        assert!(link.recv().is_err());
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"");
    }
}
