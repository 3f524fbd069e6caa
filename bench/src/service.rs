//! The service at the end of every path: it does what the first line of a connection asks for.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use ::tests::Process;
use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::yield_now;

use crate::place::Place;
use crate::relay;
use crate::role::{Ready, Role};

/// What a source writes, and a sink reads, with one call.
pub const CHUNK: usize = 64 * 1024;
/// Chunks after which a stream that is always ready lets the others of its process have their turn. tokio would do so after 128,
/// or 8 MiB, and what is measured would be this process' fairness and not that of the path.
const TURN: u64 = 8;
/// The longest first line.
const LONGEST_LINE: usize = 64;
/// What an echo reads with one call: many messages of 64 bytes.
const ECHO: usize = 4096;

/// The role: where to listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// Port 0 for any.
    pub listen: SocketAddr,
}

/// A service that runs. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
}

/// What a client asks for in its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `source\n`: bytes, until the client is gone.
    Source,
    /// `source N\n`: N bytes, then the end.
    SourceOf(u64),
    /// `sink\n`: everything the client sends is thrown away; then the end.
    Sink,
    /// `echo\n`: everything the client sends comes back, also what follows the line at once; then the end.
    Echo,
}

impl Service {
    /// Starts one.
    pub async fn start(listen: SocketAddr, place: &Place) -> Result<Running> {
        let (process, Ready { address, .. }) = Role::Service(Self { listen }).start(place).await?;
        Ok(Running { address, process })
    }

    /// Plays the role: serves until it is killed.
    pub async fn run(self) -> Result<()> {
        let listener = relay::listen(self.listen, Ready::at).await?;
        // A client that leaves in the middle has had enough.
        relay::accept(listener, serve).await
    }
}

impl Ask {
    /// The line, with its end.
    pub fn line(self) -> String {
        match self {
            Self::Source => "source\n".to_owned(),
            Self::SourceOf(bytes) => format!("source {bytes}\n"),
            Self::Sink => "sink\n".to_owned(),
            Self::Echo => "echo\n".to_owned(),
        }
    }
}

impl FromStr for Ask {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        Ok(match line.split_once(' ').unwrap_or((line, "")) {
            ("source", "") => Self::Source,
            ("source", bytes) => Self::SourceOf(bytes.parse()?),
            ("sink", "") => Self::Sink,
            ("echo", "") => Self::Echo,
            _ => bail!("nobody can be served `{line}`"),
        })
    }
}

/// Serves one connection of whatever kind to its end.
pub async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut head = Vec::with_capacity(256);
    let end = loop {
        if let Some(end) = head.iter().position(|byte| *byte == b'\n') {
            break end;
        }
        if head.len() > LONGEST_LINE || stream.read_buf(&mut head).await? == 0 {
            bail!("a client that asks for nothing");
        }
    };
    match std::str::from_utf8(&head[..end])?.parse()? {
        Ask::Source => source(&mut stream, u64::MAX).await?,
        Ask::SourceOf(bytes) => source(&mut stream, bytes).await?,
        Ask::Sink => sink(&mut stream).await?,
        Ask::Echo => echo(&mut stream, &head[end + 1..]).await?,
    }
    Ok(stream.shutdown().await?)
}

async fn source(stream: &mut (impl AsyncWrite + Unpin), bytes: u64) -> io::Result<()> {
    let (chunk, mut left, mut turns) = (vec![0x5a; CHUNK], bytes, Turns::default());
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        left -= stream.write(&chunk[..wanted]).await? as u64;
        turns.pass().await;
    }
    stream.flush().await
}

async fn sink(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let (mut chunk, mut turns) = (vec![0; CHUNK], Turns::default());
    while stream.read(&mut chunk).await? > 0 {
        turns.pass().await;
    }
    Ok(())
}

/// Counts the chunks of one stream.
#[derive(Debug, Default)]
pub struct Turns(u64);

impl Turns {
    /// After a chunk; lets the others run if it was the last of a turn.
    pub async fn pass(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(TURN) {
            yield_now().await;
        }
    }
}

async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), first: &[u8]) -> io::Result<()> {
    stream.write_all(first).await?;
    let mut buffer = vec![0; ECHO];
    loop {
        stream.flush().await?;
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answer(asked: &[u8]) -> Result<Vec<u8>> {
        let (mut client, service) = duplex(1024);
        let talk = async {
            client.write_all(asked).await?;
            client.shutdown().await?;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        let (served, answer) = tokio::join!(serve(service), talk);
        served.and(answer)
    }

    #[tokio::test]
    async fn each_line_is_served_what_it_says() -> Result<()> {
        assert_eq!(answer(b"echo\nabc").await?, b"abc");
        assert_eq!(answer(b"source 100000\n").await?.len(), 100_000);
        assert_eq!(answer(b"sink\nabc").await?, b"");
        assert!(answer(b"tea\n").await.is_err());
        Ok(())
    }

    #[test]
    fn a_line_is_read_as_it_was_written() -> Result<()> {
        for ask in [Ask::Source, Ask::SourceOf(7), Ask::Sink, Ask::Echo] {
            assert_eq!(ask.line().trim_end().parse::<Ask>()?, ask);
        }
        Ok(())
    }
}
