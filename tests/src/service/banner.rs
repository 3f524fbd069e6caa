//! A target that speaks first, as SSH, SMTP and MySQL do, and then echoes.

use std::io;

use tokio::io::AsyncWriteExt as _;

use super::{Service, echo};

/// Starts it: each client gets `banner` at once.
pub async fn start(banner: impl Into<Vec<u8>>) -> io::Result<Service> {
    let banner = banner.into();
    Service::start(move |mut stream| {
        let banner = banner.clone();
        async move {
            stream.write_all(&banner).await?;
            echo::serve(stream).await
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_banner_comes_before_any_word_of_the_client() -> io::Result<()> {
        let service = start("220 ready\r\n").await?;
        let mut client = TcpStream::connect(service.address()).await?;
        let mut banner = [0; 11];
        client.read_exact(&mut banner).await?;
        assert_eq!(&banner, b"220 ready\r\n");
        Ok(())
    }
}
