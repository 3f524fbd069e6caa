//! A link: a TCP port before a server that can be cut, with every connection through it, and mended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A link to one server. It ends when dropped, with its connections.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Starts one, whole, before `server`.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (whole, state) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, state));
        Ok(Self { address, whole, _tasks: tasks })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A listener that fails ends the link: what goes through it shows that.
                let Ok((client, _)) = accepted else { return };
                connections.spawn(carry(client, server, state.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut state: watch::Receiver<bool>) {
    let through = async {
        let mut server = TcpStream::connect(server).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        biased;
        _cut = state.wait_for(|whole| !whole) => {}
        // What a connection ends with is for its client to judge.
        _ended = through => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::service::echo;

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_what_comes_until_it_is_mended() -> io::Result<()> {
        let server = echo::start().await?;
        let link = Link::start(server.address()).await?;
        let mut open = TcpStream::connect(link.address()).await?;
        let said = async |stream: &mut TcpStream| {
            stream.write_all(b"!").await?;
            stream.read_u8().await
        };
        assert_eq!(said(&mut open).await?, b'!');
        link.cut();
        assert!(open.read_u8().await.is_err());
        let mut refused = TcpStream::connect(link.address()).await?;
        assert!(refused.read_u8().await.is_err());
        link.mend();
        assert_eq!(said(&mut TcpStream::connect(link.address()).await?).await?, b'!');
        Ok(())
    }
}
