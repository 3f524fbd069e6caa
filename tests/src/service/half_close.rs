//! Targets that need a half-closed connection: one end has said all it will say and still listens.

use std::fmt;
use std::io;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::Service;
use crate::pattern::Checksum;

/// What was read to a clean end. `Display` is the line `COUNT SHA256\n` that [`client_first`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// How many bytes.
    pub count: u64,
    /// Their SHA-256.
    pub checksum: Checksum,
}

/// A target that says its piece, half-closes, and then listens until its client has ended too.
#[derive(Debug)]
pub struct TargetFirst {
    service: Service,
    receipts: watch::Receiver<Vec<Receipt>>,
}

impl Receipt {
    /// The receipt for exactly these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { count: bytes.len() as u64, checksum: Checksum(Sha256::digest(bytes).into()) }
    }

    /// Reads to a clean end; an error if the stream fails before.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut piece = vec![0; 64 * 1024];
        let (mut count, mut digest) = (0, Sha256::new());
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok(Self { count, checksum: Checksum(digest.finalize().into()) });
            }
            digest.update(&piece[..read]);
            count += read as u64;
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.count, self.checksum)
    }
}

/// Starts a target that reads to its client's FIN and only then answers, with a [`Receipt`] as text, and ends.
pub async fn client_first() -> io::Result<Service> {
    Service::start(|mut stream| async move {
        let receipt = Receipt::read(&mut stream).await?;
        stream.write_all(receipt.to_string().as_bytes()).await?;
        stream.shutdown().await
    })
    .await
}

/// Starts a target that sends `words`, half-closes, and reads on until its client has ended.
pub async fn target_first(words: impl Into<Vec<u8>>) -> io::Result<TargetFirst> {
    let words = words.into();
    let (sender, receipts) = watch::channel(Vec::new());
    let service = Service::start(move |mut stream| {
        let (words, sender) = (words.clone(), sender.clone());
        async move {
            stream.write_all(&words).await?;
            stream.shutdown().await?;
            let receipt = Receipt::read(&mut stream).await?;
            sender.send_modify(|receipts| receipts.push(receipt));
            Ok(())
        }
    })
    .await?;
    Ok(TargetFirst { service, receipts })
}

impl TargetFirst {
    /// The service itself.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What was read from each client that ended cleanly, in the order of their ends.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.receipts.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;
    use crate::wait_until;

    #[tokio::test]
    async fn the_answer_comes_after_the_clients_end() -> io::Result<()> {
        let service = client_first().await?;
        let mut client = TcpStream::connect(service.address()).await?;
        client.write_all(b"abc").await?;
        client.shutdown().await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert_eq!(answer, "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
        Ok(())
    }

    #[tokio::test]
    async fn the_client_may_go_on_after_the_targets_end() -> anyhow::Result<()> {
        let target = target_first("bye").await?;
        let mut client = TcpStream::connect(target.service().address()).await?;
        let mut words = String::new();
        client.read_to_string(&mut words).await?;
        client.write_all(b"and one more thing").await?;
        drop(client);
        wait_until(Duration::from_secs(5), "a receipt", async || !target.receipts().is_empty()).await?;
        assert_eq!((words.as_str(), target.receipts()), ("bye", vec![Receipt::of(b"and one more thing")]));
        Ok(())
    }
}
