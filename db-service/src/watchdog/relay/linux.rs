use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use super::{Destination, Keepalive};

/// The size of a forwarding buffer in bytes.
const CHUNK: usize = 64 * 1024;

/// The stack size of the forwarding threads, which make few nested calls.
const STACK: usize = 128 * 1024;

/// A relay that is connected to the server and waits for the driver.
#[derive(Debug)]
pub(crate) struct Relay {
    server: Stream,
    route: Route,
    listener: TcpListener,
    port: u16,
}

/// The parameters of the connection to the server.
#[derive(Debug)]
struct Route {
    destination: Destination,
    keepalive: Keepalive,
    /// The connection timeout for each address of the host.
    limit: Option<Duration>,
}

impl Relay {
    /// Connects to a server, before the driver connects to the relay, so that an unreachable server is detected here.
    pub(crate) fn connect(
        destination: Destination,
        keepalive: Keepalive,
        limit: Option<Duration>,
    ) -> io::Result<Self> {
        let route = Route {
            destination,
            keepalive,
            limit,
        };
        let server = route.connect()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Relay {
            server,
            route,
            listener,
            port,
        })
    }

    /// Returns the port on 127.0.0.1 for the driver.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts a thread that accepts the driver's connection and forwards bytes until either side closes.
    ///
    /// With `sslmode=prefer` and `allow`, libpq may connect a second time, with or without encryption. Then the relay
    /// connects to the server a second time too.
    pub(crate) fn start(self) -> io::Result<Links> {
        let (sender, links) = mpsc::channel();
        let listener = Arc::new(self.listener);
        let opened = Links {
            links,
            listener: Arc::clone(&listener),
        };
        let (route, port) = (self.route, self.port);
        let mut first = Some(self.server);
        spawn("db-relay-accept", move || {
            while let Ok(driver) = accept(&listener, port) {
                let server = first.take().map_or_else(|| route.connect(), Ok);
                // If the server is unreachable now, the driver's connection is closed.
                let Ok(server) = server else { continue };
                let link = Arc::new(Link { driver, server });
                // The link is sent before any byte is forwarded, so that it is available once the driver has connected.
                let is_wanted = sender.send(Arc::clone(&link)).is_ok();
                if !is_wanted || link.start().is_err() {
                    link.cut();
                }
            }
        })?;
        Ok(opened)
    }
}

/// The links of a driver while it connects.
#[derive(Debug)]
pub(crate) struct Links {
    links: mpsc::Receiver<Arc<Link>>,
    listener: Arc<TcpListener>,
}

