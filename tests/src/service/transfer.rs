//! A target that sends or takes a [`Pattern`], or both at once, and the client's side of it.
//!
//! A client's request is 17 bytes: `D` (download), `U` (upload) or `B` (both), then seed and length, big-endian. The target then
//! sends the pattern with its checksum (`D`), or takes it and answers `ok SHA256\n` or `error: WHY\n` (`U`), or does both at once
//! (`B`: upload of that seed, download of its complement, then the answer), and ends.

use std::io;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::Service;
use crate::pattern::Pattern;

/// What is asked for, by its byte on the wire.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Download = b'D' as isize,
    Upload = b'U' as isize,
    Both = b'B' as isize,
}

/// Starts it.
pub async fn start() -> io::Result<Service> {
    Service::start(serve).await
}

/// Serves one connection of any kind, e.g. a TLS one.
pub async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let direction = stream.read_u8().await?;
    let pattern = Pattern::new(stream.read_u64().await?, stream.read_u64().await?);
    match direction {
        b'D' => drop(pattern.write(&mut stream).await?),
        b'U' => {
            let verdict = verdict(pattern, &mut stream).await;
            stream.write_all(verdict.as_bytes()).await?;
        }
        b'B' => {
            let (mut reader, mut writer) = split(&mut stream);
            let download = answer_to(pattern);
            let (verdict, sent) = tokio::join!(verdict(pattern, &mut reader), download.write(&mut writer));
            sent?;
            writer.write_all(verdict.as_bytes()).await?;
        }
        _ => stream.write_all(b"error: the request begins with none of D, U, B\n").await?,
    }
    stream.shutdown().await
}

/// Asks for a pattern, and demands every byte of it and then a clean end.
pub async fn download(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), pattern: Pattern) -> Result<()> {
    request(stream, Direction::Download, pattern).await?;
    pattern.read(stream).await.context("the download is wrong")?;
    let mut rest = [0];
    match stream.read(&mut rest).await.context("the download did not end cleanly")? {
        0 => Ok(()),
        _ => bail!("bytes follow the end of the download"),
    }
}

/// Sends a pattern, and demands the target's word that every byte came.
pub async fn upload(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), pattern: Pattern) -> Result<()> {
    request(stream, Direction::Upload, pattern).await?;
    let checksum = pattern.write(stream).await.context("the upload failed")?;
    expect_end(stream, &format!("ok {checksum}\n")).await
}

/// Sends a pattern while another comes back, and demands both to be right.
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), pattern: Pattern) -> Result<()> {
    request(stream, Direction::Both, pattern).await?;
    let (mut reader, mut writer) = split(&mut *stream);
    let download = answer_to(pattern);
    let (sent, received) = tokio::join!(pattern.write(&mut writer), download.read(&mut reader));
    received.context("the download is wrong")?;
    let checksum = sent.context("the upload failed")?;
    expect_end(stream, &format!("ok {checksum}\n")).await
}

/// The pattern that comes back when `pattern` is sent in both directions at once.
fn answer_to(pattern: Pattern) -> Pattern {
    Pattern { seed: !pattern.seed, ..pattern }
}

async fn request(stream: &mut (impl AsyncWrite + Unpin), direction: Direction, pattern: Pattern) -> Result<()> {
    let mut request = vec![direction as u8];
    request.extend(pattern.seed.to_be_bytes());
    request.extend(pattern.length.to_be_bytes());
    stream.write_all(&request).await.context("the request failed")?;
    stream.flush().await.context("the request failed")
}

async fn verdict(pattern: Pattern, stream: &mut (impl AsyncRead + Unpin)) -> String {
    match pattern.read(stream).await {
        Ok(checksum) => format!("ok {checksum}\n"),
        Err(error) => format!("error: {error}\n"),
    }
}

async fn expect_end(stream: &mut (impl AsyncRead + Unpin), expected: &str) -> Result<()> {
    let mut answer = String::new();
    stream.take(1024).read_to_string(&mut answer).await.context("the target's answer failed")?;
    if answer != expected {
        bail!("the target answered {answer:?}, not {expected:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    const PATTERN: Pattern = Pattern { seed: 42, length: 3_000_001 };

    #[tokio::test]
    async fn patterns_go_down_up_and_both_ways() -> Result<()> {
        let service = start().await?;
        download(&mut TcpStream::connect(service.address()).await?, PATTERN).await?;
        upload(&mut TcpStream::connect(service.address()).await?, PATTERN).await?;
        exchange(&mut TcpStream::connect(service.address()).await?, PATTERN).await
    }

    #[tokio::test]
    async fn a_wrong_upload_is_refused_with_the_place() -> Result<()> {
        let service = start().await?;
        let mut client = TcpStream::connect(service.address()).await?;
        request(&mut client, Direction::Upload, PATTERN).await?;
        Pattern { seed: 43, ..PATTERN }.write(&mut client).await?;
        let error = expect_end(&mut client, "ok\n").await.unwrap_err().to_string();
        assert!(error.contains("error: byte 0 of 3000001 is wrong"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn a_target_that_dies_in_the_middle_is_an_error() -> Result<()> {
        let service = start().await?;
        let mut client = TcpStream::connect(service.address()).await?;
        request(&mut client, Direction::Download, Pattern { length: u64::MAX, ..PATTERN }).await?;
        client.read_u8().await?;
        drop(service);
        assert!(Pattern { length: u64::MAX, ..PATTERN }.read(&mut client).await.is_err());
        Ok(())
    }
}
