//! A connection of SPDY/3.1: the streams that its client opens, and what is written on them.
//!
//! Clients know no flow control for each stream, so there is none here: a stream that is not read holds up the connection.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::headers::{Deflater, Headers, Inflater};

/// Frames that wait to be written.
const OUTGOING: usize = 8;
/// Pieces of one stream that wait to be read.
const INCOMING: usize = 16;
/// Streams that wait to be accepted.
const STREAMS: usize = 64;
/// How long a client may take to hang up when all is said.
const FAREWELL: Duration = Duration::from_secs(10);
/// The status of a stream that this end does not want any more.
const CANCEL: u32 = 5;

/// A connection. What waits on its streams ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    streams: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Frame>,
    gone: CancellationToken,
    /// Whoever reads and whoever writes.
    tasks: JoinSet<io::Result<()>>,
}

/// A stream that the client has opened.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What it was opened with.
    pub(crate) headers: Headers,
    /// What the client writes; it ends when the client has said so.
    pub(crate) input: mpsc::Receiver<Bytes>,
    /// What the client reads.
    pub(crate) output: Output,
    /// The client wants no more of it, or has left.
    pub(crate) reset: CancellationToken,
}

/// This end's half of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    stream: u32,
    frames: mpsc::Sender<Frame>,
}

/// The side that reads frames.
struct Reader {
    inflater: Inflater,
    deflater: Deflater,
    streams: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
    /// None where the client has ended its half.
    open: HashMap<u32, (Option<mpsc::Sender<Bytes>>, CancellationToken)>,
    gone: CancellationToken,
}

impl Connection {
    /// Speaks on what has just been upgraded.
    pub(crate) fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<Self> {
        let (mut from, mut to) = tokio::io::split(io);
        let (frames, mut outgoing) = mpsc::channel::<Frame>(OUTGOING);
        let (accepted, streams) = mpsc::channel(STREAMS);
        let gone = CancellationToken::new();
        let mut reader = Reader {
            inflater: Inflater::new(),
            deflater: Deflater::new()?,
            streams: accepted,
            frames: frames.clone(),
            open: HashMap::new(),
            gone: gone.clone(),
        };
        let mut tasks = JoinSet::new();
        let left = gone.clone().drop_guard();
        tasks.spawn(async move {
            // However reading ends, the client is gone then.
            let _left = left;
            while let Some(frame) = Frame::read(&mut from).await? {
                reader.handle(frame).await?;
            }
            Ok(())
        });
        tasks.spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                to.write_all(&frame.encode()).await?;
                to.flush().await?;
                if matches!(frame, Frame::GoAway { .. }) {
                    break;
                }
            }
            to.shutdown().await
        });
        Ok(Self { streams, frames, gone, tasks })
    }

    /// The next stream; `None` when the client has left.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Cancelled when the client has left.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Says that no more will come, and waits until all is written and the client has hung up.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        // Where nobody writes any more the client has left.
        let _sent = self.frames.send(Frame::GoAway { last: 0, status: 0 }).await;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            Ok(())
        };
        timeout(FAREWELL, all).await?
    }
}

impl Reader {
    async fn handle(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::SynStream { stream, fin, block } => self.open(stream, fin, &block).await?,
            Frame::Data { stream, fin, bytes } => self.data(stream, fin, bytes).await?,
            Frame::Reset { stream, .. } => {
                if let Some((_, reset)) = self.open.remove(&stream) {
                    reset.cancel();
                }
            }
            // The client's own pings have odd numbers.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await?,
            Frame::Headers { fin, stream, block } => {
                self.inflater.headers(&block).map_err(io::Error::other)?;
                if fin {
                    self.data(stream, true, Bytes::new()).await?;
                }
            }
            Frame::SynReply { .. }
            | Frame::Ping(_)
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. }
            | Frame::Other { .. } => {}
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, fin: bool, block: &[u8]) -> io::Result<()> {
        let headers = self.inflater.headers(block).map_err(io::Error::other)?;
        // The reply goes first: clients drop what comes on a stream before it.
        let block = self.deflater.block(&Headers::default())?;
        self.send(Frame::SynReply { stream, fin: false, block }).await?;
        let (sender, input) = mpsc::channel(INCOMING);
        let reset = self.gone.child_token();
        self.open.insert(stream, ((!fin).then_some(sender), reset.clone()));
        let output = Output { stream, frames: self.frames.clone() };
        self.streams.send(Stream { headers, input, output, reset }).await.map_err(io::Error::other)
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: Bytes) -> io::Result<()> {
        let Some((sender, _)) = self.open.get_mut(&stream) else { return Ok(()) };
        if let Some(sender) = sender.as_ref().filter(|_| !bytes.is_empty()) {
            // What is not read any more is dropped, as a stream that is closed does.
            let _read = sender.send(bytes).await;
        }
        if fin {
            *sender = None;
        }
        Ok(())
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        self.frames.send(frame).await.map_err(io::Error::other)
    }
}

