//! Ports that stay ours while nothing listens on them.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that the system gives to nobody else as long as this value lives: it is bound and doesn't listen,
/// so connections are refused. A server that sets `SO_REUSEADDR`, as most do, can listen on it again and again.
#[derive(Debug)]
pub struct HeldPort {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl HeldPort {
    /// # Errors
    /// No port can be had.
    pub fn new() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self { address: socket.local_addr()?, _socket: socket })
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}
