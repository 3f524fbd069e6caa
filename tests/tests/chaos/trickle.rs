//! A web service whose answer never ends by itself: a piece of a pattern four times a second, or a short one that does.

use std::io;
use std::time::Duration;

use tests::Service;
use tests::pattern::Pattern;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

pub(crate) const PIECE: usize = 512;
pub(crate) const REST: Duration = Duration::from_millis(250);
/// What `/short` answers.
pub(crate) const SHORT: Pattern = Pattern { seed: 7, length: 4096 };
/// What everything else answers, for ever.
pub(crate) const LONG: Pattern = Pattern { seed: 8, length: u64::MAX };

pub(crate) async fn start() -> io::Result<Service> {
    Service::start(serve).await
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"GET /short") {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", SHORT.length);
        stream.write_all(answer.as_bytes()).await?;
        stream.write_all(&SHORT.to_vec()).await?;
        return stream.shutdown().await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let (mut offset, mut piece) = (0, vec![0; PIECE]);
    loop {
        LONG.fill(offset, &mut piece);
        stream.write_all(format!("{PIECE:x}\r\n").as_bytes()).await?;
        stream.write_all(&piece).await?;
        stream.write_all(b"\r\n").await?;
        offset += PIECE as u64;
        sleep(REST).await;
    }
}