impl Output {
    /// Writes; an error when the client has left.
    pub(crate) async fn send(&self, bytes: Bytes) -> io::Result<()> {
        self.frame(Frame::Data { stream: self.stream, fin: false, bytes }).await
    }

    /// Ends this half.
    pub(crate) async fn end(&self) -> io::Result<()> {
        self.frame(Frame::Data { stream: self.stream, fin: true, bytes: Bytes::new() }).await
    }

    /// Breaks the stream off.
    pub(crate) async fn reset(&self) -> io::Result<()> {
        self.frame(Frame::Reset { stream: self.stream, status: CANCEL }).await
    }

    async fn frame(&self, frame: Frame) -> io::Result<()> {
        self.frames.send(frame).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    async fn expect(client: &mut DuplexStream, expected: Frame) -> io::Result<()> {
        assert_eq!(Frame::read(client).await?, Some(expected));
        Ok(())
    }

    /// A connection, its client's end, and a stream on it that has been replied to.
    async fn opened() -> io::Result<(Connection, DuplexStream, Stream)> {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut connection = Connection::start(server)?;
        let block = Deflater::new()?.block(&Headers::new([("streamtype", "data")]))?;
        client.write_all(&Frame::SynStream { stream: 1, fin: false, block }.encode()).await?;
        let stream = connection.accept().await.expect("a stream");
        assert!(matches!(Frame::read(&mut client).await?, Some(Frame::SynReply { stream: 1, .. })));
        Ok((connection, client, stream))
    }

    #[tokio::test]
    async fn a_half_that_has_ended_leaves_the_other_open() -> io::Result<()> {
        let (connection, mut client, mut stream) = opened().await?;
        assert_eq!(stream.headers.get("streamtype"), Some("data"));
        client.write_all(&Frame::Data { stream: 1, fin: true, bytes: "question".into() }.encode()).await?;
        assert_eq!(stream.input.recv().await, Some("question".into()));
        assert_eq!(stream.input.recv().await, None);
        stream.output.send("answer".into()).await?;
        stream.output.end().await?;
        expect(&mut client, Frame::Data { stream: 1, fin: false, bytes: "answer".into() }).await?;
        expect(&mut client, Frame::Data { stream: 1, fin: true, bytes: Bytes::new() }).await?;
        let (closed, ()) = tokio::join!(connection.close(), async {
            expect(&mut client, Frame::GoAway { last: 0, status: 0 }).await.expect("a farewell");
            drop(client);
        });
        closed
    }

    #[tokio::test]
    async fn pings_are_answered_and_a_reset_is_told() -> io::Result<()> {
        let (_connection, mut client, stream) = opened().await?;
        client.write_all(&Frame::Ping(7).encode()).await?;
        expect(&mut client, Frame::Ping(7)).await?;
        client.write_all(&Frame::Reset { stream: 1, status: CANCEL }.encode()).await?;
        stream.reset.cancelled().await;
        stream.output.reset().await?;
        expect(&mut client, Frame::Reset { stream: 1, status: CANCEL }).await
    }

    #[tokio::test]
    async fn a_client_that_leaves_resets_its_streams() -> io::Result<()> {
        let (mut connection, client, mut stream) = opened().await?;
        drop(client);
        stream.reset.cancelled().await;
        connection.gone().cancelled().await;
        assert!(connection.accept().await.is_none());
        assert_eq!(stream.input.recv().await, None);
        Ok(())
    }
}
