//! The socket of a connection, which neither diesel nor the driver behind it shows.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Search, Socket, turn};
#[cfg(target_os = "linux")]
pub(crate) use linux::{Search, Socket, turn};
