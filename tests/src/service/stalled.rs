//! A target that stops reading: what is sent to it piles up on the way until it is told to go on.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::Service;

/// The service and the rein on its reading.
#[derive(Debug)]
pub struct Stalled {
    service: Service,
    reading: watch::Sender<bool>,
    received: watch::Sender<u64>,
}

/// Starts it: it accepts, and reads nothing before [`Stalled::resume`].
pub async fn start() -> io::Result<Stalled> {
    let (reading, rein) = watch::channel(false);
    let received = watch::Sender::new(0);
    let count = received.clone();
    let service = Service::start_narrow(move |mut stream| {
        let (mut rein, count) = (rein.clone(), count.clone());
        async move {
            let mut piece = vec![0; 64 * 1024];
            // The rein is let go only together with the service.
            while rein.wait_for(|reading| *reading).await.is_ok() {
                let read = stream.read(&mut piece).await?;
                if read == 0 {
                    break;
                }
                count.send_modify(|count| *count += read as u64);
            }
            Ok(())
        }
    })
    .await?;
    Ok(Stalled { service, reading, received })
}

impl Stalled {
    /// The service itself.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Lets it read, from all connections.
    pub fn resume(&self) {
        self.reading.send_replace(true);
    }

    /// Stops it again; a read under way still ends.
    pub fn stall(&self) {
        self.reading.send_replace(false);
    }

    /// Bytes read so far, from all connections together.
    pub fn received(&self) -> u64 {
        *self.received.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::wait_until;

    #[tokio::test]
    async fn writes_to_it_stall_until_it_reads_again() -> anyhow::Result<()> {
        let stalled = start().await?;
        let mut client = TcpStream::connect(stalled.service().address()).await?;
        let much = vec![7; 64 << 20];
        let mut write = Box::pin(client.write_all(&much));
        assert!(timeout(Duration::from_millis(300), &mut write).await.is_err(), "64 MiB went into a stalled target");
        assert_eq!(stalled.received(), 0);
        stalled.resume();
        write.await?;
        wait_until(Duration::from_secs(10), "all bytes", async || stalled.received() == 64 << 20).await
    }
}
