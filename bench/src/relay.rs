//! A hop of the plain TCP relay, and the copying that all relays share.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::role::{self, Ready};

/// Each direction's buffer.
const BUFFER: usize = 64 * 1024;
/// How long an accept rests that failed, e.g. for want of files.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// The role: every connection to `listen` goes on to `to`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Relay {
    /// Port 0 for any.
    pub listen: SocketAddr,
    /// The next hop, or the service.
    pub to: SocketAddr,
}

impl Relay {
    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let listener = listen(self.listen, Ready::at).await?;
        accept(listener, |near| copy(near, dial(self.to))).await
    }
}

/// Listens and says so.
pub(crate) async fn listen(address: SocketAddr, ready: impl FnOnce(SocketAddr) -> Ready) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    role::say(&ready(listener.local_addr()?))?;
    Ok(listener)
}

/// Serves each connection in a task, until the process is killed.
pub(crate) async fn accept<F>(listener: TcpListener, mut serve: impl FnMut(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    connections.spawn(serve(stream));
                }
                Err(_) => sleep(ACCEPT_REST).await,
            },
            // A client that leaves in the middle ends its connection only.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// TCP with TCP_NODELAY.
pub(crate) async fn dial(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("{to} cannot be reached"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Copies both ways to both ends.
pub(crate) async fn copy<F>(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl Future<Output = Result<F>>,
) -> Result<()>
where
    F: AsyncRead + AsyncWrite + Unpin,
{
    let mut far = far.await?;
    copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await?;
    Ok(())
}
