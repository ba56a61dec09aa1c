//! A relay on the loopback interface between the driver and its server, so that this crate owns the connection's
//! sockets.
//!
//! Neither diesel nor libpq exposes a connection's socket, and a search among the process's descriptors could find a
//! wrong one. With a relay, libpq connects to this process, and this process connects to the server. One thread for
//! each direction forwards the bytes, encrypted or not, and [`Link::cut`] closes both sockets. The relay is used only
//! with `DB_SOCKET_TIMEOUT`, because each packet goes through an additional thread.

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

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A host name or an address, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The settings with which TCP detects an unreachable server. `None` leaves them to the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// The time without traffic before the first probe, the time between probes, and the number of probes that may
    /// fail.
    pub(crate) probes: Option<(Duration, Duration, u32)>,
    /// The maximum time that sent data may stay unacknowledged, in milliseconds.
    pub(crate) user_timeout: Option<u32>,
}
