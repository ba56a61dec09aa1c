//! A relay on the loopback interface between the driver and its server, so that the sockets of a connection are our own.
//!
//! Neither diesel nor libpq hands out the socket of a connection, and a search among the descriptors of the process could take
//! another one for it. With a relay libpq connects to us, and we connect to the server: a thread for each direction passes on
//! what comes, encrypted or not, and [`Link::cut`] ends both. It is used only where `DB_SOCKET_TIMEOUT` is set, since each
//! packet takes a detour through a thread.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod unsupported;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub(crate) use linux::{Link, Relay};
#[cfg(not(target_os = "linux"))]
pub(crate) use unsupported::{Link, Relay};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

/// The settings by which TCP notices that a server is gone; `None` leaves them to the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// After how long a silent connection is probed, how long after each other, and how many probes may fail.
    pub(crate) probes: Option<(Duration, Duration, u32)>,
    /// How long what was sent may stay unacknowledged, in milliseconds.
    pub(crate) user_timeout: Option<u32>,
}
