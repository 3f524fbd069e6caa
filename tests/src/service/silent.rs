//! A target that listens to everything and never says a word.

use std::io;

use super::Service;

/// Starts it. A connection ends when its client ends it.
pub async fn start() -> io::Result<Service> {
    Service::start(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_takes_all_and_answers_nothing() -> io::Result<()> {
        let service = start().await?;
        let mut client = TcpStream::connect(service.address()).await?;
        client.write_all(&vec![0; 1_000_000]).await?;
        assert!(timeout(Duration::from_millis(50), client.read(&mut [0])).await.is_err());
        client.shutdown().await?;
        assert_eq!(client.read(&mut [0]).await?, 0);
        Ok(())
    }
}
