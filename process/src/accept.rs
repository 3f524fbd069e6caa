//! Accepting connections where that may fail: it fails again at once until somebody acts, as where no descriptor is left.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};

/// Between two tries: long enough not to spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log says that it fails.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Accepts on a port.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// As the log names it.
    name: &'static str,
    told: Option<Instant>,
}

impl Acceptor {
    pub fn new(listener: TcpListener, name: &'static str) -> Self {
        Self { listener, name, told: None }
    }

    /// The next client.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                        let port = self.name;
                        tracing::warn!(%error, port, "cannot accept; raise the limit of open files if it is reached");
                        self.told = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
