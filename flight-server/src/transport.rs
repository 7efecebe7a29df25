//! Connections before any call: who may connect, TLS, and how long a client may take to begin.
//!
//! Each connection's handshake is a task of its own with a time limit, so one that says nothing keeps nobody waiting.
//! What comes out speaks HTTP/2: its first bytes have been read and are handed on.

mod connection;
mod places;
mod tls;

pub(crate) use connection::{Connection, Peer};
pub(crate) use tls::{TlsFiles, WATCH_INTERVAL};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::config::ServerConfig;
use crate::telemetry::Telemetry;
use places::{Full, Place, Places};

/// After an error that accepting again at once would only repeat, as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// How connections are taken.
#[derive(Debug)]
pub(crate) struct Transport {
    /// `None`: plain text.
    tls: Option<Arc<TlsFiles>>,
    places: Arc<Places>,
    handshake_timeout: Duration,
    telemetry: Arc<Telemetry>,
}

impl Transport {
    pub(crate) fn new(config: &ServerConfig, tls: Option<Arc<TlsFiles>>, telemetry: Arc<Telemetry>) -> Self {
        let open = telemetry.connections();
        Self {
            tls,
            places: Arc::new(Places::new(config.max_connections, config.max_connections_per_address, open)),
            handshake_timeout: config.handshake_timeout,
            telemetry,
        }
    }

    /// Connections of `listener` that have begun to speak HTTP/2, until the receiver is dropped.
    pub(crate) fn accept(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(Arc::new(self).run(listener, sender));
        ReceiverStream::new(receiver)
    }

    async fn run(self: Arc<Self>, listener: TcpListener, ready: mpsc::Sender<io::Result<Connection>>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => match self.places.enter(address.ip()) {
                    Ok(place) => {
                        let (transport, ready) = (Arc::clone(&self), ready.clone());
                        tokio::spawn(async move { transport.begin(stream, address, place, ready).await });
                    }
                    Err(full) => {
                        let limit = match full {
                            Full::All => "max_connections",
                            Full::Address => "max_connections_per_address",
                        };
                        self.telemetry.refused_connection(limit);
                        tracing::debug!(%address, limit, "a connection too many is closed");
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn begin(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Place,
        ready: mpsc::Sender<io::Result<Connection>>,
    ) {
        // What is said last is said at once: a call's answer waits for nothing.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "no TCP_NODELAY");
        }
        let tls = self.tls.as_ref().map(|files| files.current());
        let opening = Connection::open(stream, address, tls, place);
        match tokio::time::timeout(self.handshake_timeout, opening).await {
            Ok(Ok(connection)) => {
                // The server ends: nobody is there to take it.
                let _ended = ready.send(Ok(connection)).await;
            }
            Ok(Err(error)) => {
                self.telemetry.refused_connection("handshake");
                tracing::debug!(%address, %error, "a connection didn't begin");
            }
            Err(_) => {
                self.telemetry.refused_connection("handshake_timeout");
                tracing::debug!(%address, limit = ?self.handshake_timeout, "a connection took too long to begin");
            }
        }
    }
}
