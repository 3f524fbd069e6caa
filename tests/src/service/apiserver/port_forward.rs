//! Port forwarding: pairs of streams, of which one carries a connection to a port of the pod and the other its error.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::spdy::{Connection, Output, Stream};

/// Bytes read from the port at a time.
const PIECE: usize = 32 * 1024;
/// How long a client may go on after the target has ended, as containerd has it.
const PARTING: Duration = Duration::from_secs(1);

/// Which service of this machine each port of a pod is.
pub(super) type Ports = BTreeMap<u16, SocketAddr>;

/// Serves until the client leaves.
pub(super) async fn serve(mut connection: Connection, ports: Ports) -> io::Result<()> {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut forwarded = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(stream) = accepted else { break };
                let request = stream.headers.get("requestid").unwrap_or_default().to_owned();
                let Some(other) = halves.remove(&request) else {
                    halves.insert(request, stream);
                    continue;
                };
                let is_error = stream.headers.get("streamtype") == Some("error");
                let (error, data) = if is_error { (stream, other) } else { (other, stream) };
                forwarded.spawn(forward(data, error, ports.clone()));
            }
            Some(_) = forwarded.join_next() => {}
        }
    }
    Ok(())
}

/// One connection, from its dial to both ends.
async fn forward(data: Stream, error: Stream, ports: Ports) -> io::Result<()> {
    let port = data.headers.get("port").unwrap_or_default().to_owned();
    match dial(&port, &ports).await {
        Ok(target) => {
            let reset = data.reset.clone();
            tokio::select! {
                copied = copy(data, target) => copied?,
                () = reset.cancelled() => {}
            }
        }
        Err(why) => {
            let text = format!("error forwarding port {port} to the pod: {why}");
            error.output.send(text.into()).await?;
            data.output.reset().await?;
        }
    }
    error.output.end().await
}

async fn dial(port: &str, ports: &Ports) -> io::Result<TcpStream> {
    let found = port.parse().ok().and_then(|port: u16| ports.get(&port));
    let address = found.ok_or_else(|| io::Error::other("nothing listens there"))?;
    TcpStream::connect(address).await
}

/// Copies both ways. The end of what the client says is passed on and leaves the other direction open. When the target has ended,
/// the client has a moment to end too: old ones wait for the error's stream before they do.
async fn copy(data: Stream, target: TcpStream) -> io::Result<()> {
    let (from, to) = target.into_split();
    let (sent, received) = (send(data.input, to), receive(from, &data.output));
    tokio::pin!(sent, received);
    let copied = tokio::select! {
        sent = &mut sent => match sent {
            Ok(()) => received.await,
            Err(error) => Err(error),
        },
        received = &mut received => match received {
            Ok(()) => timeout(PARTING, sent).await.unwrap_or(Ok(())),
            Err(error) => Err(error),
        },
    };
    if copied.is_err() {
        // A target that breaks off must not look as if it had ended.
        data.output.reset().await?;
    }
    copied
}

async fn send(mut input: mpsc::Receiver<bytes::Bytes>, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some(bytes) = input.recv().await {
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}

async fn receive(mut from: OwnedReadHalf, output: &Output) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        if from.read_buf(&mut piece).await? == 0 {
            return output.end().await;
        }
        output.send(piece.freeze()).await?;
    }
}
