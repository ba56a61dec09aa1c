//! A TCP proxy on this machine that simulates network failures.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{io, thread};

use rustix::net::sockopt::set_socket_linger;

/// A proxy that forwards connections to a server until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whether bytes are held back without an error.
    is_hole: bool,
    connections: Vec<Weak<Relayed>>,
}

/// A client's connection, and the connection to the server.
struct Relayed {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                accepting.wait_until_through();
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A connection that cannot be forwarded is closed.
                let _ = client.and_then(|client| accepting.relay(client, server));
            }
        });
        Ok(Proxy { address, shared })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets all connections, on both sides.
    pub(crate) fn reset(&self) {
        let connections = std::mem::take(&mut self.shared.state().connections);
        for relayed in connections.iter().filter_map(Weak::upgrade) {
            relayed.is_reset.store(true, Ordering::Relaxed);
            for end in [&relayed.client, &relayed.server] {
                // With a linger time of zero, the socket is reset when its forwarding threads close it.
                let _ = set_socket_linger(end, Some(Duration::ZERO));
                let _ = end.shutdown(Shutdown::Read);
            }
        }
    }

    /// Sets whether bytes are held back. Afterwards, the held bytes arrive.
    pub(crate) fn swallow(&self, is_hole: bool) {
        self.shared.state().is_hole = is_hole;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.swallow(false);
        self.reset();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_through(&self) {
        let state = self.changed.wait_while(self.state(), |state| state.is_hole);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn relay(self: &Arc<Self>, client: TcpStream, server: u16) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", server))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let relayed = Arc::new(Relayed {
            client,
            server,
            is_reset: AtomicBool::new(false),
        });
        self.state().connections.push(Arc::downgrade(&relayed));
        for is_upstream in [true, false] {
            let (relayed, shared) = (Arc::clone(&relayed), Arc::clone(self));
            thread::spawn(move || {
                let (client, server) = (&relayed.client, &relayed.server);
                let (from, to) = if is_upstream {
                    (client, server)
                } else {
                    (server, client)
                };
                shared.copy(from, to);
                if !relayed.is_reset.load(Ordering::Relaxed) {
                    let _ = to.shutdown(Shutdown::Write);
                }
            });
        }
        Ok(())
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait_until_through();
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        self.wait_until_through();
    }
}
