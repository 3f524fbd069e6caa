//! The streams of a command over SPDY: each is a stream, named by the header `streamtype`.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Connection, Output, Stream};
use crate::service::apiserver::streams::{Carried, Channel, Streams, Wanted};

/// How long a client may take to open all its streams.
const OPENING: Duration = Duration::from_secs(30);

/// The streams that a client has opened.
#[derive(Default)]
struct Opened {
    stdin: Option<Stream>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    status: Option<Output>,
    resize: Option<Stream>,
}

/// Carries the streams of `work`, which ends with a status, or is dropped when the client leaves.
pub(in crate::service::apiserver) async fn serve<W: Future<Output = Value>>(
    mut connection: Connection,
    wanted: Wanted,
    work: impl FnOnce(Streams) -> W,
) -> io::Result<()> {
    let Opened { stdin, stdout, stderr, status, resize } = Opened::all(&mut connection, wanted).await?;
    let (streams, mut carried) = wanted.streams();
    let last = streams.output.clone();
    let Carried { resize: sizes, stdin: input, output: pieces } = &mut carried;
    let read = async {
        let (Some(mut stdin), Some(sender)) = (stdin, input.take()) else { return };
        while let Some(bytes) = stdin.input.recv().await {
            // What a command does not read is dropped.
            let _read = sender.send(bytes).await;
        }
    };
    let resized = async {
        let Some(mut resize) = resize else { return };
        while let Some(bytes) = resize.input.recv().await {
            let _read = sizes.send(bytes).await;
        }
    };
    let written = async {
        while let Some((channel, bytes)) = pieces.recv().await {
            let output = match channel {
                Channel::Stdout => &stdout,
                Channel::Stderr => &stderr,
                Channel::Status => &status,
            };
            if let Some(output) = output {
                output.send(bytes).await?;
            }
        }
        for output in [stdout, stderr, status].into_iter().flatten() {
            output.end().await?;
        }
        Ok::<_, io::Error>(())
    };
    let worked = async {
        let status = work(streams).await;
        // Where nobody carries it the client has left.
        let _sent = last.send((Channel::Status, status.to_string().into())).await;
        drop(last);
    };
    let gone = connection.gone();
    let all = async { tokio::join!(written, worked).0 };
    tokio::select! {
        written = all => written?,
        () = gone.cancelled() => return Ok(()),
        never = async { tokio::join!(read, resized); std::future::pending::<std::convert::Infallible>().await } => match never {},
    }
    connection.close().await
}

impl Opened {
    /// Waits for those that were asked for, and the one of the status.
    async fn all(connection: &mut Connection, wanted: Wanted) -> io::Result<Self> {
        let deadline = Instant::now() + OPENING;
        let mut opened = Self::default();
        while !opened.complete(wanted) {
            let accepted = timeout_at(deadline, connection.accept()).await?;
            let stream = accepted.ok_or_else(|| io::Error::other("the client left before it opened its streams"))?;
            match stream.headers.get("streamtype") {
                Some("stdin") => opened.stdin = Some(stream),
                Some("stdout") => opened.stdout = Some(stream.output),
                Some("stderr") => opened.stderr = Some(stream.output),
                Some("error") => opened.status = Some(stream.output),
                Some("resize") => opened.resize = Some(stream),
                _ => stream.output.reset().await?,
            }
        }
        Ok(opened)
    }

    fn complete(&self, wanted: Wanted) -> bool {
        self.status.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
            && (self.resize.is_some() || !wanted.tty)
    }
}