impl Links {
    /// Returns the link of the connected driver: the last one, because libpq connects again only after the
    /// server refused the previous connection.
    pub(crate) fn last(self) -> Option<Arc<Link>> {
        self.links.try_iter().last()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Ends the accepting thread.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

/// Accepts a connection. Rejects those of other processes, because the server would take them for this process.
fn accept(listener: &TcpListener, port: u16) -> io::Result<Stream> {
    loop {
        let (stream, peer) = listener.accept()?;
        if is_from_this_process(peer, port)? {
            stream.set_nodelay(true)?;
            return Ok(Stream::Tcp(stream));
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK);
    thread.spawn(work).map(drop)
}

/// Returns whether a connection from `peer` to `port` on 127.0.0.1 comes from this process.
///
/// Compares the socket's inode in the kernel's table of connections with those of this process's descriptors, whose
/// names are read in `/proc`. The descriptors themselves, which may belong to other code, are not used.
fn is_from_this_process(peer: SocketAddr, port: u16) -> io::Result<bool> {
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

/// The two sockets of a connection. The relay owns both.
#[derive(Debug)]
pub(crate) struct Link {
    driver: Stream,
    server: Stream,
}

impl Link {
    /// Starts a forwarding thread for each direction.
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let (outgoing, incoming) = (Arc::clone(self), Arc::clone(self));
        spawn("db-relay-out", move || outgoing.pass_to_server())?;
        spawn("db-relay-in", move || incoming.pass_to_driver())
    }

    /// Closes both sockets. A driver that waits for the server gets an error.
    pub(crate) fn cut(&self) {
        self.server.shutdown(Shutdown::Both);
        self.driver.shutdown(Shutdown::Both);
    }

    fn pass_to_server(&self) {
        pass(&self.driver, &self.server);
        // A suspended server (SIGSTOP) does not close its side, so the relay closes it.
        self.server.shutdown(Shutdown::Both);
    }

    fn pass_to_driver(&self) {
        pass(&self.server, &self.driver);
        // The driver closes its side after it has read everything.
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

/// Forwards bytes from one socket to the other until the input ends, or until a read or a write fails.
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
    fn shutdown(&self, how: Shutdown) {
        // An error means that the socket is already closed.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Route {
    fn connect(&self) -> io::Result<Stream> {
        let (host, port) = match &self.destination {
            Destination::Tcp(host, port) => (host.as_str(), *port),
            Destination::Unix(path) => return UnixStream::connect(path).map(Stream::Unix),
        };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        // Each address of a host name in order, each with the full timeout, as libpq does.
        for address in (host, port).to_socket_addrs()? {
            let connected = match self.limit {
                Some(limit) => TcpStream::connect_timeout(&address, limit),
                None => TcpStream::connect(address),
            };
            match connected.and_then(|stream| self.keepalive.apply(&stream).map(|()| stream)) {
                Ok(stream) => return Ok(Stream::Tcp(stream)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(destination: Destination) -> Relay {
        Relay::connect(destination, Keepalive::default(), None).unwrap()
    }

    /// Waits for the link of a connected driver.
    fn link(links: &Links) -> Arc<Link> {
        links.links.recv().unwrap()
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

    /// Returns a driver's socket and a server's socket with a relay between them.
    fn linked() -> (TcpStream, TcpStream, Arc<Link>) {
        let (listener, destination) = server();
        let relay = relay(destination);
        let port = relay.port();
        let links = relay.start().unwrap();
        let driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        (driver, server, link(&links))
    }

    #[test]
    fn bytes_and_shutdowns_are_forwarded_both_ways() {
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
    fn cut_closes_both_sides() {
        let (driver, server, link) = linked();
        link.cut();
        assert_eq!((read_to_end(driver), read_to_end(server)), (vec![], vec![]));
    }

    #[test]
    fn unix_socket_server_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.5432");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let destination = Destination::Unix(path);
        let relay = relay(destination);
        let port = relay.port();
        let links = relay.start().unwrap();
        let mut driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        driver.write_all(b"hello").unwrap();
        link(&links);
        drop(driver);
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"hello");
    }

    /// Another local user must not reach the server as this process, or take the driver's place.
    #[test]
    fn connection_from_another_process_is_refused() {
        let (listener, destination) = server();
        let relay = relay(destination);
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
        let links = relay.start().unwrap();
        let mut driver = TcpStream::connect(("127.0.0.1", port)).unwrap();
        driver.write_all(b"hello").unwrap();
        link(&links);
        drop(driver);
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"hello");
        assert_eq!(read_to_end(output), b"", "the stranger is sent away");
        stranger.wait().unwrap();
    }

    /// libpq connects twice with `sslmode=prefer` and `allow`.
    #[test]
    fn second_connection_of_the_driver_gets_its_own_server_connection() {
        let (listener, destination) = server();
        let relay = relay(destination);
        let port = relay.port();
        let links = relay.start().unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
        let first = connect();
        link(&links);
        drop(first);
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"");
        let second = connect();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"welcome").unwrap();
        let mut welcome = [0; 7];
        (&second).read_exact(&mut welcome).unwrap();
        links.last().unwrap().cut();
        assert_eq!(
            read_to_end(second),
            b"",
            "the last link belongs to the second connection"
        );
    }

    #[test]
    fn relay_ends_if_the_driver_never_connects() {
        let (listener, destination) = server();
        let relay = relay(destination);
        let port = relay.port();
        drop(relay.start().unwrap());
        assert_eq!(read_to_end(listener.accept().unwrap().0), b"");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
