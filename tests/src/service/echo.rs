//! A target that sends back what it gets, and ends when its client does.

use std::io;

use tokio::net::TcpStream;

use super::Service;

/// Starts it.
pub async fn start() -> io::Result<Service> {
    Service::start(serve).await
}

/// Serves one connection; for [`Service::start_at`].
pub async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    tokio::io::AsyncWriteExt::shutdown(&mut writer).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn it_answers_what_was_said_and_ends_after_the_client() -> io::Result<()> {
        for service in [start().await?, Service::start_at(Ipv6Addr::LOCALHOST.into(), serve).await?] {
            let mut client = TcpStream::connect(service.address()).await?;
            client.write_all(b"hello").await?;
            let mut answer = [0; 5];
            client.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"hello");
            client.shutdown().await?;
            assert_eq!(client.read(&mut answer).await?, 0);
        }
        Ok(())
    }
}
