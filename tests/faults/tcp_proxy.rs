//! A TCP proxy on the loopback interface that simulates network faults.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{io, thread};

use rustix::net::sockopt::set_socket_linger;

/// A proxy in front of a server. Dropping it resets all connections and stops listening.
pub(crate) struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whether data and new connections are held back.
    is_stalled: bool,
    connections: Vec<Weak<ProxiedConnection>>,
}

/// A client's connection, and the connection to the server that belongs to it.
struct ProxiedConnection {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

impl TcpProxy {
    /// Starts a proxy on a free port for the server at port `server` of 127.0.0.1.
    pub(crate) fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                accepting.wait_while_stalled();
                if accepting.is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                // On an error, the client's connection is closed.
                let _ = client.and_then(|client| accepting.forward(client, server));
            }
        });
        Ok(TcpProxy { address, shared })
    }

    /// Returns the TCP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets all connections, on both sides.
    pub(crate) fn reset(&self) {
        let connections = std::mem::take(&mut self.shared.state().connections);
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.is_reset.store(true, Ordering::Relaxed);
            for socket in [&connection.client, &connection.server] {
                // With a linger time of 0, closing the socket sends a reset. The shutdown ends the two threads that use
                // the socket, and the last of them closes it.
                let _ = set_socket_linger(socket, Some(Duration::ZERO));
                let _ = socket.shutdown(Shutdown::Read);
            }
        }
    }

    /// Sets whether the proxy holds back all data and all new connections. What it has held back arrives afterwards.
    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        self.shared.state().is_stalled = is_stalled;
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.set_stalled(false);
        self.reset();
        // Wakes the thread that accepts connections, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_stalled(&self) {
        let state = self
            .changed
            .wait_while(self.state(), |state| state.is_stalled);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn forward(self: &Arc<Self>, client: TcpStream, server: u16) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", server))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let connection = Arc::new(ProxiedConnection {
            client,
            server,
            is_reset: AtomicBool::new(false),
        });
        self.state().connections.push(Arc::downgrade(&connection));
        for is_upstream in [true, false] {
            let (connection, shared) = (Arc::clone(&connection), Arc::clone(self));
            thread::spawn(move || {
                let (client, server) = (&connection.client, &connection.server);
                let (from, to) = if is_upstream {
                    (client, server)
                } else {
                    (server, client)
                };
                shared.copy(from, to);
                if !connection.is_reset.load(Ordering::Relaxed) {
                    let _ = to.shutdown(Shutdown::Write);
                }
            });
        }
        Ok(())
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait_while_stalled();
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        self.wait_while_stalled();
    }
}
