//! Targets that end a connection with RST instead of FIN.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tunnel::Delivery;

use super::Service;
use crate::pattern::Pattern;

/// The seed of the bytes that [`after_sending`] sends.
pub const SEED: u64 = 0x5e5e7;

/// Starts a target that resets each connection when it has read `count` bytes (0: at once).
pub async fn after_reading(count: u64) -> io::Result<Service> {
    Service::start(move |mut stream| async move {
        tokio::io::copy(&mut (&mut stream).take(count), &mut tokio::io::sink()).await?;
        reset(stream)
    })
    .await
}

/// Starts a target that sends `count` bytes (the pattern of [`SEED`]) and resets the connection at its client's first byte. The
/// client says it when it has all of them: bytes still under way when the reset is sent would be lost, as TCP has it.
pub async fn after_sending(count: u64) -> io::Result<Service> {
    Service::start(move |mut stream| async move {
        Pattern::new(SEED, count).write_bytes(&mut stream).await?;
        stream.flush().await?;
        stream.read_u8().await?;
        reset(stream)
    })
    .await
}

/// Starts a target that sends `head`, if there is one when a request has come, then `count` bytes (the pattern of
/// [`SEED`]), and resets the connection as soon as the kernel of its client has them.
pub async fn behind_the_last_byte(count: u64, head: &'static [u8]) -> io::Result<Service> {
    Service::start(move |mut stream| async move {
        if !head.is_empty() {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await?);
            }
            stream.write_all(head).await?;
        }
        Pattern::new(SEED, count).write_bytes(&mut stream).await?;
        when_delivered(stream).await
    })
    .await
}

/// Closes a connection with RST when the kernel of its client has everything: what it had not would be lost, as TCP has it.
pub async fn when_delivered(stream: TcpStream) -> io::Result<()> {
    if let Some(delivery) = Delivery::of(&stream) {
        delivery.done().await;
    }
    reset(stream)
}

/// Closes a connection with RST.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    stream.set_zero_linger()?;
    drop(stream);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_client_sees_a_reset_after_the_bytes_it_sent() -> io::Result<()> {
        let service = after_reading(5).await?;
        let mut client = TcpStream::connect(service.address()).await?;
        client.write_all(b"hello").await?;
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        Ok(())
    }

    #[tokio::test]
    async fn the_client_sees_a_reset_after_all_bytes_it_got() -> anyhow::Result<()> {
        let service = after_sending(1_000_000).await?;
        let mut client = TcpStream::connect(service.address()).await?;
        Pattern::new(SEED, 1_000_000).read_bytes(&mut client).await?;
        client.write_all(b"!").await?;
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        Ok(())
    }
}
